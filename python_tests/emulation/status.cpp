// What csrc/cuda/device.cu makes of the runtime's statuses, asked for by name.
#undef LV_EMULATE
#include "../../csrc/cuda/device.cu"
#include "cuda_runtime.h"

namespace {

std::string ask(const std::string& what, int device) {
  if (what == "why_no_kernel_runs") return lv::why_no_kernel_runs(device);
  if (what == "cluster_limit") return std::to_string(lv::cluster_limit(device, {"one kernel", "another"}));
  lv::DeviceGuard guard(device);
  return "on device " + std::to_string(runtime::current);
}

}  // namespace

// The answer, or what was thrown, where `failing` fails with `failure` after some calls; device 0 is current. Then what
// the thread's next check would find: its error and its device.
extern "C" __attribute__((visibility("default"))) const char* ask(const char* what, int device, const char* failing,
                                                                  int failure, int calls_before, int* left) {
  static std::string answer;
  runtime::failing = failing, runtime::failure = static_cast<cudaError_t>(failure);
  runtime::calls_before = calls_before, runtime::last = cudaSuccess, runtime::current = 0;
  try {
    answer = ask(what, device);
  } catch (const std::exception& error) {
    answer = std::string("threw ") + error.what();
  }
  left[0] = runtime::last, left[1] = runtime::current;
  return answer.c_str();
}
