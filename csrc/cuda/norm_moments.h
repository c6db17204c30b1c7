// The statistics of instance_norm_plus from those of its chunks, for both forms of the kernel: one source, in which no
// product is left to be fused into a sum or not, so that they agree bit for bit. An approximate quotient is a product
// too: __fadd_rn adds to it.
#pragma once

#include "norm_tiles.h"

namespace lv {

struct NormImages {
  const void *x, *residual;
  void *sum, *y;
  const float* bias;  // of the sum, or null
};

// What is added to the sum in a channel; without a bias -0, which changes no bit.
__device__ inline float sum_bias(const NormImages& images, int channel) {
  return images.bias != nullptr ? images.bias[channel] : -0.0f;
}

// Mean and squared deviations of a chunk from the sums of d and d^2, d = x - centre. The first is what rounding left in
// the centre; rounding may also push the squares below 0. NaN stays.
__device__ inline void chunk_moments(float pixels, float centre, float first, float second, float& mean,
                                     float& squares) {
  const float off = __fdividef(first, pixels), rest = fma(-first, off, second);
  mean = __fadd_rn(centre, off);
  squares = rest < 0.0f ? 0.0f : rest;
}

// Mean and sum of squared deviations of a channel, merged over its chunks (Chan, Golub and LeVeque 1979).
// partial(chunk): that chunk's means of all channels, then the squares.
template <typename Partial>
__device__ void merged_moments(const NormPlan<float>& p, int64_t channel, const Partial& partial, float& mean,
                               float& squares) {
  const float* part = partial(0) + channel;
  mean = part[0], squares = part[p.shape.channels];
#pragma unroll 2
  for (int chunk = 1; chunk < p.chunks.count; ++chunk) {
    part = partial(chunk) + channel;
    const float before = static_cast<float>(chunk * p.chunks.pixels), count = static_cast<float>(p.chunk_size(chunk));
    const float move = __fdividef(count, before + count), delta = part[0] - mean;
    mean = fma(delta, move, mean);
    squares = fma(delta * delta, before * move, squares + part[p.shape.channels]);
  }
}

// m and q of the channel means, in two passes like the means themselves: the deviations from 0, then from their mean.
// By kThreads threads, of which the caller is number `thread`.
template <typename Mean>
__device__ void spread_of_means(const NormPlan<float>& p, int thread, float* sums, const Mean& mean_of, float& m,
                                float& q) {
  const float channels = static_cast<float>(p.shape.channels);
  m = 0.0f;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    float moments[2][1] = {};
#pragma unroll 1
    for (int64_t c = thread; c < p.shape.channels; c += kThreads) {
      const float d = mean_of(c) - m;
      moments[0][0] += d;
      moments[1][0] = fma(d, d, moments[1][0]);
    }
    block_sum(sums, thread, moments);
    const float off = moments[0][0] / channels, total = fma(-moments[0][0], off, moments[1][0]);
    m += off;
    q = inverse_root((total < 0.0f ? 0.0f : total) / (channels > 1.0f ? channels - 1.0f : 1.0f) + p.eps);
  }
}

// r of a channel from its squared deviations.
__device__ inline float root_of_variance(const NormPlan<float>& p, float squares) {
  return inverse_root(__fadd_rn(__fdividef(squares, static_cast<float>(p.shape.pixels)), p.eps));
}

}  // namespace lv
