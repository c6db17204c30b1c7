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
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && device >= count) return "no CUDA device";
  if (status == cudaSuccess) {
    DeviceGuard guard(device);
    cudaFuncAttributes attributes;  // loads the image of the probe, and so tells whether there is one for this GPU
    status = cudaFuncGetAttributes(&attributes, probe_kernel);
  }
  if (status == cudaSuccess) return "";
  cudaGetLastError();  // the error is reported here and must not stick
  return cudaGetErrorString(status);
}

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace lv
