// philox.h as a plain C library, for tests that compile it under several flags.
#include "philox.h"

#if defined(TEST_CLONES)
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
}
