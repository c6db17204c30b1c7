// Normals of one sample in pieces that stay in the first-level cache.
#pragma once

#include "../philox.h"

namespace lv {

constexpr int64_t kNoiseBuffer = 256;

// z[0, count) = normals of elements [begin, begin + count) of `sample`; begin is a multiple of 4, count <=
// kNoiseBuffer.
LV_HD void fill_noise(const NoiseKey& key, uint32_t sample, int64_t begin, int64_t count, float* z) {
  const uint32_t block = static_cast<uint32_t>(begin / 4);
  const int blocks = static_cast<int>((count + 3) / 4);
  for (int b = 0; b < blocks; ++b) noise_normals(key, sample, block + b, z + 4 * b);
}

}  // namespace lv
