// What every binding needs: checks that guard memory, dispatch on the device, the stream, release of the GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <type_traits>

#include "../images.h"
#include "../tensor.h"

#if defined(LV_WITH_CUDA)
#include "../cuda/device.h"
#endif

namespace lv {

namespace py = pybind11;

using OptionalTensor = std::optional<TensorView>;

template <typename T>
struct Tag {
  using type = T;
};

// Runs cpu() or cuda(stream) without the GIL, on the device of `tensor`.
template <typename Cpu, typename Cuda>
void on_device_of(const TensorView& tensor, const char* op, const Cpu& cpu, const Cuda& cuda) {
#if defined(LV_EMULATE)  // the CUDA kernels on CPU memory
  (void)cpu, (void)tensor, (void)op;
  py::gil_scoped_release release;
  cuda(static_cast<void*>(nullptr));
#else
  if (!tensor.is_cuda()) {
    require(tensor.raw.device.type == dlpack::kCpu, op, "tensors must be on the CPU or on CUDA");
    py::gil_scoped_release release;
    return cpu();
  }
#if defined(LV_WITH_CUDA)
  void* stream = nullptr;
  if (exchange_api()->current_work_stream(dlpack::kCuda, tensor.raw.device.id, &stream) != 0)
    throw py::error_already_set();
  DeviceGuard guard(tensor.raw.device.id);
  py::gil_scoped_release release;
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

}  // namespace lv
