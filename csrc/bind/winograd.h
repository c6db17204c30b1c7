#pragma once

#include "../winograd.h"
#include "common.h"

namespace lv {

inline Winograd winograd_sizes(const TensorView& x, int64_t outputs, int64_t dilation, bool pool) {
  const char* op = "winograd";
  require(x.dim() == 4 && x.dtype() == Dtype::kFloat32 && !x.is_cuda(), op,
          "x must be (N, C, H, W) float32 on the CPU");
  require(x.size(1) % kVector == 0 && outputs % kVector == 0 && x.size(1) > 0 && outputs > 0, op,
          "channels must be multiples of 16");
  require(dilation > 0, op, "dilation must be positive");
  require(!pool || (x.size(2) % 2 == 0 && x.size(3) % 2 == 0 && dilation == 1), op,
          "the pooled convolution needs even sizes and no dilation");
  Winograd p{};
  p.samples = x.size(0), p.channels = x.size(1), p.height = x.size(2), p.width = x.size(3);
  p.outputs = outputs, p.dilation = dilation, p.pool = pool;
  return p;
}

int64_t winograd_scratch(const TensorView& x, int64_t outputs, int64_t dilation) {
  return x.numel() == 0 ? 0 : winograd_sizes(x, outputs, dilation, false).scratch_size();
}

void winograd(const TensorView& x, const TensorView& weight, const OptionalTensor& bias, const OptionalTensor& add,
              const TensorView& y, const TensorView& scratch, int64_t dilation, bool pool, int threads) {
  const char* op = "winograd";
  require(y.dim() == 4, op, "y must have 4 dimensions");
  Winograd p = winograd_sizes(x, y.size(1), dilation, pool);
  const int64_t shrink = pool ? 2 : 1;
  require(y.size(0) == p.samples && y.size(2) * shrink == p.height && y.size(3) * shrink == p.width, op,
          "y must have the shape of the result");
  const auto floats = [&](const TensorView& tensor, int64_t size) {
    require(tensor.dtype() == Dtype::kFloat32 && tensor.same_device(x), op, "tensors must be float32 on the CPU");
    require(size < 0 || (tensor.numel() >= size && tensor.layout() == Layout::kContiguous), op,
            "weight, bias and scratch must be contiguous and large enough");
    return tensor.data<float>();
  };
  require(is_channels_last(x, op) && is_channels_last(y, op), op, "x and y must be channels-last");
  p.x = floats(x, -1), p.y = floats(y, -1);
  if (add) {
    require_like(y, *add, op);
    require(is_channels_last(*add, op), op, "add must be channels-last");
    p.add = floats(*add, -1);
  }
  if (x.numel() == 0) return;
  p.weight = floats(weight, kPoints * p.channels * p.outputs);
  p.bias = bias ? floats(*bias, p.outputs) : nullptr;
  p.scratch = floats(scratch, p.scratch_size());
  on_device_of(x, op, [&] { winograd_cpu(p, threads); }, [](void*) {});
}

}  // namespace lv
