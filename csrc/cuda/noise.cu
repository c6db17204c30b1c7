#include "../noise.h"
#include "launch.h"

namespace lv {
namespace {

// A thread writes one block of four.
template <typename T>
__global__ void __launch_bounds__(kThreads) noise_fill_kernel(NoiseFill<T> p) {
  const int64_t begin = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (begin >= p.elements) return;
  for (int64_t sample = blockIdx.y; sample < p.samples; sample += gridDim.y) {
    T lanes[4];
    noise_block(p.key, p.first + static_cast<uint32_t>(sample), static_cast<uint32_t>(begin / 4), lanes);
    for (int lane = 0; lane < 4 && begin + lane < p.elements; ++lane)
      p.out[sample * p.elements + begin + lane] = lanes[lane];
  }
}

}  // namespace

template <typename T>
void noise_fill_cuda(const NoiseFill<T>& p, void* stream) {
  LV_LAUNCH(noise_fill_kernel<T>, grid_for((p.elements + 3) / 4, p.samples), kThreads, 0, stream, p);
}

template void noise_fill_cuda(const NoiseFill<float>&, void*);
template void noise_fill_cuda(const NoiseFill<int64_t>&, void*);

}  // namespace lv
