// philox.h as a plain C library, for tests that compile it under several flags.
#include "philox.h"

#if defined(TEST_CLONES)
#include "cpu/noise_buffer.cpp"
#define CLONES LV_CLONES
#else
#define CLONES
#endif

extern "C" {

void philox(uint32_t counter[4], const uint32_t key[2]) {
  lv::philox4x32(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
}

CLONES void normals(uint64_t seed, int64_t samples, int64_t blocks, float* out) {
  const lv::NoiseKey key = lv::noise_key(seed, 0, 0);
  for (int64_t sample = 0; sample < samples; ++sample)
    for (int64_t block = 0; block < blocks; ++block)
      lv::noise_normals(key, static_cast<uint32_t>(sample), static_cast<uint32_t>(block),
                        out + 4 * (sample * blocks + block));
}

CLONES void pairs(const uint32_t* words, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 2) lv::box_muller(words[i], words[i + 1], out[i], out[i + 1]);
}

#if defined(TEST_CLONES)
// fill_noise as compiled for x86-64-v`level`, 0 for any processor; false where this one does not have it.
bool lanes(int level, uint64_t seed, uint32_t sample, int64_t begin, int64_t count, float* out) {
  const lv::NoiseKey key = lv::noise_key(seed, 0, 0);
  if (level == 0) return lv::fill_noise_anywhere(key, sample, begin, count, out), true;
#if defined(LV_HAS_CLONES)
  if (level == 3 && __builtin_cpu_supports("x86-64-v3"))
    return lv::v3::fill_noise(key, sample, begin, count, out), true;
  if (level == 4 && __builtin_cpu_supports("x86-64-v4"))
    return lv::v4::fill_noise(key, sample, begin, count, out), true;
#endif
  return false;
}
#endif
}
