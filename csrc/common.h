// What host and device code share: qualifiers, single-rounded arithmetic, the storage types.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define LV_HD __host__ __device__ inline __attribute__((always_inline))
#else
#define LV_HD inline __attribute__((always_inline))
#endif

// One copy of a CPU loop for each x86-64 level, the best chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(LV_EMULATE)
#define LV_HAS_CLONES
#define LV_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LV_CLONES
#endif

#if defined(__CUDA_ARCH__)
#define LV_UNROLL _Pragma("unroll")
#else
#define LV_UNROLL
#endif

namespace lv {

// Explicit fused multiply-adds: rounded once whatever the compiler's contraction flags are.
LV_HD float fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}
LV_HD double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// A product that is rounded before it is added to anything.
LV_HD float product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
LV_HD double product(double a, double b) { return a * b; }

// The square root of a in [2^-100, 2^127), rounded as IEEE 754 says. On the device by the steps that the compiler takes
// for such a, without the branch to others that would keep it from moving what stands around.
LV_HD float sqrt_rn(float a) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(a));
  const float root = __fmul_rn(a, inverse);
  return __fmaf_rn(__fmaf_rn(-root, root, a), __fmul_rn(0.5f, inverse), root);
#else
  return __builtin_sqrtf(a);
#endif
}

template <typename To, typename From>
LV_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace lv
