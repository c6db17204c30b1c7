#include "device.h"
#include "launch.h"

namespace lv {
namespace {

__global__ void probe_kernel() {}

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

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace lv
