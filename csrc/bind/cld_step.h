#pragma once

#include "../cld_step.h"
#include "common.h"

namespace lv {

template <typename X>
void run_cld_step(const TensorView& u, const OptionalTensor& score, const ImageShape& shape, const double (&a)[4],
                  const double (&b)[2], const double (&noise)[3], const NoiseKey& key_x, const NoiseKey& key_v,
                  uint32_t first, int threads) {
  const char* op = "cld_step";
  const CldStep<X> p{u.data<X>(),
                     score ? score->data<const X>() : nullptr,
                     shape,
                     is_channels_last(u, op),
                     score && is_channels_last(*score, op),
                     static_cast<X>(a[0] - 1),
                     static_cast<X>(a[1]),
                     static_cast<X>(a[2]),
                     static_cast<X>(a[3] - 1),
                     static_cast<X>(b[0]),
                     static_cast<X>(b[1]),
                     static_cast<X>(noise[0]),
                     static_cast<X>(noise[1]),
                     static_cast<X>(noise[2]),
                     key_x,
                     key_v,
                     first};
  on_device_of(
      u, op, [&] { cld_step_cpu(p, threads); },
      [&](void* stream) {
        if constexpr (std::is_same_v<X, float>)
          cld_step_cuda(p, stream);
        else
          require(false, op, "float64 is for the CPU");
      });
}

void cld_step(const TensorView& u, const OptionalTensor& score, double a_xx, double a_xv, double a_vx, double a_vv,
              double b_x, double b_v, double noise_xx, double noise_vx, double noise_vv, int64_t seed, uint32_t step,
              uint32_t first, uint32_t stream_x, uint32_t stream_v, int threads) {
  const char* op = "cld_step";
  require(u.dim() >= 2 && u.size(1) % 2 == 0, op, "u must be (N, 2C, ...)");
  if (u.numel() == 0) return;
  ImageShape shape = image_shape(u);
  shape.channels /= 2;
  if (score) {
    require(score->same_device(u) && score->dtype() == u.dtype(), op, "score must have u's dtype and device");
    bool fits = score->dim() == u.dim() && score->size(0) == u.size(0) && 2 * score->size(1) == u.size(1);
    for (int axis = 2; fits && axis < u.dim(); ++axis) fits = score->size(axis) == u.size(axis);
    require(fits, op, "score must be (N, C, ...)");
  }
  const NoiseKey key_x = noise_key(static_cast<uint64_t>(seed), step, stream_x);
  const NoiseKey key_v = noise_key(static_cast<uint64_t>(seed), step, stream_v);
  const double a[4] = {a_xx, a_xv, a_vx, a_vv}, b[2] = {b_x, b_v}, noise[3] = {noise_xx, noise_vx, noise_vv};
  if (u.dtype() == Dtype::kFloat64)
    return run_cld_step<double>(u, score, shape, a, b, noise, key_x, key_v, first, threads);
  require(u.dtype() == Dtype::kFloat32, op, "u must be float32 or float64");
  run_cld_step<float>(u, score, shape, a, b, noise, key_x, key_v, first, threads);
}

}  // namespace lv
