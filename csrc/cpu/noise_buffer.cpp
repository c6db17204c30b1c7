#include "noise_buffer.h"

#include <algorithm>

#include "isa.h"

namespace lv {
namespace {

typedef uint32_t NoiseWords[4][kNoiseBuffer / 4];  // word, block

// For a block or two.
LV_CLONES void fill_block_by_block(const NoiseKey& key, uint32_t sample, uint32_t block, int64_t count, float* z) {
  for (; count > 0; count -= 4, z += 4, ++block) {
    float normals[4];
    noise_normals(key, sample, block, normals);
    for (int64_t i = 0; i < std::min<int64_t>(count, 4); ++i) z[i] = normals[i];
  }
}

// The normals of the words of `blocks` blocks, of which z gets `count`.
LV_HD void normals_of_words(const NoiseWords& words, int blocks, int64_t count, float* z) {
  float normals[4][kNoiseBuffer / 4];
  for (int pair = 0; pair < 4; pair += 2)
    for (int b = 0; b < blocks; ++b)
      box_muller(words[pair][b], words[pair + 1][b], normals[pair][b], normals[pair + 1][b]);
  const int64_t whole = count / 4;
  for (int64_t b = 0; b < whole; ++b)
    for (int i = 0; i < 4; ++i) z[4 * b + i] = normals[i][b];
  for (int64_t i = 4 * whole; i < count; ++i) z[i] = normals[i % 4][whole];
}

LV_CLONES void fill_noise_anywhere(const NoiseKey& key, uint32_t sample, int64_t begin, int64_t count, float* z) {
  const uint32_t block = static_cast<uint32_t>(begin / 4);
  const int blocks = static_cast<int>((count + 3) / 4);
  NoiseWords words;
  for (int b = 0; b < blocks; ++b) {
    uint32_t of_block[4];
    noise_words(key, sample, block + static_cast<uint32_t>(b), of_block);
    for (int i = 0; i < 4; ++i) words[i][b] = of_block[i];
  }
  normals_of_words(words, blocks, count, z);
}

}  // namespace
}  // namespace lv

#if defined(LV_HAS_CLONES)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define LV_ISA v4
#define LV_VECTOR 64
#define LV_MULTIPLY(a, b) __builtin_ia32_pmuludq512_mask(a, b, (long long __attribute__((vector_size(64)))){}, 0xFF)
#include "noise_lanes.h"
#pragma GCC pop_options
#undef LV_ISA
#undef LV_VECTOR
#undef LV_MULTIPLY
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define LV_ISA v3
#define LV_VECTOR 32
#define LV_MULTIPLY(a, b) __builtin_ia32_pmuludq256(a, b)
#include "noise_lanes.h"
#pragma GCC pop_options
#endif

namespace lv {

void fill_noise(const NoiseKey& key, uint32_t sample, int64_t begin, int64_t count, float* z) {
  if (count <= 8) return fill_block_by_block(key, sample, static_cast<uint32_t>(begin / 4), count, z);
#if defined(LV_HAS_CLONES)
  if (isa() == Isa::kV4) return v4::fill_noise(key, sample, begin, count, z);
  if (isa() == Isa::kV3) return v3::fill_noise(key, sample, begin, count, z);
#endif
  fill_noise_anywhere(key, sample, begin, count, z);
}

}  // namespace lv
