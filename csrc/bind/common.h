// What every entry needs: checks that guard memory, dispatch on dtype and device.
#pragma once

#include <type_traits>

#include "../half.h"
#include "../images.h"
#include "entries.h"

#if defined(LV_WITH_CUDA)
#include "../cuda/device.h"
#endif

namespace lv {

template <typename T>
struct Tag {
  using type = T;
};

// Runs cpu() or cuda(stream) without the GIL, on the device of `tensor`.
template <typename Cpu, typename Cuda>
void on_device_of(const TensorView& tensor, const char* op, const Cpu& cpu, const Cuda& cuda) {
#if defined(LV_EMULATE)  // the CUDA kernels on CPU memory
  (void)cpu, (void)tensor, (void)op;
  GilRelease release;
  cuda(static_cast<void*>(nullptr));
#else
  if (!tensor.is_cuda()) {
    require(tensor.raw.device.type == dlpack::kCpu, op, "tensors must be on the CPU or on CUDA");
    GilRelease release;
    return cpu();
  }
#if defined(LV_WITH_CUDA)
  void* stream = current_cuda_stream(tensor.raw.device.id);
  DeviceGuard guard(tensor.raw.device.id);
  GilRelease release;
  cuda(stream);
#else
  (void)cuda;
  require(false, op, "the native core was built without CUDA");
#endif
#endif
}

inline ImageShape image_shape(const TensorView& x) {
  const int64_t channels = x.dim() > 1 ? x.size(1) : 1;
  return {x.size(0), channels, x.numel() == 0 ? 0 : x.numel() / (x.size(0) * channels)};
}

inline bool is_channels_last(const TensorView& x, const char* op) {
  const Layout layout = x.layout();
  require(layout != Layout::kOther, op, "tensors must be contiguous or channels-last");
  return layout == Layout::kChannelsLast;
}

inline void require_like(const TensorView& x, const TensorView& other, const char* op) {
  require(x.same_shape(other), op, "tensors must have one shape");
  require(x.same_device(other), op, "tensors must be on one device");
}

// A number for each sample of x, in the type that x is computed with: sigma, a weight, a loss.
inline void require_per_sample(const TensorView& values, const TensorView& x, const char* op) {
  const Dtype wanted = x.dtype() == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
  require(values.dtype() == wanted && values.same_device(x), op, "per-sample numbers must be float32, or float64");
  require(values.dim() == 1 && x.dim() >= 1 && values.size(0) == x.size(0), op, "per-sample numbers must be (N,)");
  require(values.layout() == Layout::kContiguous, op, "per-sample numbers must be contiguous");
}

// Calls run(Tag<T>()) for the element type.
template <typename Run>
void on_float_type(Dtype dtype, const char* op, const Run& run) {
  if (dtype == Dtype::kFloat32) return run(Tag<float>());
  if (dtype == Dtype::kBfloat16) return run(Tag<bfloat16>());
  if (dtype == Dtype::kFloat16) return run(Tag<float16>());
  require(dtype == Dtype::kFloat64, op, "tensors must be float32, bfloat16, float16 or float64");
  run(Tag<double>());
}

}  // namespace lv
