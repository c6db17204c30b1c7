// How a tensor comes from Python: torch's DLPack C exchange table and the pybind11 casters on it. Only for
// bindings.cpp.
//
// torch.Tensor carries the table as `__dlpack_c_exchange_api__` since 2.10 (DLPack 1.3, "C exchange API").
#pragma once

#include <pybind11/pybind11.h>

#include "../tensor.h"

namespace lv {

// The table of torch.Tensor, taken once by `init`.
inline const dlpack::ExchangeApi*& exchange_api() {
  static const dlpack::ExchangeApi* api = nullptr;
  return api;
}

inline void init_exchange_api(pybind11::handle tensor_type) {
  constexpr uint32_t kMajor = 1;
  pybind11::object capsule = tensor_type.attr("__dlpack_c_exchange_api__");
  auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) throw pybind11::error_already_set();
  while (api != nullptr && api->version.major != kMajor) api = api->previous;
  if (api == nullptr) throw std::runtime_error("this torch offers no DLPack 1.x exchange table; torch >= 2.11 does");
  exchange_api() = api;
}

}  // namespace lv

namespace pybind11::detail {

template <>
struct type_caster<lv::TensorView> {
  PYBIND11_TYPE_CASTER(lv::TensorView, const_name("torch.Tensor"));

  bool load(handle source, bool) {
    const auto* api = lv::exchange_api();
    if (api == nullptr || source.is_none()) return false;
    if (api->tensor_from_object(source.ptr(), &value.raw) != 0) throw error_already_set();
    // Fake and functional tensors have a shape but no memory.
    if (value.raw.data == nullptr && value.numel() != 0) throw type_error("tensor has no memory to work on");
    return true;
  }
};

// pybind11/stl.h has this for every optional, and a second of compile time with it.
template <>
struct type_caster<lv::OptionalTensor> {
  PYBIND11_TYPE_CASTER(lv::OptionalTensor, const_name("torch.Tensor | None"));

  bool load(handle source, bool convert) {
    if (source.is_none()) return true;
    type_caster<lv::TensorView> tensor;
    if (!tensor.load(source, convert)) return false;
    value.emplace(static_cast<lv::TensorView&>(tensor));
    return true;
  }
};

}  // namespace pybind11::detail
