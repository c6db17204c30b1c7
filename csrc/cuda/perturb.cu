#include "../perturb.h"
#include "launch.h"
#include "vector.h"

namespace lv {
namespace {

// A thread writes the four elements of one block of noise. kDense: both tensors contiguous, aligned and a multiple of
// four elements a sample; each is then one 16-byte (or 8-byte) access.
template <typename T, bool kDense>
__global__ void __launch_bounds__(kThreads) perturb_kernel(Perturb<T> p) {
  const int64_t elements = p.shape.elements();
  const int64_t begin = 4 * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (begin >= elements) return;
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    float z[4];
    noise_normals(p.key, p.first + static_cast<uint32_t>(sample), static_cast<uint32_t>(begin / 4), z);
    const float sigma = p.sigma[sample];
    const T* x = p.x + sample * elements;
    T* out = p.out + sample * elements;
    if constexpr (kDense) {
      Vector<T, 4> x4 = Vector<T, 4>::read(x + begin);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane) x4.lane[lane] = p.perturbed(x4.lane[lane], sigma, z[lane]);
      x4.write(out + begin);
    } else {
      MemoryWalk walk(p.shape, p.channels_last, begin);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane, walk.next())
        if (begin + lane < elements) out[walk.offset()] = p.perturbed(x[walk.offset()], sigma, z[lane]);
    }
  }
}

}  // namespace

template <typename T>
void perturb_cuda(const Perturb<T>& p, void* stream) {
  const int64_t elements = p.shape.elements();
  const dim3 grid = grid_for((elements + 3) / 4, p.shape.samples);
  const bool dense = !p.channels_last && elements % 4 == 0 && is_aligned<T, 4>(p.x) && is_aligned<T, 4>(p.out);
  if (dense) {
    LV_LAUNCH((perturb_kernel<T, true>), grid, kThreads, 0, stream, p);
  } else {
    LV_LAUNCH((perturb_kernel<T, false>), grid, kThreads, 0, stream, p);
  }
}

template void perturb_cuda(const Perturb<float>&, void*);
template void perturb_cuda(const Perturb<bfloat16>&, void*);
template void perturb_cuda(const Perturb<float16>&, void*);

}  // namespace lv
