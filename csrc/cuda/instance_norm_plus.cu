#include "norm_tiles.h"

namespace lv {
namespace {

struct Images {
  const void *x, *residual;
  void *sum, *y;
};

// The thread's sums of what is normalised; with a residual the sum is written on the way, and added as rounded there.
template <typename Access>
__device__ void sum_inputs(const Images& images, const Access& access, const NormTile<Access::kLanes>& tile,
                           int64_t from, float (&sum)[1][Access::kLanes]) {
  constexpr int kLanes = Access::kLanes;
  if (images.residual == nullptr) {
    for_vectors<1>(access, {images.x}, from, tile, [&](int64_t, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) sum[0][lane] += v[0][lane];
    });
    return;
  }
  for_vectors<2>(access, {images.x, images.residual}, from, tile, [&](int64_t at, auto& v) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) sum[0][lane] += v[0][lane] = access.rounded(v[0][lane] + v[1][lane]);
    access.write(images.sum, at, v[0]);
  });
}

// Mean and squared deviations of a chunk from the sums of d and d^2, d = x - centre. The first is what rounding left in
// the centre; rounding may also push the squares below 0. NaN stays.
template <int kLanes>
__device__ void write_partials(const NormPlan<float>& p, const NormGrid& g, const NormTile<kLanes>& tile,
                               int64_t sample, const float* centres, const float* sums) {
  const float pixels = static_cast<float>(tile.pixels);
  float* partial = p.partial(sample, tile.chunk) + tile.channel;
#pragma unroll 1
  for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads) {
    const float first = sums[slot], off = __fdividef(first, pixels);
    const float squares = sums[g.rows * g.slots + slot] - first * off;
    partial[slot] = centres[slot] + off;
    partial[p.shape.channels + slot] = squares < 0.0f ? 0.0f : squares;
  }
}

// The partial statistics of a chunk in two passes: its mean, then the deviations from it and their squares. The second
// pass reads back what the same thread wrote.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    moments_kernel(NormPlan<float> p, Images images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  float *centres = shared, *sums = shared + g.slots;  // [slots], [2][rows * slots]
  const NormTile<kLanes> tile(p, g);
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    const int64_t from = sample * p.shape.elements() + tile.offset;
    float sum[1][kLanes] = {}, centre[kLanes], moments[2][kLanes] = {};
    sum_inputs(images, access, tile, from, sum);
    sum_tile(sums, g, tile, sum);
#pragma unroll 1
    for (int slot = static_cast<int>(threadIdx.x); slot < g.slots; slot += kThreads)
      centres[slot] = __fdividef(sums[slot], static_cast<float>(tile.pixels));
    __syncthreads();
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) centre[lane] = centres[tile.slot_of(lane)];
    for_vectors<1>(access, {images.residual != nullptr ? images.sum : images.x}, from, tile, [&](int64_t, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const float d = v[0][lane] - centre[lane];
        moments[0][lane] += d;
        moments[1][lane] = fma(d, d, moments[1][lane]);
      }
    });
    sum_tile(sums, g, tile, moments);
    write_partials(p, g, tile, sample, centres, sums);
    __syncthreads();  // before the next sample's sums
  }
}

// Mean and sum of squared deviations of a channel, merged over its chunks (Chan, Golub and LeVeque 1979).
__device__ void merged_moments(const NormPlan<float>& p, int64_t sample, int64_t channel, float& mean, float& squares) {
  const float* part = p.partial(sample, 0) + channel;
  mean = part[0], squares = part[p.shape.channels];
#pragma unroll 2
  for (int64_t chunk = 1; chunk < p.chunks.count; ++chunk) {
    part += 2 * p.shape.channels;
    const float before = static_cast<float>(chunk * p.chunks.pixels), count = static_cast<float>(p.chunk_size(chunk));
    const float move = __fdividef(count, before + count), delta = part[0] - mean;
    mean += delta * move;
    squares += part[p.shape.channels] + delta * delta * (before * move);
  }
}

// m and q of the channel means, in two passes like the means themselves: the deviations from 0, then from their mean.
__device__ void spread_of_means(const NormPlan<float>& p, int64_t sample, float* sums, float& m, float& q) {
  const float channels = static_cast<float>(p.shape.channels);
  m = 0.0f;
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    float moments[2][1] = {};
#pragma unroll 1
    for (int64_t c = threadIdx.x; c < p.shape.channels; c += kThreads) {
      float mean, squares;
      merged_moments(p, sample, c, mean, squares);
      moments[0][0] += mean - m;
      moments[1][0] = fma(mean - m, mean - m, moments[1][0]);
    }
    block_sum(sums, moments);
    const float off = moments[0][0] / channels, total = moments[1][0] - moments[0][0] * off;
    m += off;
    q = inverse_root((total < 0.0f ? 0.0f : total) / (channels > 1.0f ? channels - 1.0f : 1.0f) + p.eps);
  }
}

// The coefficients of the block's slots; the statistics are saved by the blocks of the first chunk.
template <int kLanes>
__device__ void make_coefficients(const NormPlan<float>& p, const NormTile<kLanes>& tile, int64_t sample, float m,
                                  float q, const SlotCoefficients& slots) {
  const int64_t channels = p.shape.channels;
  float* stats = p.sample_stats(sample);
#pragma unroll 1
  for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads) {
    const int64_t c = tile.channel + slot;
    float mean, squares;
    merged_moments(p, sample, c, mean, squares);
    const float r = inverse_root(__fdividef(squares, static_cast<float>(p.shape.pixels)) + p.eps);
    slots.set(slot, p.coefficients(p.affine(sample, c), mean, r, m, q));
    if (tile.chunk == 0) stats[c] = mean, stats[channels + c] = r;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) stats[2 * channels] = m, stats[2 * channels + 1] = q;
}

// The last samples that the first kernel read are the first here: they may still be in the cache.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    normalise_kernel(NormPlan<float> p, Images images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  const SlotCoefficients slots(shared, g);
  float* sums = shared + 3 * g.slots;
  const NormTile<kLanes> tile(p, g);
  for (int64_t back = blockIdx.y; back < p.shape.samples; back += gridDim.y) {
    const int64_t sample = p.shape.samples - 1 - back;
    float m, q;
    spread_of_means(p, sample, sums, m, q);  // and its barriers keep the slots until all threads have read them
    make_coefficients(p, tile, sample, m, q, slots);
    __syncthreads();
    NormCoefficients<float> k[kLanes];
    slots.of_lanes(tile, k);
    const int64_t from = sample * p.shape.elements() + tile.offset;
    for_vectors<1>(access, {images.residual != nullptr ? images.sum : images.x}, from, tile, [&](int64_t at, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        v[0][lane] = k[lane](v[0][lane]);
        if (p.elu) v[0][lane] = elu(v[0][lane]);
      }
      access.write(images.y, at, v[0]);
    });
  }
}

template <typename Access>
void launch(const NormPlan<float>& p, const Images& images, Access access, void* stream) {
  const NormGrid g = norm_grid(p, Access::kLanes);
  const dim3 blocks = norm_blocks(p, g);
  LV_LAUNCH(moments_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 1), stream, p, images, access, g);
  LV_LAUNCH(normalise_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 3), stream, p, images, access, g);
}

}  // namespace

template <typename T>
void instance_norm_plus_cuda(const InstanceNormPlus<T>& p, void* stream) {
  const Images images{p.x, p.residual, p.sum, p.y};
  if (VectorAccess<T>::fits(p.plan, {p.x, p.residual, p.sum, p.y}))
    launch(p.plan, images, VectorAccess<T>(), stream);
  else
    launch(p.plan, images, ScalarAccess::of<T>(), stream);
}

template void instance_norm_plus_cuda(const InstanceNormPlus<float>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<bfloat16>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<float16>&, void*);

}  // namespace lv
