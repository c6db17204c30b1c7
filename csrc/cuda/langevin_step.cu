#include "../langevin_step.h"
#include "launch.h"
#include "vector.h"

namespace lv {
namespace {

// A thread moves the four elements of one block of noise. kDense: both tensors contiguous, aligned and a multiple of
// four elements a sample, no mask; each is then one 16-byte (or 8-byte) access.
template <bool kDense, typename X, typename S>
__device__ void move_block(const LangevinStep<X, S>& p) {
  const int64_t elements = p.shape.elements();
  const int64_t begin = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (begin >= elements) return;
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    float z[4];
    noise_normals(p.key, p.first + static_cast<uint32_t>(sample), static_cast<uint32_t>(begin / 4), z);
    X* x = p.x + sample * elements;
    const S* score = p.score + sample * elements;
    if constexpr (kDense) {
      Vector<X, 4> x4 = Vector<X, 4>::read(x + begin);
      const Vector<S, 4> s4 = Vector<S, 4>::read(score + begin);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) x4.lane[lane] = p.moved(x4.lane[lane], s4.lane[lane], z[lane]);
      x4.write(x + begin);
    } else {
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        const int64_t element = begin + lane;
        if (element >= elements || p.is_known(sample, element)) continue;
        X& target = x[memory_offset(p.shape, p.x_channels_last, element)];
        target = p.moved(target, score[memory_offset(p.shape, p.score_channels_last, element)], z[lane]);
      }
    }
  }
}

template <typename X, typename S, bool kDense>
__global__ void __launch_bounds__(kThreads) langevin_step_kernel(LangevinStep<X, S> p) {
  move_block<kDense>(p);
}

template <typename X, typename S, bool kDense>
__global__ void __launch_bounds__(kThreads) langevin_table_step_kernel(LangevinTableStep<X, S> p) {
  move_block<kDense>(p.at_place());
}

// One block. The row is read by all threads before the first writes the next one.
__global__ void __launch_bounds__(kThreads) advance_row_kernel(AdvanceRow p) {
  const int64_t row = p.table.next_row();
  __syncthreads();
  if (threadIdx.x == 0) p.table.place[kPlaceRow] = row;
  const int64_t level = p.level_of(row);
  for (int64_t sample = threadIdx.x; sample < p.samples; sample += kThreads) p.level[sample] = level;
}

template <typename X, typename S>
dim3 grid_of(const LangevinStep<X, S>& p) {
  return grid_for((p.shape.elements() + 3) / 4, p.shape.samples);
}

template <typename X, typename S>
bool is_dense(const LangevinStep<X, S>& p) {
  return !p.x_channels_last && !p.score_channels_last && p.mask == nullptr && p.shape.elements() % 4 == 0 &&
         is_aligned<X, 4>(p.x) && is_aligned<S, 4>(p.score);
}

}  // namespace

template <typename X, typename S>
void langevin_step_cuda(const LangevinStep<X, S>& p, void* stream) {
  if (is_dense(p)) {
    LV_LAUNCH((langevin_step_kernel<X, S, true>), grid_of(p), kThreads, 0, stream, p);
  } else {
    LV_LAUNCH((langevin_step_kernel<X, S, false>), grid_of(p), kThreads, 0, stream, p);
  }
}

template <typename X, typename S>
void langevin_table_step_cuda(const LangevinTableStep<X, S>& p, void* stream) {
  if (is_dense(p.step)) {
    LV_LAUNCH((langevin_table_step_kernel<X, S, true>), grid_of(p.step), kThreads, 0, stream, p);
  } else {
    LV_LAUNCH((langevin_table_step_kernel<X, S, false>), grid_of(p.step), kThreads, 0, stream, p);
  }
}

void advance_row_cuda(const AdvanceRow& p, void* stream) {
  LV_LAUNCH(advance_row_kernel, dim3(1), kThreads, 0, stream, p);
}

template void langevin_step_cuda(const LangevinStep<float, float>&, void*);
template void langevin_step_cuda(const LangevinStep<float, bfloat16>&, void*);
template void langevin_step_cuda(const LangevinStep<float, float16>&, void*);
template void langevin_table_step_cuda(const LangevinTableStep<float, float>&, void*);
template void langevin_table_step_cuda(const LangevinTableStep<float, bfloat16>&, void*);
template void langevin_table_step_cuda(const LangevinTableStep<float, float16>&, void*);

}  // namespace lv
