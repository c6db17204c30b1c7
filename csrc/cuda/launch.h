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
#else
#include <cuda_runtime.h>
// Checks the launch itself; what goes wrong while the kernel runs is reported by a later call, as always with CUDA.
#define LV_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
  do {                                                                                                \
    kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__);            \
    const cudaError_t status = cudaGetLastError();                                                    \
    if (status != cudaSuccess) throw std::runtime_error(std::string(#kernel ": ") + cudaGetErrorString(status)); \
  } while (0)
#endif

namespace lv {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridY = 65535;

// One thread for each item along x, one sample for each y; kernels stride over samples beyond kMaxGridY.
inline dim3 grid_for(int64_t items, int64_t samples) {
  return dim3(static_cast<unsigned>((items + kThreads - 1) / kThreads),
              static_cast<unsigned>(std::min(samples, kMaxGridY)));
}

}  // namespace lv
