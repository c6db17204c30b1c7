#include "../noise.h"

#include "parallel.h"

namespace lv {
namespace {

template <typename T>
LV_CLONES void fill_chunk(const NoiseFill<T>& p, int64_t sample, int64_t begin, int64_t end) {
  T* out = p.out + sample * p.elements;
  const uint32_t global_sample = p.first + static_cast<uint32_t>(sample);
  const int64_t whole_blocks = end / 4;
  for (int64_t block = begin / 4; block < whole_blocks; ++block)
    noise_block(p.key, global_sample, static_cast<uint32_t>(block), out + 4 * block);
  if (end % 4 != 0) {
    T tail[4];
    noise_block(p.key, global_sample, static_cast<uint32_t>(whole_blocks), tail);
    for (int64_t i = 4 * whole_blocks; i < end; ++i) out[i] = tail[i % 4];
  }
}

}  // namespace

template <typename T>
void noise_fill_cpu(const NoiseFill<T>& p, int threads) {
  parallel_chunks(p.samples, p.elements, threads,
                  [&](int64_t sample, int64_t begin, int64_t end) { fill_chunk(p, sample, begin, end); });
}

template void noise_fill_cpu(const NoiseFill<float>&, int);
template void noise_fill_cpu(const NoiseFill<int64_t>&, int);

}  // namespace lv
