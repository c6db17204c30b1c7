#include "norm_moments.h"

namespace lv {
namespace {

// The thread's sums of what is normalised; with a residual the sum is written on the way, and added as rounded there.
template <typename Access>
__device__ void sum_inputs(const NormImages& images, const Access& access, const NormTile<Access::kLanes>& tile,
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

template <int kLanes>
__device__ void write_partials(const NormPlan<float>& p, const NormGrid& g, const NormTile<kLanes>& tile,
                               int64_t sample, const float* centres, const float* sums) {
  const float pixels = static_cast<float>(tile.pixels);
  float* partial = p.partial(sample, tile.chunk) + tile.channel;
#pragma unroll 1
  for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads)
    chunk_moments(pixels, centres[slot], sums[slot], sums[g.rows * g.slots + slot], partial[slot],
                  partial[p.shape.channels + slot]);
}

// The partial statistics of a chunk in two passes: its mean, then the deviations from it and their squares. The second
// pass reads back what the same thread wrote.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    moments_kernel(NormPlan<float> p, NormImages images, Access access, NormGrid g) {
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
    merged_moments(p, c, [&](int chunk) { return p.partial(sample, chunk); }, mean, squares);
    const float r = root_of_variance(p, squares);
    slots.set(slot, p.coefficients(p.affine(sample, c), mean, r, m, q));
    if (tile.chunk == 0) stats[c] = mean, stats[channels + c] = r;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) stats[2 * channels] = m, stats[2 * channels + 1] = q;
}

// The last samples that the first kernel read are the first here: they may still be in the cache.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    normalise_kernel(NormPlan<float> p, NormImages images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  const SlotCoefficients slots(shared, g);
  float* sums = shared + 3 * g.slots;
  const NormTile<kLanes> tile(p, g);
  for (int64_t back = blockIdx.y; back < p.shape.samples; back += gridDim.y) {
    const int64_t sample = p.shape.samples - 1 - back;
    float m, q;
    const auto mean_of = [&](int64_t channel) {
      float mean, squares;
      merged_moments(p, channel, [&](int chunk) { return p.partial(sample, chunk); }, mean, squares);
      return mean;
    };
    spread_of_means(p, static_cast<int>(threadIdx.x), sums, mean_of, m,
                    q);  // and its barriers keep the slots until all threads have read them
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
void launch(const NormPlan<float>& p, const NormImages& images, Access access, void* stream) {
  const NormGrid g = norm_grid(p, Access::kLanes);
  const dim3 blocks = norm_blocks(p, g);
  LV_LAUNCH(moments_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 1), stream, p, images, access, g);
  LV_LAUNCH(normalise_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 3), stream, p, images, access, g);
}

}  // namespace

template <typename T>
void instance_norm_plus_cuda(const InstanceNormPlus<T>& p, void* stream) {
  const NormImages images{p.x, p.residual, p.sum, p.y};
  if (VectorAccess<T>::fits(p.plan, {p.x, p.residual, p.sum, p.y}))
    launch(p.plan, images, VectorAccess<T>(), stream);
  else
    launch(p.plan, images, ScalarAccess::of<T>(), stream);
}

template void instance_norm_plus_cuda(const InstanceNormPlus<float>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<bfloat16>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<float16>&, void*);

}  // namespace lv
