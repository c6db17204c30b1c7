// ELU (Clevert, Unterthiner and Hochreiter 2016) without libm, so that loops over it vectorise.
//
//   elu(t) = t > 0 ? t : e^t - 1,   e^t = 2^n (1 + E),   n = round(t / ln 2),   E = expm1(t - n ln 2)
//
// float: within 2 units in the last place of e^t - 1 and, for t >= -87, of e^t, but for the slope e^t on a GPU, whose
// relative error is (1 + |t|) 2e-7 at most there; below, all slopes are less than 2e-38. NaN goes through.
#pragma once

#include "common.h"

namespace lv {

// e^t = power (1 + expm1) for t in [kLeast, 0]. Meaningless beyond.
struct SplitExp {
  float power, expm1;
};

constexpr float kLeast = -87.0f;  // where e^t - 1 has long been -1

LV_HD SplitExp split_exp(float t) {
  constexpr float kRound = 0x1.8p23f + 127.0f;  // a sum with it has no room for a fraction; 127 is an exponent's bias
  const float shifted = fma(t, 0x1.715476p0f, kRound);
  const float n = shifted - kRound;
  const float r = fma(n, 0x1.05c610p-29f, fma(n, -0x1.62e430p-1f, t));
  float p = 0x1.6ab1b8p-10f;  // coefficients: fit_polynomials.py, relative error of expm1 1.5e-8
  p = fma(p, r, 0x1.122c84p-7f);
  p = fma(p, r, 0x1.55579ep-5f);
  p = fma(p, r, 0x1.5554aap-3f);
  p = fma(p, r, 0x1.fffffep-2f);
  return {bit_cast<float>(bit_cast<uint32_t>(shifted) << 23), fma(r * r, p, r)};
}

LV_HD float elu(float t) {
  // Bits of negative numbers grow with the size: one instruction where a comparison takes two. NaN comes in below.
  const uint32_t bits = bit_cast<uint32_t>(t), least = bit_cast<uint32_t>(kLeast);
  const SplitExp e = split_exp(bit_cast<float>(bits < least ? bits : least));
  const float below = fma(e.power, e.expm1, e.power - 1.0f);
  return t <= 0.0f ? below : t;
}

// e^t for t <= 0, which has an instruction on a GPU.
LV_HD float exp_below(float t) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t * 0x1.715476p0f));
  return power;
#else
  const SplitExp e = split_exp(t < kLeast ? kLeast : t);
  return fma(e.power, e.expm1, e.power);
#endif
}

LV_HD float elu_slope(float t) {
  const float below = exp_below(t);
  return t > 0.0f ? 1.0f : below;
}

// For a result of 16 bits: an absolute error of 2e-7, for a third of elu's instructions on a GPU.
LV_HD float coarse_elu(float t) {
  const float below = exp_below(t) - 1.0f;
  return t <= 0.0f ? below : t;
}

LV_HD double elu(double t) { return t > 0.0 ? t : expm1(t); }
LV_HD double elu_slope(double t) { return t > 0.0 ? 1.0 : exp(t); }

}  // namespace lv
