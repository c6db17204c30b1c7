#pragma once

#include "../langevin_step.h"
#include "common.h"

namespace lv {

template <typename X, typename S>
void run_langevin_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask, double score_coef,
                       double noise_coef, const NoiseKey& key, uint32_t first, int threads) {
  const char* op = "langevin_step";
  LangevinStep<X, S> p{x.data<X>(),
                       score.data<const S>(),
                       mask ? mask->data<const uint8_t>() : nullptr,
                       image_shape(x),
                       is_channels_last(x, op),
                       is_channels_last(score, op),
                       mask && mask->dim() == x.dim(),
                       static_cast<X>(score_coef),
                       static_cast<X>(noise_coef),
                       key,
                       first};
  on_device_of(
      x, op, [&] { langevin_step_cpu(p, threads); },
      [&](void* stream) {
        if constexpr (std::is_same_v<X, float>)
          langevin_step_cuda(p, stream);
        else
          require(false, op, "float64 is for the CPU");
      });
}

void langevin_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask, double score_coef,
                   double noise_coef, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  const char* op = "langevin_step";
  require_like(x, score, op);
  if (mask) {
    require(mask->dtype() == Dtype::kBool && mask->same_device(x), op, "mask must be bool and on x's device");
    require(mask->layout() == Layout::kContiguous, op, "mask must be contiguous");
    const bool per_sample = mask->dim() == x.dim();
    require(mask->numel() == (per_sample ? x.numel() : x.numel_from(1)), op, "mask must have x's shape");
  }
  if (x.numel() == 0) return;
  const NoiseKey key = noise_key(static_cast<uint64_t>(seed), step, stream);
  const auto run = [&](auto x_tag, auto s_tag) {
    run_langevin_step<typename decltype(x_tag)::type, typename decltype(s_tag)::type>(x, score, mask, score_coef,
                                                                                      noise_coef, key, first, threads);
  };
  const Dtype s = score.dtype();
  if (x.dtype() == Dtype::kFloat64 && s == Dtype::kFloat64) return run(Tag<double>(), Tag<double>());
  require(x.dtype() == Dtype::kFloat32, op, "x must be float32, or float64 with a float64 score");
  if (s == Dtype::kFloat32) return run(Tag<float>(), Tag<float>());
  if (s == Dtype::kBfloat16) return run(Tag<float>(), Tag<bfloat16>());
  require(s == Dtype::kFloat16, op, "score must be float32, bfloat16 or float16");
  run(Tag<float>(), Tag<float16>());
}

}  // namespace lv
