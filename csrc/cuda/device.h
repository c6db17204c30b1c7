// What the bindings ask of the CUDA runtime.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

namespace lv {

// Makes `device` current and puts the previous one back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  int device_ = 0;
};

// "" where a kernel of this binary can run on `device`, else the runtime's reason (no driver, too old, no image, in
// use). Makes a context on it.
std::string why_no_kernel_runs(int device);
// Bytes of shared memory that a block of each of these kernels may have in a cluster on `device`, the current one, and
// made ready for them; 0 where it has no clusters, or the binary no image of a kernel that knows them.
int64_t cluster_limit(int device, std::initializer_list<const void*> kernels);
int runtime_version();
int driver_version();  // 0 without a driver

}  // namespace lv
