#include "../perturb.h"

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

template <typename T>
LV_CLONES void perturb_chunk(const Perturb<T>& p, int64_t sample, int64_t begin, int64_t end) {
  const T* x = p.x + sample * p.shape.elements();
  T* out = p.out + sample * p.shape.elements();
  const Compute<T> sigma = p.sigma[sample];
  MemoryWalk walk(p.shape, p.channels_last, begin);
  float z[kNoiseBuffer];
  for (int64_t from = begin; from < end; from += kNoiseBuffer) {
    const int64_t count = std::min(kNoiseBuffer, end - from);
    fill_noise(p.key, p.first + static_cast<uint32_t>(sample), from, count, z);
    if (!p.channels_last) {
      for (int64_t i = 0; i < count; ++i) out[from + i] = p.perturbed(x[from + i], sigma, z[i]);
      continue;
    }
    for (int64_t i = 0; i < count; ++i, walk.next()) out[walk.offset()] = p.perturbed(x[walk.offset()], sigma, z[i]);
  }
}

}  // namespace

template <typename T>
void perturb_cpu(const Perturb<T>& p, int threads) {
  parallel_chunks(p.shape.samples, p.shape.elements(), threads,
                  [&](int64_t sample, int64_t begin, int64_t end) { perturb_chunk(p, sample, begin, end); });
}

template void perturb_cpu(const Perturb<float>&, int);
template void perturb_cpu(const Perturb<bfloat16>&, int);
template void perturb_cpu(const Perturb<float16>&, int);
template void perturb_cpu(const Perturb<double>&, int);

}  // namespace lv
