// The mean over 5x5 pixels of what instance_norm_plus normalises, zeros around the image.
//
// A thread goes down two neighbouring columns of pixels, the left one even. Of the deviations d from the mean
//   across[left] = both + d[left - 2],   across[right] = both + d[right + 2],
//   both = (d[left - 1] + d[left]) + (d[right] + d[right + 1])
// and of these, row by row, the same down the columns: what 4 rows left behind is kept for the next 2. So a value does
// not depend on where a thread began.
#pragma once

#include "norm_moments.h"

namespace lv {

constexpr int kPoolReach = 2, kPoolColumns = 2, kPoolRows = 2, kPoolPixels = kPoolColumns + 2 * kPoolReach;
constexpr float kPoolShare = 1.0f / 25.0f;

struct PoolImage {
  int width, height;

  // How many of the rows or columns around one are in the image.
  static __device__ int inside(int at, int size) {
    return min(at + kPoolReach, size - 1) - max(at - kPoolReach, 0) + 1;
  }
};

// 4 bytes at a time: the sums of 8 would not fit the registers.
template <typename T>
struct PoolAccess : VectorAccess<T, 4 / sizeof(T)> {
  static constexpr int kLanes = 4 / sizeof(T);
  using Stored = uint32_t;

  // The two images from a pixel on.
  struct Pixels {
    const PoolAccess& access;
    const T* from;
    T* to;
    int stride;  // from pixel to pixel
    int64_t row;

    __device__ Pixels(const PoolAccess& access, const void* image, void* pooled, int64_t at, int stride, int64_t row)
        : access(access),
          from(static_cast<const T*>(image) + at),
          to(static_cast<T*>(pooled) + at - kPoolReach * row),
          stride(stride),
          row(row) {}
    __device__ Stored read(int i) const {
      const T* at = from + static_cast<int64_t>(i - kPoolReach) * stride;
      LV_CHECK_ALIGNED(at, sizeof(Stored));
      return *reinterpret_cast<const Stored*>(at);
    }
    __device__ void write(int column, const float (&values)[kLanes]) const {
      access.stored(values).write(to + static_cast<int64_t>(column) * stride);
    }
    __device__ void next_row() { from += row, to += row; }
  };

  __device__ float value(Stored word, int lane) const {
    if constexpr (std::is_same_v<T, bfloat16>) return bit_cast<float>(lane == 0 ? word << 16 : word & 0xFFFF0000u);
    if constexpr (std::is_same_v<T, float16>) return load(float16{static_cast<uint16_t>(word >> 16 * lane)});
    return bit_cast<float>(word);
  }
};

// One element at a time, of any type, in any layout.
struct PoolSingleAccess : ScalarAccess {
  struct Pixels {
    const PoolSingleAccess& access;
    const void* image;
    void* pooled;
    int64_t at, row;
    int stride;

    __device__ Pixels(const PoolSingleAccess& access, const void* image, void* pooled, int64_t at, int stride,
                      int64_t row)
        : access(access), image(image), pooled(pooled), at(at), row(row), stride(stride) {}
    __device__ Stored read(int i) const {
      return access.read(image, at + static_cast<int64_t>(i - kPoolReach) * stride);
    }
    __device__ void write(int column, const float (&values)[1]) const {
      access.write(pooled, at - kPoolReach * row + static_cast<int64_t>(column) * stride, values);
    }
    __device__ void next_row() { at += row; }
  };
};

template <int kLanes>
using PoolSums = float[kPoolColumns][kLanes];

// The sums of a row's deviations around columns x and x + 1; pixels.read(i) is the vector of pixel x - 2 + i. kInner:
// all 6 are in the image.
template <bool kInner, typename Access, typename Pixels>
__device__ void sum_across(const Access& access, int x, int width, const float (&means)[Access::kLanes],
                           const Pixels& pixels, PoolSums<Access::kLanes>& across) {
  typename Access::Stored stored[kPoolPixels];
  const bool inside[kPoolPixels] = {x > 0, x > 0, true, x + 1 < width, x + 2 < width, x + 3 < width};
#pragma unroll
  for (int i = 0; i < kPoolPixels; ++i)
    if (kInner || inside[i]) stored[i] = pixels.read(i);
#pragma unroll
  for (int lane = 0; lane < Access::kLanes; ++lane) {
    float d[kPoolPixels];
#pragma unroll
    for (int i = 0; i < kPoolPixels; ++i)
      d[i] = kInner || inside[i] ? access.value(stored[i], lane) - means[lane] : 0.0f;
    const float both = (d[1] + d[2]) + (d[3] + d[4]);
    across[0][lane] = both + d[0], across[1][lane] = both + d[5];
  }
}

// Has pixels.write(column, values) called for rows [top, bottom), top even, of columns x and x + 1, x even. `pixels`
// begins at row top - 2, reads in the row where it is and writes 2 rows above.
template <bool kInner, typename Access, typename Pixels>
__device__ void pool_columns(const Access& access, const PoolImage& image, int x, int top, int bottom,
                             const NormCoefficients<float> (&k)[Access::kLanes], Pixels pixels) {
  constexpr int kLanes = Access::kLanes;
  float means[kLanes], scales[kLanes], shares[kPoolColumns];
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) means[lane] = k[lane].mean, scales[lane] = kPoolShare * k[lane].scale;
#pragma unroll
  for (int column = 0; column < kPoolColumns; ++column)
    shares[column] = kPoolShare * static_cast<float>(kInner ? kPoolPixels - 1 : image.inside(x + column, image.width));
  // Of the rows before: the second last even one, the last even one, that and the odd one above it, the last odd one.
  PoolSums<kLanes> older = {}, even = {}, pair = {}, odd = {};
  const auto sum_row = [&](int row, PoolSums<kLanes>& across) {
    if (row >= 0 && row < image.height) sum_across<kInner>(access, x, image.width, means, pixels, across);
  };
  const auto write_row = [&](int row, const PoolSums<kLanes>& sums) {
    if (row >= top && row < bottom) {
      const float rows = static_cast<float>(image.inside(row, image.height));
#pragma unroll
      for (int column = 0; column < kPoolColumns; ++column) {
        float values[kLanes];
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane)
          values[lane] = fma(scales[lane], sums[column][lane], product(rows * shares[column], k[lane].bias));
        if (kInner || x + column < image.width) pixels.write(column, values);
      }
    }
    pixels.next_row();
  };
#pragma unroll 1
  for (int row = top - kPoolReach; row < bottom + kPoolReach; row += kPoolRows) {
    PoolSums<kLanes> across = {}, next = {}, sums;
    sum_row(row, across);
#pragma unroll
    for (int i = 0; i < kPoolColumns * kLanes; ++i) {
      const int column = i / kLanes, lane = i % kLanes;
      odd[column][lane] += across[column][lane];  // the pair of this row
      pair[column][lane] += odd[column][lane];    // both pairs
      sums[column][lane] = pair[column][lane] + older[column][lane];
      older[column][lane] = even[column][lane], even[column][lane] = across[column][lane];
    }
    write_row(row - kPoolReach, sums);
    sum_row(row + 1, next);
#pragma unroll
    for (int i = 0; i < kPoolColumns * kLanes; ++i) {
      const int column = i / kLanes, lane = i % kLanes;
      sums[column][lane] = pair[column][lane] + next[column][lane];
      pair[column][lane] = odd[column][lane], odd[column][lane] = next[column][lane];
    }
    write_row(row + 1 - kPoolReach, sums);
  }
}

}  // namespace lv
