// Normals of one sample in pieces that stay in the first-level cache.
#pragma once

#include "../philox.h"

namespace lv {

constexpr int64_t kNoiseBuffer = 512;

// z[0, count) = normals of elements [begin, begin + count) of `sample`; begin is a multiple of 4, count <=
// kNoiseBuffer.
void fill_noise(const NoiseKey& key, uint32_t sample, int64_t begin, int64_t count, float* z);

}  // namespace lv
