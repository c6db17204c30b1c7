#pragma once

#include "../dsm_loss.h"
#include "common.h"

namespace lv {

template <typename T>
void run_dsm_loss(const TensorView& score, const TensorView& sigma, const OptionalTensor& weight,
                  const TensorView& loss, const OptionalTensor& grad, const TensorView& partials, const NoiseKey& key,
                  uint32_t first, int threads) {
  using C = Compute<T>;
  const char* op = "dsm_loss";
  const DsmLoss<T> p{score.data<const T>(),
                     sigma.data<const C>(),
                     weight ? weight->data<const C>() : nullptr,
                     loss.data<C>(),
                     grad ? grad->data<T>() : nullptr,
                     partials.data<C>(),
                     image_shape(score),
                     is_channels_last(score, op),
                     key,
                     first};
  require(partials.dtype() == sigma.dtype() && partials.layout() == Layout::kContiguous &&
              partials.numel() >= p.shape.samples * p.chunks() && partials.same_device(score),
          op, "partials must hold one number for each piece of each sample");
  on_device_of(
      score, op, [&] { dsm_loss_cpu(p, threads); },
      [&](void* stream) {
        if constexpr (!std::is_same_v<T, double>)
          dsm_loss_cuda(p, stream);
        else
          require(false, op, "float64 is for the CPU");
      });
}

void dsm_loss(const TensorView& score, const TensorView& sigma, const OptionalTensor& weight, const TensorView& loss,
              const OptionalTensor& grad, const TensorView& partials, int64_t seed, uint32_t step, uint32_t first,
              uint32_t stream, int threads) {
  const char* op = "dsm_loss";
  require_per_sample(sigma, score, op);
  if (weight) require_per_sample(*weight, score, op);
  require_per_sample(loss, score, op);
  if (grad) {
    require_like(score, *grad, op);
    require(score.dtype() == grad->dtype(), op, "grad must have score's dtype");
    require(is_channels_last(score, op) == is_channels_last(*grad, op), op, "grad must have score's memory format");
  }
  if (score.numel() == 0) return;
  const NoiseKey key = noise_key(static_cast<uint64_t>(seed), step, stream);
  on_float_type(score.dtype(), op, [&](auto tag) {
    run_dsm_loss<typename decltype(tag)::type>(score, sigma, weight, loss, grad, partials, key, first, threads);
  });
}

}  // namespace lv
