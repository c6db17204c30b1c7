// The raw words and normals of the noise, for starting points, tests and users (langevin_ext.noise).
#pragma once

#include "philox.h"

namespace lv {

template <typename T>  // int64_t: words; float: normals
struct NoiseFill {
  T* out;  // [N, D] contiguous
  int64_t samples, elements;
  NoiseKey key;
  uint32_t first;
};

LV_HD void noise_block(const NoiseKey& key, uint32_t sample, uint32_t block, float out[4]) {
  noise_normals(key, sample, block, out);
}
LV_HD void noise_block(const NoiseKey& key, uint32_t sample, uint32_t block, int64_t out[4]) {
  uint32_t words[4];
  noise_words(key, sample, block, words);
  for (int lane = 0; lane < 4; ++lane) out[lane] = words[lane];
}

template <typename T>
void noise_fill_cpu(const NoiseFill<T>& p, int threads);
template <typename T>
void noise_fill_cuda(const NoiseFill<T>& p, void* stream);

}  // namespace lv
