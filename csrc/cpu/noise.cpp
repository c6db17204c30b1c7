#include "../noise.h"

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

void fill_chunk(const NoiseFill<float>& p, int64_t sample, int64_t begin, int64_t end) {
  float* out = p.out + sample * p.elements;
  for (int64_t from = begin; from < end; from += kNoiseBuffer)
    fill_noise(p.key, p.first + static_cast<uint32_t>(sample), from, std::min(kNoiseBuffer, end - from), out + from);
}

LV_CLONES void fill_chunk(const NoiseFill<int64_t>& p, int64_t sample, int64_t begin, int64_t end) {
  int64_t* out = p.out + sample * p.elements;
  for (int64_t from = begin; from < end; from += 4) {
    uint32_t words[4];
    noise_words(p.key, p.first + static_cast<uint32_t>(sample), static_cast<uint32_t>(from / 4), words);
    for (int64_t i = from; i < std::min(from + 4, end); ++i) out[i] = words[i - from];
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
