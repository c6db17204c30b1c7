// Loops over threads whose result does not depend on how many there are: the pieces are fixed, only who does them
// varies.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lv {

// Calls body(i) for i in [0, count). `threads` is torch's setting, passed in because a new Python thread does not
// inherit it; work under `grain` elements in all stays on the caller, since entering a region costs microseconds.
template <typename Body>
void parallel_for(int64_t count, int64_t elements, int threads, const Body& body) {
  constexpr int64_t grain = 16384;
  threads = static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(1, elements / grain)));
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < count; ++i) body(i);
}

// Calls body(sample, begin, end) on pieces of at most kChunk elements of each sample; begin is a multiple of 4, so that
// a piece starts on a block of noise.
constexpr int64_t kChunk = 8192;

template <typename Body>
void parallel_chunks(int64_t samples, int64_t elements, int threads, const Body& body) {
  const int64_t chunks = (elements + kChunk - 1) / kChunk;
  parallel_for(samples * chunks, samples * elements, threads, [&](int64_t i) {
    const int64_t begin = (i % chunks) * kChunk;
    body(i / chunks, begin, std::min(begin + kChunk, elements));
  });
}

}  // namespace lv
