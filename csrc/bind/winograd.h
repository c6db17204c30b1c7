#pragma once

#include "../winograd.h"
#include "common.h"

namespace lv {

template <typename Form>
Form winograd_sizes(const char* op, const TensorView& x, int64_t outputs, int64_t dilation, bool pool) {
  require(x.dim() == 4 && x.dtype() == Dtype::kFloat32 && !x.is_cuda(), op,
          "x must be (N, C, H, W) float32 on the CPU");
  require(x.size(1) % kVector == 0 && outputs % kVector == 0 && x.size(1) > 0 && outputs > 0, op,
          "channels must be multiples of 16");
  require(dilation > 0, op, "dilation must be positive");
  require(!pool || (x.size(2) % 2 == 0 && x.size(3) % 2 == 0 && dilation == 1), op,
          "the pooled convolution needs even sizes and no dilation");
  Form p{};
  p.samples = x.size(0), p.channels = x.size(1), p.height = x.size(2), p.width = x.size(3);
  p.outputs = outputs, p.dilation = dilation, p.pool = pool;
  return p;
}

int64_t winograd_scratch(const TensorView& x, int64_t outputs, int64_t dilation) {
  return x.numel() == 0 ? 0 : winograd_sizes<Winograd>("winograd", x, outputs, dilation, false).scratch_size();
}
int64_t winograd_int16_scratch(const TensorView& x, int64_t outputs, int64_t dilation) {
  if (x.numel() == 0) return 0;
  return winograd_sizes<WinogradInt16>("winograd_int16", x, outputs, dilation, false).scratch_size();
}

inline const float* winograd_floats(const char* op, const TensorView& tensor, const TensorView& x, int64_t size) {
  require(tensor.dtype() == Dtype::kFloat32 && tensor.same_device(x), op, "tensors must be float32 on the CPU");
  require(size < 0 || (tensor.numel() >= size && tensor.layout() == Layout::kContiguous), op,
          "weight, scales, bias and scratch must be contiguous and large enough");
  return tensor.data<float>();
}

// What all forms have; `weights` sets the rest.
template <typename Form, typename Weights>
void winograd_as(const char* op, const TensorView& x, const OptionalTensor& bias, const OptionalTensor& add,
                 const TensorView& y, const TensorView& scratch, int64_t dilation, bool pool, const Weights& weights) {
  require(y.dim() == 4, op, "y must have 4 dimensions");
  Form p = winograd_sizes<Form>(op, x, y.size(1), dilation, pool);
  const int64_t shrink = pool ? 2 : 1;
  require(y.size(0) == p.samples && y.size(2) * shrink == p.height && y.size(3) * shrink == p.width, op,
          "y must have the shape of the result");
  require(is_channels_last(x, op) && is_channels_last(y, op), op, "x and y must be channels-last");
  p.x = winograd_floats(op, x, x, -1), p.y = const_cast<float*>(winograd_floats(op, y, x, -1));
  if (add) {
    require_like(y, *add, op);
    require(is_channels_last(*add, op), op, "add must be channels-last");
    p.add = winograd_floats(op, *add, x, -1);
  }
  if (x.numel() == 0) return;
  p.bias = bias ? winograd_floats(op, *bias, x, p.outputs) : nullptr;
  p.scratch = const_cast<float*>(winograd_floats(op, scratch, x, p.scratch_size()));
  weights(p);
}

void winograd(const TensorView& x, const TensorView& weight, const OptionalTensor& bias, const OptionalTensor& add,
              const TensorView& y, const TensorView& scratch, int64_t dilation, bool pool, int threads) {
  const char* op = "winograd";
  winograd_as<Winograd>(op, x, bias, add, y, scratch, dilation, pool, [&](Winograd& p) {
    p.weight = winograd_floats(op, weight, x, kPoints * p.channels * p.outputs);
    on_device_of(x, op, [&] { winograd_cpu(p, threads); }, [](void*) {});
  });
}

const char* why_no_winograd_int16() {
#if defined(LV_EMULATE)
  return "the emulation has the CUDA kernels alone";
#else
  return why_no_winograd_int16_cpu();
#endif
}
const char* why_winograd_int16_is_slow() {
#if !defined(LV_EMULATE)
  if (*why_no_winograd_int16() == '\0') return why_winograd_int16_is_slow_cpu();
#endif
  return why_no_winograd_int16();
}

void winograd_int16(const TensorView& x, const TensorView& weight, const TensorView& point_scale,
                    const TensorView& scale, const OptionalTensor& bias, const OptionalTensor& add, const TensorView& y,
                    const TensorView& scratch, int64_t dilation, bool pool, int threads) {
  const char* op = "winograd_int16";
  require(*why_no_winograd_int16() == '\0', op, why_no_winograd_int16());
  winograd_as<WinogradInt16>(op, x, bias, add, y, scratch, dilation, pool, [&](WinogradInt16& p) {
    require(weight.dtype() == Dtype::kInt16 && weight.layout() == Layout::kContiguous && weight.same_device(x) &&
                weight.numel() >= 2 * kPoints * p.pairs_of_channels() * p.outputs,
            op, "weight must be contiguous int16 and large enough");
    p.pairs = weight.data<int16_t>();
    p.point_scale = winograd_floats(op, point_scale, x, kPoints), p.scale = winograd_floats(op, scale, x, p.outputs);
    on_device_of(x, op, [&] { winograd_int16_cpu(p, threads); }, [](void*) {});
  });
}

// A 3x3 weight (K, C, 3, 3) in channels-last order, and its numbers.
inline float* winograd_taps(const TensorView& weight, const char* op) {
  require(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.dtype() == Dtype::kFloat32 &&
              !weight.is_cuda(),
          op, "weight must be (K, C, 3, 3) float32 on the CPU");
  require(weight.size(0) > 0 && weight.size(1) > 0 && weight.size(0) % kVector == 0 && weight.size(1) % kVector == 0,
          op, "channels must be multiples of 16");
  require(is_channels_last(weight, op), op, "weight must be channels-last");
  return weight.data<float>();
}

void winograd_weight(const TensorView& weight, const TensorView& points, bool transposed, int threads) {
  const char* op = "winograd_weight";
  WinogradWeight p{};
  p.weight = winograd_taps(weight, op), p.transposed = transposed;
  p.outputs = weight.size(transposed ? 1 : 0), p.channels = weight.size(transposed ? 0 : 1);
  require(points.dtype() == Dtype::kFloat32 && points.same_device(weight) && points.layout() == Layout::kContiguous &&
              points.numel() >= kPoints * p.outputs * p.channels,
          op, "points must be contiguous float32 and large enough");
  p.points = points.data<float>();
  on_device_of(weight, op, [&] { winograd_weight_cpu(p, threads); }, [](void*) {});
}

int64_t winograd_weight_gradient_scratch(const TensorView& x, int64_t outputs, int64_t dilation) {
  if (x.numel() == 0) return 0;
  return winograd_sizes<Winograd>("winograd_weight_gradient", x, outputs, dilation, false).gradient_scratch_size();
}

void winograd_weight_gradient(const TensorView& x, const TensorView& grad_y, const TensorView& grad_weight,
                              const TensorView& scratch, int64_t dilation, int threads) {
  const char* op = "winograd_weight_gradient";
  float* out = winograd_taps(grad_weight, op);
  Winograd p = winograd_sizes<Winograd>(op, x, grad_weight.size(0), dilation, false);
  require(grad_weight.size(1) == p.channels && grad_weight.same_device(x), op, "grad_weight must fit x");
  require(x.numel() > 0, op, "x must not be empty");
  require(grad_y.dim() == 4 && grad_y.dtype() == Dtype::kFloat32 && grad_y.same_device(x) &&
              grad_y.size(0) == p.samples && grad_y.size(1) == p.outputs && grad_y.size(2) == p.height &&
              grad_y.size(3) == p.width,
          op, "grad_y must be float32 in the shape of the result");
  require(is_channels_last(x, op) && is_channels_last(grad_y, op), op, "x and grad_y must be channels-last");
  require(scratch.dtype() == Dtype::kFloat32 && scratch.same_device(x) && scratch.layout() == Layout::kContiguous &&
              scratch.numel() >= p.gradient_scratch_size(),
          op, "scratch must be contiguous float32 and large enough");
  p.x = x.data<float>(), p.scratch = scratch.data<float>();
  const float* grad = grad_y.data<float>();
  on_device_of(x, op, [&] { winograd_weight_gradient_cpu(p, grad, out, threads); }, [](void*) {});
}

}  // namespace lv
