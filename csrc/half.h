// Storage types of 16 bits and their conversions to and from float, round to nearest even, on host and device. On the
// device these are the PTX instructions behind cuda_fp16.h, whose inclusion takes a second of each file's compilation.
#pragma once

#include <type_traits>

#include "common.h"

namespace lv {

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// The type in which elements of T are computed with.
template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <typename T>
using Compute = typename ComputeType<T>::type;

LV_HD float load(float a) { return a; }
LV_HD double load(double a) { return a; }

LV_HD float load(bfloat16 a) { return bit_cast<float>(static_cast<uint32_t>(a.bits) << 16); }

// On the CPU the exponent is moved by a product, which also normalises the subnormals: unlike the instructions of F16C,
// GCC vectorises this.
LV_HD float load(float16 a) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(a.bits));
  return value;
#else
  const uint32_t magnitude = (a.bits & 0x7FFFu) << 13;
  const float scaled = bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t bits = bit_cast<uint32_t>(scaled);
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u | magnitude : bits;
  return bit_cast<float>(special | static_cast<uint32_t>(a.bits & 0x8000u) << 16);
#endif
}

template <typename T>
LV_HD T store(Compute<T> a);

template <>
LV_HD float store<float>(float a) {
  return a;
}
template <>
LV_HD double store<double>(double a) {
  return a;
}

template <>
LV_HD bfloat16 store<bfloat16>(float a) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(a));
  return {bits};
#else
#if defined(__CUDA_ARCH__)
  constexpr uint32_t kNan = 0x7FFFu;  // that of the instruction
#else
  constexpr uint32_t kNan = 0x7FC0u;
#endif
  const uint32_t bits = bit_cast<uint32_t>(a);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return {static_cast<uint16_t>(is_nan ? kNan : rounded)};
#endif
}

template <>
LV_HD float16 store<float16>(float a) {
#if defined(__CUDA_ARCH__)
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(a));
  return {bits};
#else
  const uint32_t bits = bit_cast<uint32_t>(a);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Subnormal: adding 1/2 leaves the rounded result in the last bits. No branches, so that loops vectorise.
  const uint32_t small = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const uint32_t finite = magnitude < 0x38800000u ? small : normal;
  const uint32_t result = magnitude >= 0x47800000u ? special : finite;  // 65536 and above, infinity, NaN
  return {static_cast<uint16_t>(sign | result)};
#endif
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// Two neighbours at once, the first in the lower half.
template <typename T>
__device__ inline uint32_t store_pair(float first, float second) {
  uint32_t bits;
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
}
#endif

}  // namespace lv
