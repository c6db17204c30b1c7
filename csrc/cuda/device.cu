#include "device.h"
#include "launch.h"

namespace lv {
namespace {

__global__ void probe_kernel() {}

int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

// Whether there is an image of the kernel for this GPU, and from code that knows clusters, not just what older ones
// run.
bool knows_clusters(const void* kernel) {
  constexpr int kFirstPtx = 90;
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();
    return false;
  }
  check(status, "cudaFuncGetAttributes");
  return attributes.ptxVersion >= kFirstPtx;
}

}  // namespace

DeviceGuard::DeviceGuard(int device) : device_(device) {
  check(cudaGetDevice(&previous_), "cudaGetDevice");
  if (previous_ != device_) check(cudaSetDevice(device_), "cudaSetDevice");
}

DeviceGuard::~DeviceGuard() {
  if (previous_ != device_ && cudaSetDevice(previous_) != cudaSuccess) cudaGetLastError();  // must not stick either
}

std::string why_no_kernel_runs(int device) {
  try {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    if (device >= count) return "no CUDA device";
    DeviceGuard guard(device);
    cudaFuncAttributes attributes;  // loads the image of the probe, and so tells whether there is one for this GPU
    check(cudaFuncGetAttributes(&attributes, probe_kernel), "cudaFuncGetAttributes");
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

int64_t cluster_limit(int device, std::initializer_list<const void*> kernels) {
  if (attribute_of(device, cudaDevAttrClusterLaunch) == 0) return 0;
  const int limit = attribute_of(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  for (const void* kernel : kernels) {
    if (!knows_clusters(kernel)) return 0;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit), "cudaFuncSetAttribute");
  }
  return limit;
}

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace lv
