// As much of the CUDA runtime as csrc/cuda/device.cu calls, on two GPUs that are not there; a test says which call
// fails. As in CUDA a failure sticks to the thread until cudaGetLastError takes it.
#pragma once

#include <cstring>
#include <utility>

#define __global__
#define CUDART_VERSION 0

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidDeviceFunction = 98, cudaErrorNoKernelImageForDevice = 209 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97, cudaDevAttrClusterLaunch = 120 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaFuncAttributes {
  int ptxVersion;
};

namespace runtime {

inline const char* failing = "";  // the name of a call
inline int calls_before = 0;      // it fails after that many
inline cudaError_t failure = cudaSuccess, last = cudaSuccess;
inline int current = 0;

inline cudaError_t status_of(const char* call) {
  return strcmp(call, failing) == 0 && calls_before-- <= 0 ? last = failure : cudaSuccess;
}

}  // namespace runtime

inline cudaError_t cudaGetLastError() { return std::exchange(runtime::last, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t) { return "it failed"; }

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 2;
  return runtime::status_of("cudaGetDeviceCount");
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = runtime::current;
  return runtime::status_of("cudaGetDevice");
}
inline cudaError_t cudaSetDevice(int device) {
  const cudaError_t status = runtime::status_of("cudaSetDevice");
  if (status == cudaSuccess) runtime::current = device;
  return status;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return runtime::status_of("cudaDriverGetVersion");
}
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = 90;
  return runtime::status_of("cudaFuncGetAttributes");
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return runtime::status_of("cudaFuncSetAttribute");
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrClusterLaunch ? 1 : 232448;
  return runtime::status_of("cudaDeviceGetAttribute");
}
