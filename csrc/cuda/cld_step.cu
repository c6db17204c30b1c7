#include "../cld_step.h"
#include "launch.h"
#include "vector.h"

namespace lv {
namespace {

// A thread moves four elements of x and the same of v, those of one block of noise. kDense: all contiguous, aligned and
// a multiple of four elements a sample; x, v and the score are then one 16-byte access each.
template <bool kDense>
__global__ void __launch_bounds__(kThreads) cld_step_kernel(CldStep<float> p) {
  const int64_t elements = p.shape.elements();
  const int64_t begin = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (begin >= elements) return;
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    const uint32_t global = p.first + static_cast<uint32_t>(sample), block = static_cast<uint32_t>(begin / 4);
    float z_x[4] = {}, z_v[4] = {};
    if (p.draws_x()) noise_normals(p.key_x, global, block, z_x);
    if (p.draws_v()) noise_normals(p.key_v, global, block, z_v);
    float* u = p.u + 2 * sample * elements;
    const float* score = p.score == nullptr ? nullptr : p.score + sample * elements;
    if constexpr (kDense) {
      Vector<float, 4> x = Vector<float, 4>::read(u + begin), v = Vector<float, 4>::read(u + elements + begin), s{};
      if (score != nullptr) s = Vector<float, 4>::read(score + begin);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) p.move(x.lane[lane], v.lane[lane], s.lane[lane], z_x[lane], z_v[lane]);
      x.write(u + begin);
      v.write(u + elements + begin);
    } else {
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) {
        const int64_t element = begin + lane;
        if (element >= elements) continue;
        float* x = u + memory_offset(p.both(), p.u_channels_last, element);
        const float s = score == nullptr ? 0.0f : score[memory_offset(p.shape, p.score_channels_last, element)];
        p.move(*x, x[p.x_to_v()], s, z_x[lane], z_v[lane]);
      }
    }
  }
}

}  // namespace

template <>
void cld_step_cuda(const CldStep<float>& p, void* stream) {
  const int64_t elements = p.shape.elements();
  const dim3 grid = grid_for((elements + 3) / 4, p.shape.samples);
  const bool dense = !p.u_channels_last && !p.score_channels_last && elements % 4 == 0 && is_aligned<float, 4>(p.u) &&
                     is_aligned<float, 4>(p.score);
  if (dense) {
    LV_LAUNCH(cld_step_kernel<true>, grid, kThreads, 0, stream, p);
  } else {
    LV_LAUNCH(cld_step_kernel<false>, grid, kThreads, 0, stream, p);
  }
}

}  // namespace lv
