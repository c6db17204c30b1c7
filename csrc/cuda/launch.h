// Launching a kernel: on a GPU by nvcc's syntax, in the tests by the emulation of blocks on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(LV_EMULATE)
#include "emulate.h"
#define LV_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::lv::emulate::launch(grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); })
#define LV_SHARED(T, name) T* const name = static_cast<T*>(::lv::emulate::shared_memory())
#else
#include <cuda_runtime.h>
// The block's dynamic shared memory, of the size that the launch gives; 16-byte aligned. Every name is the same memory.
#define LV_SHARED(T, name)                                      \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)
// Checks the launch itself; what goes wrong while the kernel runs is reported by a later call, as always with CUDA.
#define LV_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                          \
  do {                                                                                     \
    kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    ::lv::check(cudaGetLastError(), #kernel);                                              \
  } while (0)
#endif

namespace lv {

#if !defined(LV_EMULATE)
// Throws what went wrong. It is reported here and must not stick: the thread's next launch would report it again.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}
#endif

constexpr int kThreads = 256;
#if defined(LV_EMULATE)
constexpr int64_t kMaxGridY = 2;  // so that small tests reach the stride over samples
#else
constexpr int64_t kMaxGridY = 65535;
#endif

// One thread for each item along x, one sample for each y; kernels stride over the other samples. Where there are
// blocks for many times what a GPU holds, a thread takes up to kSamples: what it computes before the first serves them
// all.
inline dim3 grid_for(int64_t items, int64_t samples) {
  constexpr int64_t kSamples = 4, kEnoughBlocks = 16384;
  const int64_t x = (items + kThreads - 1) / kThreads;
  const int64_t y = std::max((samples + kSamples - 1) / kSamples, kEnoughBlocks / std::max<int64_t>(x, 1));
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(std::min({y, samples, kMaxGridY})));
}

}  // namespace lv
