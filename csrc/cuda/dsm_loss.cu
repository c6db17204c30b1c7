#include "../dsm_loss.h"
#include "launch.h"
#include "vector.h"

namespace lv {
namespace {

static_assert(kDsmLanes == kThreads, "a block of threads takes one piece of the sum");

// Lane 0 gets the sum over its warp, by halving; the other lanes get something else.
template <typename C>
__device__ C warp_sum(C value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  return value;
}

// r[0, 4) = residuals from element `begin` on, zero beyond the sample; the gradient is written on the way.
template <typename T, bool kDense>
__device__ void residuals(const DsmLoss<T>& p, int64_t sample, int64_t begin, float r[4]) {
  const int64_t elements = p.shape.elements();
  if (begin >= elements) return;
  float z[4];
  noise_normals(p.key, p.first + static_cast<uint32_t>(sample), static_cast<uint32_t>(begin / 4), z);
  const float sigma = p.sigma[sample], scale = p.weight_of(sample) * sigma;
  const T* score = p.score + sample * elements;
  T* grad = p.grad + (p.grad == nullptr ? 0 : sample * elements);
  if constexpr (kDense) {
    Vector<T, 4> s4 = Vector<T, 4>::read(score + begin);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      r[lane] = p.residual(s4.lane[lane], sigma, z[lane]);
      s4.lane[lane] = store<T>(scale * r[lane]);
    }
    if (p.grad != nullptr) s4.write(grad + begin);
  } else {
    MemoryWalk walk(p.shape, p.channels_last, begin);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane, walk.next()) {
      if (begin + lane >= elements) continue;
      r[lane] = p.residual(score[walk.offset()], sigma, z[lane]);
      if (p.grad != nullptr) grad[walk.offset()] = store<T>(scale * r[lane]);
    }
  }
}

// A block writes the gradient of one piece of a sample and its sum of squares, partials[sample, blockIdx.x].
template <typename T, bool kDense>
__global__ void __launch_bounds__(kThreads) dsm_loss_kernel(DsmLoss<T> p) {
  LV_SHARED(float, warp_sums);  // [kThreads / kWarp]
  const int64_t begin = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    float r[4] = {};
    residuals<T, kDense>(p, sample, begin, r);
    const float sum = warp_sum(sum_of_squares(r));
    if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      float total = warp_sums[0];
      for (int warp = 1; warp < kThreads / kWarp; ++warp) total += warp_sums[warp];
      p.partials[sample * p.chunks() + blockIdx.x] = total;
    }
    __syncthreads();  // before the next sample's sums
  }
}

// A warp adds the pieces of one sample.
template <typename T>
__global__ void __launch_bounds__(kThreads) dsm_loss_sum_kernel(DsmLoss<T> p) {
  const int64_t sample = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (sample >= p.shape.samples) return;  // whole warps
  const int lane = threadIdx.x % kWarp;
  double sum = 0.0;
  for (int64_t chunk = lane; chunk < p.chunks(); chunk += kWarp)
    sum += static_cast<double>(p.partials[sample * p.chunks() + chunk]);
  sum = warp_sum(sum);
  if (lane == 0) p.loss[sample] = p.loss_of(sample, sum);
}

}  // namespace

template <typename T>
void dsm_loss_cuda(const DsmLoss<T>& p, void* stream) {
  const int64_t elements = p.shape.elements();
  const dim3 grid = grid_for((elements + 3) / 4, p.shape.samples);
  constexpr int kSharedBytes = kThreads / kWarp * sizeof(float);
  const bool dense = !p.channels_last && elements % 4 == 0 && is_aligned<T, 4>(p.score) && is_aligned<T, 4>(p.grad);
  if (dense) {
    LV_LAUNCH((dsm_loss_kernel<T, true>), grid, kThreads, kSharedBytes, stream, p);
  } else {
    LV_LAUNCH((dsm_loss_kernel<T, false>), grid, kThreads, kSharedBytes, stream, p);
  }
  LV_LAUNCH(dsm_loss_sum_kernel<T>, grid_for(p.shape.samples * kWarp, 1), kThreads, 0, stream, p);
}

template void dsm_loss_cuda(const DsmLoss<float>&, void*);
template void dsm_loss_cuda(const DsmLoss<bfloat16>&, void*);
template void dsm_loss_cuda(const DsmLoss<float16>&, void*);

}  // namespace lv
