#pragma once

#include "../upsample_bicubic2x.h"
#include "common.h"

namespace lv {

template <typename X, typename U>
void run_upsample_bicubic2x(const TensorView& x, const TensorView& y, const OptionalTensor& u, double a, double sigma,
                            const NoiseKey& key, uint32_t first, int threads) {
  const char* op = "upsample_bicubic2x";
  const UpsampleBicubic2x<X, U> p{{x.data<const X>(), y.data<X>(), x.size(0), x.size(1), x.size(2), x.size(3),
                                   is_channels_last(x, op), BicubicWeights<X>(a), static_cast<X>(sigma), key, first},
                                  u ? u->data<U>() : nullptr};
  on_device_of(
      x, op, [&] { upsample_bicubic2x_cpu(p, threads); },
      [&](void* stream) {
        if constexpr (std::is_same_v<X, float>)
          upsample_bicubic2x_cuda(p, stream);
        else
          require(false, op, "float64 is for the CPU");
      });
}

// An image of twice x's height and width; the kernels write it by vectors.
inline void require_doubled(const TensorView& x, const TensorView& image, const char* op) {
  require(image.dim() == 4 && image.same_device(x) && image.size(0) == x.size(0) && image.size(1) == x.size(1) &&
              image.size(2) == 2 * x.size(2) && image.size(3) == 2 * x.size(3),
          op, "y and u must be twice as high and wide as x, on x's device");
  require(reinterpret_cast<uintptr_t>(image.data<const void>()) % 16 == 0, op, "y and u must be aligned to 16 bytes");
}

void upsample_bicubic2x(const TensorView& x, const TensorView& y, const OptionalTensor& u, double a, double sigma,
                        int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads) {
  const char* op = "upsample_bicubic2x";
  constexpr int64_t kMaxSide = 1 << 30;
  require(x.dim() == 4 && x.size(2) <= kMaxSide && x.size(3) <= kMaxSide, op, "x must be (N, C, H, W), H, W <= 2^30");
  require(x.numel_from(1) < int64_t{1} << 32, op, "a sample of y must have fewer than 2^34 elements");
  require_doubled(x, y, op);
  require(x.dtype() == y.dtype(), op, "y must have x's dtype");
  require(is_channels_last(x, op) == is_channels_last(y, op), op, "y must have x's memory format");
  if (u) require_doubled(x, *u, op);
  if (x.numel() == 0) return;
  if (u) {
    require(u->layout() == Layout::kChannelsLast || (x.size(1) == 1 && u->layout() == Layout::kContiguous), op,
            "u must be channels-last");
  }
  const NoiseKey key = noise_key(static_cast<uint64_t>(seed), step, stream);
  const auto run = [&](auto x_tag, auto u_tag) {
    run_upsample_bicubic2x<typename decltype(x_tag)::type, typename decltype(u_tag)::type>(x, y, u, a, sigma, key,
                                                                                           first, threads);
  };
  const Dtype input = u ? u->dtype() : Dtype::kFloat32;
  if (x.dtype() == Dtype::kFloat64 && input == Dtype::kFloat32) return run(Tag<double>(), Tag<float>());
  require(x.dtype() == Dtype::kFloat32, op, "x must be float32, or float64 with a float32 u");
  if (input == Dtype::kFloat32) return run(Tag<float>(), Tag<float>());
  if (input == Dtype::kBfloat16) return run(Tag<float>(), Tag<bfloat16>());
  require(input == Dtype::kFloat16, op, "u must be float32, bfloat16 or float16");
  run(Tag<float>(), Tag<float16>());
}

}  // namespace lv
