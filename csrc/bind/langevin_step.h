#pragma once

#include "../langevin_step.h"
#include "common.h"

namespace lv {

// The images of a step; its coefficients and where its noise lies are set by the caller.
template <typename X, typename S>
LangevinStep<X, S> step_images(const TensorView& x, const TensorView& score, const OptionalTensor& mask,
                               const char* op) {
  LangevinStep<X, S> p{};
  p.x = x.data<X>();
  p.score = score.data<const S>();
  p.mask = mask ? mask->data<const uint8_t>() : nullptr;
  p.shape = image_shape(x);
  p.x_channels_last = is_channels_last(x, op);
  p.score_channels_last = is_channels_last(score, op);
  p.mask_per_sample = mask && mask->dim() == x.dim();
  return p;
}

inline void check_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask, const char* op) {
  require_like(x, score, op);
  if (!mask) return;
  require(mask->dtype() == Dtype::kBool && mask->same_device(x), op, "mask must be bool and on x's device");
  require(mask->layout() == Layout::kContiguous, op, "mask must be contiguous");
  const bool per_sample = mask->dim() == x.dim();
  require(mask->numel() == (per_sample ? x.numel() : x.numel_from(1)), op, "mask must have x's shape");
}

// Calls run(p) with p the images in their types.
template <typename Run>
void with_step_images(const TensorView& x, const TensorView& score, const OptionalTensor& mask, const char* op,
                      const Run& run) {
  const Dtype s = score.dtype();
  if (x.dtype() == Dtype::kFloat64 && s == Dtype::kFloat64) return run(step_images<double, double>(x, score, mask, op));
  require(x.dtype() == Dtype::kFloat32, op, "x must be float32, or float64 with a float64 score");
  if (s == Dtype::kFloat32) return run(step_images<float, float>(x, score, mask, op));
  if (s == Dtype::kBfloat16) return run(step_images<float, bfloat16>(x, score, mask, op));
  require(s == Dtype::kFloat16, op, "score must be float32, bfloat16 or float16");
  run(step_images<float, float16>(x, score, mask, op));
}

void langevin_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask, double score_coef,
                   double noise_coef, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  const char* op = "langevin_step";
  check_step(x, score, mask, op);
  if (x.numel() == 0) return;
  with_step_images(x, score, mask, op, [&](auto p) {
    using X = std::remove_pointer_t<decltype(p.x)>;
    p.score_coef = static_cast<X>(score_coef);
    p.noise_coef = static_cast<X>(noise_coef);
    p.key = noise_key(static_cast<uint64_t>(seed), step, stream);
    p.first = first;
    on_device_of(
        x, op, [&] { langevin_step_cpu(p, threads); },
        [&](void* cuda_stream) {
          if constexpr (std::is_same_v<X, float>)
            langevin_step_cuda(p, cuda_stream);
          else
            require(false, op, "float64 is for the CPU");
        });
  });
}

inline StepTable step_table(const TensorView& table, const TensorView& place, const TensorView& x, const char* op) {
  require(table.dtype() == Dtype::kFloat64 && table.same_device(x), op, "table must be float64 on x's device");
  require(table.dim() == 2 && table.size(1) == kTableColumns && table.layout() == Layout::kContiguous, op,
          "table must be (R, 4) and contiguous");
  require(place.dtype() == Dtype::kInt64 && place.same_device(x), op, "place must be int64 on x's device");
  require(place.dim() == 1 && place.size(0) == kPlaceSize && place.layout() == Layout::kContiguous, op,
          "place must be (3,) and contiguous");
  return {table.data<const double>(), table.size(0), place.data<int64_t>()};
}

void langevin_table_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask,
                         const TensorView& table, const TensorView& place, uint32_t stream, int threads) {
  const char* op = "langevin_table_step";
  check_step(x, score, mask, op);
  const StepTable rows = step_table(table, place, x, op);
  if (x.numel() == 0) return;
  with_step_images(x, score, mask, op, [&](auto images) {
    using X = std::remove_pointer_t<decltype(images.x)>;
    using S = std::remove_const_t<std::remove_pointer_t<decltype(images.score)>>;
    images.key.stream = stream;
    const LangevinTableStep<X, S> p{images, rows};
    on_device_of(
        x, op, [&] { langevin_table_step_cpu(p, threads); },
        [&](void* cuda_stream) {
          if constexpr (std::is_same_v<X, float>)
            langevin_table_step_cuda(p, cuda_stream);
          else
            require(false, op, "float64 is for the CPU");
        });
  });
}

void advance_row(const TensorView& place, const TensorView& table, const TensorView& level) {
  const char* op = "advance_row";
  require(level.dtype() == Dtype::kInt64 && level.dim() == 1 && level.layout() == Layout::kContiguous, op,
          "level must be int64, (N,) and contiguous");
  const AdvanceRow p{step_table(table, place, level, op), level.data<int64_t>(), level.size(0)};
  on_device_of(level, op, [&] { advance_row_cpu(p); }, [&](void* cuda_stream) { advance_row_cuda(p, cuda_stream); });
}

}  // namespace lv
