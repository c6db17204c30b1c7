#include "norm_tiles.h"

namespace lv {
namespace {

struct Images {
  const void *x, *grad_y, *grad_sum;
  void* grad_x;
};

// dL/d(the normalised value): grad_y times ELU's slope.
__device__ float output_grad(const NormPlan<float>& p, const NormCoefficients<float>& k, float x, float grad_y) {
  return p.elu ? grad_y * elu_slope(k(x)) : grad_y;
}

// S1 and S2 of a chunk.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    sums_kernel(NormPlan<float> p, Images images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  const SlotCoefficients slots(shared, g);
  float* sums = shared + 3 * g.slots;
  const NormTile<kLanes> tile(p, g);
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
#pragma unroll 1
    for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads)
      slots.set(slot, p.saved_coefficients(sample, tile.channel + slot));
    __syncthreads();
    NormCoefficients<float> k[kLanes];
    float sum[2][kLanes] = {};
    slots.of_lanes(tile, k);
    const int64_t from = sample * p.shape.elements() + tile.offset;
    for_vectors<2>(access, {images.x, images.grad_y}, from, tile, [&](int64_t, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const float grad = output_grad(p, k[lane], v[0][lane], v[1][lane]);
        sum[0][lane] += grad;
        sum[1][lane] = fma(grad, v[0][lane] - k[lane].mean, sum[1][lane]);
      }
    });
    sum_tile(sums, g, tile, sum);
    float* partial = p.partial(sample, tile.chunk) + tile.channel;
    const float* r = p.sample_stats(sample) + p.shape.channels + tile.channel;
#pragma unroll 1
    for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads) {
      partial[slot] = sums[slot];
      partial[p.shape.channels + slot] = sums[g.rows * g.slots + slot] * r[slot];
    }  // the next sample's sums stand behind the barrier before them
  }
}

// S1 and S2 of a channel over all its chunks.
__device__ void merged_sums(const NormPlan<float>& p, int64_t sample, int64_t channel, float& s1, float& s2) {
  s1 = s2 = 0.0f;
#pragma unroll 2
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    const float* part = p.partial(sample, chunk) + channel;
    s1 += part[0];
    s2 += part[p.shape.channels];
  }
}

struct Spread {
  float m, q, sum_t, sum_t_muhat;
  __device__ float muhat(float mu) const { return (mu - m) * q; }
};

__device__ Spread channel_spread(const NormPlan<float>& p, int64_t sample, float* sums) {
  const float* stats = p.sample_stats(sample);
  const float* m_and_q = stats + 2 * p.shape.channels;
  Spread spread{m_and_q[0], m_and_q[1], 0.0f, 0.0f};
  float sum[2][1] = {};
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < p.shape.channels; c += kThreads) {
    float s1, s2;
    merged_sums(p, sample, c, s1, s2);
    const float t = norm_grad_shift(p, p.affine(sample, c), s1);
    sum[0][0] += t;
    sum[1][0] = fma(t, spread.muhat(stats[c]), sum[1][0]);
  }
  block_sum(sums, static_cast<int>(threadIdx.x), sum);
  spread.sum_t = sum[0][0], spread.sum_t_muhat = sum[1][0];
  return spread;
}

// dL/dx of the thread's vectors, with the coefficients of the slots in `shared`.
template <typename Access>
__device__ void write_gradient(const NormPlan<float>& p, const Images& images, const Access& access, const NormGrid& g,
                               const NormTile<Access::kLanes>& tile, int64_t sample, float* shared) {
  constexpr int kLanes = Access::kLanes;
  NormCoefficients<float> k[kLanes];
  float slope_x[kLanes], constant[kLanes];
  SlotCoefficients(shared, g).of_lanes(tile, k);
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    const float* at = shared + tile.slot_of(lane);
    slope_x[lane] = at[3 * g.slots], constant[lane] = at[4 * g.slots];
  }
  const auto gradient = [&](int lane, float x, float grad_y) {
    const float grad = output_grad(p, k[lane], x, grad_y);
    return fma(k[lane].scale, grad, fma(slope_x[lane], x - k[lane].mean, constant[lane]));
  };
  const int64_t from = sample * p.shape.elements() + tile.offset;
  for_vectors<2>(access, {images.x, images.grad_y}, from, tile, [&](int64_t at, auto& v) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) v[0][lane] = gradient(lane, v[0][lane], v[1][lane]);
    if (images.grad_sum != nullptr) {
      const auto grad_sum = access.read(images.grad_sum, at);
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) v[0][lane] += access.value(grad_sum, lane);
    }
    access.write(images.grad_x, at, v[0]);
  });
}

// dL/dx, and each sample's row of dL/dweight.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    gradient_kernel(NormPlan<float> p, Images images, float* rows, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);  // mean, scale, bias, slope_x and constant [slots] each, then room for sums
  float* sums = shared + 5 * g.slots;
  const NormTile<kLanes> tile(p, g);
  for (int64_t back = blockIdx.y; back < p.shape.samples; back += gridDim.y) {
    const int64_t sample = p.shape.samples - 1 - back, channels = p.shape.channels;
    const float* stats = p.sample_stats(sample);
    const Spread spread = channel_spread(p, sample, sums);
#pragma unroll 1
    for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads) {
      const int64_t c = tile.channel + slot;
      const auto w = p.affine(sample, c);
      float s1, s2;
      merged_sums(p, sample, c, s1, s2);
      const auto k = p.coefficients(w, stats[c], stats[c], stats[channels + c], spread.m, spread.q);
      const auto d = norm_gradient(p, w, stats[channels + c], spread.muhat(stats[c]), spread.q, s1, s2, spread.sum_t,
                                   spread.sum_t_muhat);
      // slope_g is k.scale, or 0 with one pixel, where x - mean is 0 too.
      SlotCoefficients(shared, g).set(slot, {k.mean, d.slope_g, k.bias});
      shared[3 * g.slots + slot] = d.slope_x, shared[4 * g.slots + slot] = d.constant;
      if (tile.chunk != 0) continue;
      float* row = rows + sample * 3 * channels + c;
      row[0] = d.gamma, row[channels] = d.alpha, row[2 * channels] = d.beta;
    }
    __syncthreads();
    if (images.grad_x != nullptr) write_gradient(p, images, access, g, tile, sample, shared);
    // The next sample's coefficients stand behind the barriers of channel_spread.
  }
}

// A thread sums one entry of dL/dweight over the samples of its level, in their order.
__global__ void __launch_bounds__(kThreads)
    weight_gradient_kernel(NormPlan<float> p, const float* rows, float* grad_weight) {
  const int64_t columns = p.columns(), column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= columns) return;
  for (int64_t level = blockIdx.y; level < p.levels; level += gridDim.y) {
    float sum = 0.0f;
    for (int64_t sample = 0; sample < p.shape.samples; ++sample)
      if (p.sample_level(sample) == level) sum += rows[sample * 3 * p.shape.channels + column];
    grad_weight[level * columns + column] = sum;
  }
}

template <typename Access>
void launch(const NormPlan<float>& p, const Images& images, float* rows, Access access, void* stream) {
  const NormGrid g = norm_grid(p, Access::kLanes);
  const dim3 blocks = norm_blocks(p, g);
  LV_LAUNCH(sums_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 3), stream, p, images, access, g);
  LV_LAUNCH(gradient_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 5), stream, p, images, rows, access, g);
}

}  // namespace

template <typename T>
void instance_norm_plus_backward_cuda(const InstanceNormPlusBackward<T>& p, void* stream) {
  const Images images{p.x, p.grad_y, p.grad_sum, p.grad_x};
  if (VectorAccess<T, 4>::fits(p.plan, {p.x, p.grad_y, p.grad_sum, p.grad_x}))
    launch(p.plan, images, p.rows, VectorAccess<T, 4>(), stream);
  else
    launch(p.plan, images, p.rows, ScalarAccess::of<T>(), stream);
  if (p.grad_weight == nullptr) return;
  LV_LAUNCH(weight_gradient_kernel, grid_for(p.plan.columns(), p.plan.levels), kThreads, 0, stream, p.plan, p.rows,
            p.grad_weight);
}

template void instance_norm_plus_backward_cuda(const InstanceNormPlusBackward<float>&, void*);
template void instance_norm_plus_backward_cuda(const InstanceNormPlusBackward<bfloat16>&, void*);
template void instance_norm_plus_backward_cuda(const InstanceNormPlusBackward<float16>&, void*);

}  // namespace lv
