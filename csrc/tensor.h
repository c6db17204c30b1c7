// A torch tensor seen from C++, without torch: DLPack's C structs, a view, and checks. bind/caster.h makes the views.
//
// A view borrows: it is valid while the Python call that received it runs.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace lv {

// The part of the DLPack 1.3 ABI that is used here.
namespace dlpack {
struct Version {
  uint32_t major, minor;
};
struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  void* tensor_allocator;
  void* managed_tensor_from_object;
  void* managed_tensor_to_object;
  int (*tensor_from_object)(void* object, Tensor* out);
  int (*current_work_stream)(int32_t device_type, int32_t device_id, void** stream);
};
constexpr int32_t kCpu = 1, kCuda = 2;
constexpr uint8_t kInt = 0, kFloat = 2, kBfloat = 4, kBool = 6;
}  // namespace dlpack

enum class Dtype { kFloat32, kFloat64, kBfloat16, kFloat16, kInt16, kInt64, kBool, kOther };

inline Dtype dtype_of(const dlpack::DataType& type) {
  using namespace dlpack;
  if (type.lanes != 1) return Dtype::kOther;
  if (type.code == kFloat && type.bits == 32) return Dtype::kFloat32;
  if (type.code == kFloat && type.bits == 64) return Dtype::kFloat64;
  if (type.code == kFloat && type.bits == 16) return Dtype::kFloat16;
  if (type.code == kBfloat && type.bits == 16) return Dtype::kBfloat16;
  if (type.code == kInt && type.bits == 16) return Dtype::kInt16;
  if (type.code == kInt && type.bits == 64) return Dtype::kInt64;
  if (type.code == kBool && type.bits == 8) return Dtype::kBool;
  return Dtype::kOther;
}

// How the elements of a sample lie in memory; both are dense.
enum class Layout { kContiguous, kChannelsLast, kOther };

struct TensorView {
  dlpack::Tensor raw{};

  template <typename T>
  T* data() const {
    return reinterpret_cast<T*>(static_cast<char*>(raw.data) + raw.byte_offset);
  }
  int dim() const { return raw.ndim; }
  int64_t size(int axis) const { return raw.shape[axis]; }
  Dtype dtype() const { return dtype_of(raw.dtype); }
  bool is_cuda() const { return raw.device.type == dlpack::kCuda; }
  int64_t numel() const { return numel_from(0); }
  int64_t numel_from(int axis) const {
    int64_t count = 1;
    for (int i = axis; i < raw.ndim; ++i) count *= raw.shape[i];
    return count;
  }
  bool same_shape(const TensorView& other) const {
    if (raw.ndim != other.raw.ndim) return false;
    for (int i = 0; i < raw.ndim; ++i)
      if (raw.shape[i] != other.raw.shape[i]) return false;
    return true;
  }
  bool same_device(const TensorView& other) const {
    return raw.device.type == other.raw.device.type && raw.device.id == other.raw.device.id;
  }
  Layout layout() const {
    if (raw.strides == nullptr || dense_in_order(nullptr)) return Layout::kContiguous;
    constexpr int kChannelsLastOrder[4] = {0, 2, 3, 1};
    if (raw.ndim == 4 && dense_in_order(kChannelsLastOrder)) return Layout::kChannelsLast;
    return Layout::kOther;
  }

 private:
  bool dense_in_order(const int* order) const {
    int64_t expected = 1;
    for (int i = raw.ndim - 1; i >= 0; --i) {
      const int axis = order ? order[i] : i;
      if (raw.shape[axis] != 1 && raw.strides[axis] != expected) return numel() == 0;
      expected *= raw.shape[axis];
    }
    return true;
  }
};

// Memory safety: ops.py checks what a user can get wrong and words it; these stop whatever reaches the core otherwise.
inline void require(bool condition, const char* op, const char* message) {
  if (!condition) throw std::invalid_argument(std::string(op) + ": " + message);
}

// A tensor or None.
struct OptionalTensor : std::optional<TensorView> {
  using std::optional<TensorView>::optional;
};

}  // namespace lv
