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

// memory_offset of one element after the other, without a division for each.
class MemoryWalk {
 public:
  LV_HD MemoryWalk(const ImageShape& shape, bool channels_last, int64_t element)
      : stride_(channels_last ? shape.channels : 1),
        run_(channels_last ? shape.pixels : shape.elements()),
        back_(channels_last ? shape.elements() - 1 : 0),
        left_(run_ - element % run_),
        offset_(memory_offset(shape, channels_last, element)) {}

  LV_HD int64_t offset() const { return offset_; }
  LV_HD void next() {
    offset_ += stride_;
    if (--left_ > 0) return;
    left_ = run_;
    offset_ -= back_;  // the first pixel of the next channel
  }

 private:
  int64_t stride_, run_, back_, left_, offset_;
};

}  // namespace lv
