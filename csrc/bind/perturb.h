#pragma once

#include "../perturb.h"
#include "common.h"

namespace lv {

template <typename T>
void run_perturb(const TensorView& x, const TensorView& sigma, const TensorView& out, const NoiseKey& key,
                 uint32_t first, int threads) {
  const char* op = "perturb";
  const Perturb<T> p{x.data<const T>(),
                     out.data<T>(),
                     sigma.data<const Compute<T>>(),
                     image_shape(x),
                     is_channels_last(x, op),
                     key,
                     first};
  on_device_of(
      x, op, [&] { perturb_cpu(p, threads); },
      [&](void* stream) {
        if constexpr (!std::is_same_v<T, double>)
          perturb_cuda(p, stream);
        else
          require(false, op, "float64 is for the CPU");
      });
}

void perturb(const TensorView& x, const TensorView& sigma, const TensorView& out, int64_t seed, uint32_t step,
             uint32_t first, uint32_t stream, int threads) {
  const char* op = "perturb";
  require_like(x, out, op);
  require(x.dtype() == out.dtype(), op, "out must have x's dtype");
  require(is_channels_last(x, op) == is_channels_last(out, op), op, "out must have x's memory format");
  require_per_sample(sigma, x, op);
  if (x.numel() == 0) return;
  const NoiseKey key = noise_key(static_cast<uint64_t>(seed), step, stream);
  on_float_type(x.dtype(), op,
                [&](auto tag) { run_perturb<typename decltype(tag)::type>(x, sigma, out, key, first, threads); });
}

}  // namespace lv
