// What forward and backward of instance_norm_plus share on the CPU: the coefficients of a strip, and sums side by side.
#pragma once

#include "../instance_norm_plus.h"
#include "image_strips.h"
#include "rows.h"

namespace lv {

constexpr int64_t kSums = 32;  // sums side by side along a plane

template <typename A>
struct StripCoefficients {
  A mean[kLanes], scale[kLanes], bias[kLanes];

  StripCoefficients(const NormPlan<A>& p, int64_t sample, const Strip& s) {
    for (int64_t j = 0; j < s.channels; ++j) {
      const NormCoefficients<A> k = p.saved_coefficients(sample, s.channel + j);
      mean[j] = k.mean, scale[j] = k.scale, bias[j] = k.bias;
    }
  }
  LV_HD NormCoefficients<A> operator[](int64_t j) const { return {mean[j], scale[j], bias[j]}; }
};

// Room for a block in the type that is computed with, where that is not T itself.
template <typename T>
struct Buffer {
  alignas(64) Compute<T> data[std::is_same_v<T, Compute<T>> ? 1 : kBlock];
};

template <typename T>
Rows<T> rows_at(T* image, int64_t sample, const Strip& s, const Block& b) {
  return {image + sample * s.shape.elements() + b.offset, b.rows, b.width, b.stride};
}

// The sum of `count` values, always in the same order.
template <int64_t count, typename A>
LV_HD A fold(A* values) {
  constexpr int64_t half = count / 2;
  for (int64_t j = 0; j < half; ++j) values[j] += values[j + half];
  if constexpr (half > 1) return fold<half>(values);
  return values[0];
}
template <int64_t count, typename A>
LV_HD A fold(A (&values)[count]) {
  return fold<count>(static_cast<A*>(values));
}

inline Strips norm_strips(const ImageShape& shape, bool channels_last, const PixelChunks& chunks) {
  return {shape, channels_last, chunks.pixels, chunks.count};
}

}  // namespace lv
