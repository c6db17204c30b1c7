// Where element e of a sample lies: e counts channels, then pixels, whatever the memory format is.
#pragma once

#include "common.h"

namespace lv {

struct ImageShape {
  int64_t samples, channels, pixels;
  LV_HD int64_t elements() const { return channels * pixels; }
};

LV_HD int64_t memory_offset(const ImageShape& shape, bool channels_last, int64_t element) {
  if (!channels_last) return element;
  return (element % shape.pixels) * shape.channels + element / shape.pixels;
}

}  // namespace lv
