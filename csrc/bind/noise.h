#pragma once

#include "../noise.h"
#include "common.h"

namespace lv {

template <typename T>
void noise_fill(const TensorView& out, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  const char* op = "noise";
  require(out.dtype() == (std::is_same_v<T, float> ? Dtype::kFloat32 : Dtype::kInt64), op, "out has the wrong dtype");
  require(out.dim() >= 1 && out.layout() == Layout::kContiguous, op, "out must be contiguous");
  if (out.numel() == 0) return;
  const NoiseFill<T> p{out.data<T>(), out.size(0), out.numel_from(1),
                       noise_key(static_cast<uint64_t>(seed), step, stream), first};
  on_device_of(
      out, op, [&] { noise_fill_cpu(p, threads); }, [&](void* cuda_stream) { noise_fill_cuda(p, cuda_stream); });
}

void philox_words(const TensorView& out, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  noise_fill<int64_t>(out, seed, step, first, stream, threads);
}

void philox_normal(const TensorView& out, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  noise_fill<float>(out, seed, step, first, stream, threads);
}

}  // namespace lv
