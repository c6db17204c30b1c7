// The Python module, the only file with pybind11. Each op's entry is in bind/<op>.h; the words for a user's mistakes
// are in langevin_ext/ops, the only caller.
#include "bind/caster.h"
#include "bind/entries.h"
#include "cpu/isa.h"

#if defined(LV_WITH_CUDA)
#include "cuda/device.h"
#endif

#if !defined(LV_MODULE_NAME)
#define LV_MODULE_NAME _C
#endif

namespace lv {

extern const char* kSourceHash;
extern const char* kCudaArchs;
extern const char* kNoCudaReason;

void* current_cuda_stream(int device) {
  void* stream = nullptr;
  if (exchange_api()->current_work_stream(dlpack::kCuda, device, &stream) != 0) throw pybind11::error_already_set();
  return stream;
}

GilRelease::GilRelease() : state_(PyEval_SaveThread()) {}
GilRelease::~GilRelease() { PyEval_RestoreThread(static_cast<PyThreadState*>(state_)); }

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["source_hash"] = kSourceHash;
#if defined(__clang__)
  info["compiler"] = __VERSION__;  // names clang itself
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
#if !defined(LV_EMULATE)
  info["isa"] = isa() == Isa::kV4 ? "v4" : isa() == Isa::kV3 ? "v3" : "any";
#endif
#if defined(LV_WITH_CUDA)
  info["cuda"] = true;
  info["cuda_archs"] = kCudaArchs;
  info["cuda_runtime"] = runtime_version();
  info["cuda_driver"] = driver_version();
#else
  info["cuda"] = false;
  info["no_cuda_reason"] = kNoCudaReason;
#endif
  return info;
}

std::string why_no_cuda(int device) {
#if defined(LV_WITH_CUDA)
  return why_no_kernel_runs(device);
#else
  (void)device;
  return std::string("the native core was built without CUDA: ") + kNoCudaReason;
#endif
}

// (blocks of a sample, chunks of a block, threads, bytes of the slab, bytes of shared memory, "" or why there is none)
pybind11::tuple norm_cluster_plan(const TensorView& x, int64_t limit, int blocks) {
  const NormCluster plan = instance_norm_plus_cluster_plan(x, limit, blocks);
  return pybind11::make_tuple(plan.blocks, plan.chunks, plan.groups * kNormGroupThreads, plan.slab_bytes,
                              plan.shared_bytes, plan.why_not);
}

}  // namespace
}  // namespace lv

PYBIND11_MODULE(LV_MODULE_NAME, m) {
  m.doc() = "Native core of langevin_ext; use langevin_ext.ops.";
  m.def("init", &lv::init_exchange_api, "Takes the DLPack exchange table of torch.Tensor.");
  m.def("build_info", &lv::build_info);
  m.def("why_no_cuda", &lv::why_no_cuda);
  m.def("advance_row", &lv::advance_row);
  m.def("cld_step", &lv::cld_step);
  m.def("dsm_loss", &lv::dsm_loss);
  m.def("instance_norm_plus", &lv::instance_norm_plus);
  m.def("instance_norm_plus_backward", &lv::instance_norm_plus_backward);
  m.def("instance_norm_plus_cluster", &lv::instance_norm_plus_cluster);
  m.def("instance_norm_plus_cluster_limit", &lv::instance_norm_plus_cluster_limit);
  m.def("instance_norm_plus_cluster_plan", &lv::norm_cluster_plan);
  m.def("instance_norm_plus_clusters_at_once", &lv::instance_norm_plus_clusters_at_once);
  m.def("instance_norm_plus_scratch", &lv::instance_norm_plus_scratch);
  m.def("langevin_step", &lv::langevin_step);
  m.def("langevin_table_step", &lv::langevin_table_step);
  m.def("perturb", &lv::perturb);
  m.def("philox_words", &lv::philox_words);
  m.def("philox_normal", &lv::philox_normal);
  m.def("upsample_bicubic2x", &lv::upsample_bicubic2x);
  m.def("winograd", &lv::winograd);
  m.def("winograd_scratch", &lv::winograd_scratch);
  m.def("winograd_weight", &lv::winograd_weight);
  m.def("winograd_weight_gradient", &lv::winograd_weight_gradient);
  m.def("winograd_weight_gradient_scratch", &lv::winograd_weight_gradient_scratch);
  m.def("winograd_int16", &lv::winograd_int16);
  m.def("winograd_int16_scratch", &lv::winograd_int16_scratch);
  m.def("why_no_winograd_int16", &lv::why_no_winograd_int16);
  m.def("why_winograd_int16_is_slow", &lv::why_winograd_int16_is_slow);
}
