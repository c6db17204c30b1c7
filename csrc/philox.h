// Counter-based noise: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) and Box-Muller (1958) from IEEE operations only.
//
//   key = (seed low, seed high), counter = (element / 4, step, sample, stream), lane = element mod 4
//
// Every operation below is an integer operation, a conversion, a sum, a product, a fused multiply-add or a square root,
// each rounded as IEEE 754 says, and no sum takes a product that a compiler could contract. The normals are therefore
// the same bits on every CPU, on CUDA and in reference.py, whatever the flags (but -ffast-math).
#pragma once

#include "common.h"

namespace lv {

// Where a sample's noise lies in the counter space; `element` counts inside the sample.
struct NoiseKey {
  uint32_t seed_low, seed_high, step, stream;
};

inline NoiseKey noise_key(uint64_t seed, uint32_t step, uint32_t stream) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), step, stream};
}

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxFactor0 = 0xD2511F53u, kPhiloxFactor1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxKey0 = 0x9E3779B9u, kPhiloxKey1 = 0xBB67AE85u;

// The rounds on one counter, in place.
LV_HD void philox4x32(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, uint32_t key0, uint32_t key1) {
  LV_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kPhiloxFactor0) * c0;
    const uint64_t product1 = static_cast<uint64_t>(kPhiloxFactor1) * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += kPhiloxKey0;
    key1 += kPhiloxKey1;
  }
}

// Words of block `block` of one sample.
LV_HD void noise_words(const NoiseKey& key, uint32_t sample, uint32_t block, uint32_t words[4]) {
  words[0] = block;
  words[1] = key.step;
  words[2] = sample;
  words[3] = key.stream;
  philox4x32(words[0], words[1], words[2], words[3], key.seed_low, key.seed_high);
}

// ln((word + 1/2) 2^-32). The mantissa is brought to [2/3, 4/3); words near 2^32 are taken as 1 - f, without
// cancellation. Coefficients: fit_polynomials.py, relative error of log1p 4.6e-8.
LV_HD float log_uniform(uint32_t word) {
  const bool near_one = word >= 0xAAAAAAABu;
  const float scaled = static_cast<float>(near_one ? ~word : word) + 0.5f;
  const int32_t bits = bit_cast<int32_t>(scaled);
  const int32_t shift = (bits - 0x3F2AAAAB) >> 23;
  const float mantissa = bit_cast<float>(static_cast<int32_t>(bits - (static_cast<uint32_t>(shift) << 23)));
  const float f = near_one ? scaled * -0x1p-32f : mantissa - 1.0f;
  const float exponent = near_one ? 0.0f : static_cast<float>(shift - 32);
  float p = -0x1.30287ap-3f;
  p = fma(p, f, 0x1.215b08p-3f);
  p = fma(p, f, -0x1.f01124p-4f);
  p = fma(p, f, 0x1.1e6f28p-3f);
  p = fma(p, f, -0x1.54fbc8p-3f);
  p = fma(p, f, 0x1.99d2f4p-3f);
  p = fma(p, f, -0x1.000422p-2f);
  p = fma(p, f, 0x1.555506p-2f);
  const float log1p = fma(f * f, fma(f, p, -0.5f), f);
  return fma(exponent, 0x1.62e43p-1f, log1p);
}

// (cos, sin)(2 pi (word + 1/2) 2^-32). The quadrant is cut off in integers, exactly. Absolute error below 1e-7.
LV_HD void unit_circle(uint32_t word, float& cosine, float& sine) {
  const uint32_t turned = word + 0x20000000u;  // the quadrant in its upper two bits
  const int32_t rest = static_cast<int32_t>(word - (turned & 0xC0000000u));
  const float a = fma(static_cast<float>(rest), 0x1.921fb6p-30f, 0x1.921fb6p-31f);
  const float s = a * a;
  const float sine_tail = fma(fma(-0x1.9956b6p-13f, s, 0x1.11077ep-7f), s, -0x1.555546p-3f);
  const float cosine_tail = fma(fma(0x1.99e0eep-16f, s, -0x1.6c0c1ap-10f), s, 0x1.55554ap-5f);
  const float sin_a = fma(a * s, sine_tail, a);
  const float cos_a = fma(s * s, cosine_tail, fma(s, -0.5f, 1.0f));
  const bool swap = (turned & 0x40000000u) != 0;
  const uint32_t cosine_sign = (turned + 0x40000000u) & 0x80000000u;  // quadrants 1 and 2
  const uint32_t sine_sign = turned & 0x80000000u;                    // quadrants 2 and 3
  cosine = bit_cast<float>(bit_cast<uint32_t>(swap ? sin_a : cos_a) ^ cosine_sign);
  sine = bit_cast<float>(bit_cast<uint32_t>(swap ? cos_a : sin_a) ^ sine_sign);
}

// Two words to two standard normals, |z| < 6.77.
LV_HD void box_muller(uint32_t word0, uint32_t word1, float& z0, float& z1) {
  const float radius = sqrt_rn(-2.0f * log_uniform(word0));
  float cosine, sine;
  unit_circle(word1, cosine, sine);
  z0 = radius * cosine;
  z1 = radius * sine;
}

// The four normals of block `block` of one sample.
LV_HD void noise_normals(const NoiseKey& key, uint32_t sample, uint32_t block, float z[4]) {
  uint32_t words[4];
  noise_words(key, sample, block, words);
  box_muller(words[0], words[1], z[0], z[1]);
  box_muller(words[2], words[3], z[2], z[3]);
}

}  // namespace lv
