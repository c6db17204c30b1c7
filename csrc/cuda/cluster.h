// Clusters of blocks that read each other's shared memory, and copies into it that threads need not wait for: sm_90 and
// newer. What includes this is compiled for those alone (setup.py), or for older ones without LV_HAS_CLUSTERS.
#pragma once

#include "launch.h"

#if defined(LV_EMULATE) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define LV_HAS_CLUSTERS 1
#endif

#if defined(LV_EMULATE)
#define LV_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...) \
  ::lv::emulate::launch(grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); }, cluster)
#else
#define LV_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...)                                 \
  do {                                                                                                             \
    cudaLaunchAttribute attribute;                                                                                 \
    const cudaLaunchConfig_t config = ::lv::cluster_launch(attribute, cluster, grid, block, shared_bytes, stream); \
    ::lv::check(cudaLaunchKernelEx(&config, kernel, __VA_ARGS__), #kernel);                                        \
  } while (0)
#endif

namespace lv {

#if !defined(LV_EMULATE)
// The launch of a grid whose x is a whole number of clusters; it points to `attribute`.
inline cudaLaunchConfig_t cluster_launch(cudaLaunchAttribute& attribute, int blocks, dim3 grid, dim3 block,
                                         int shared_bytes, void* stream) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute, config.numAttrs = 1;
  return config;
}
#endif

#if defined(LV_EMULATE)
using emulate::cluster_arrive, emulate::cluster_wait, emulate::copy_async, emulate::copies_commit, emulate::copies_wait;

template <typename T>
T* shared_of_block(T* own, unsigned rank) {
  return static_cast<T*>(emulate::shared_of_block(own, rank));
}
#elif defined(LV_HAS_CLUSTERS)
// The cluster's barrier in two halves: what a thread did before it arrived is seen by all after they have waited.
__device__ inline void cluster_arrive() { __cluster_barrier_arrive(); }
__device__ inline void cluster_wait() { __cluster_barrier_wait(); }

// The place in the shared memory of block `rank` of the cluster that `own` is in this block's.
template <typename T>
__device__ T* shared_of_block(T* own, unsigned rank) {
  return static_cast<T*>(__cluster_map_shared_rank(own, rank));
}

// Begins to copy 16 bytes from global to shared memory; the copy belongs to the thread's next copies_commit().
__device__ inline void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all of the thread's commits but the last kPending; then the thread sees what they brought.
template <int kPending>
__device__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif

}  // namespace lv
