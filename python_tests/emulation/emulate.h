// CUDA's blocks, barriers and shuffles on the CPU: the kernels of csrc/cuda, built by g++ with -DLV_EMULATE.
//
// Each thread of a block is a fiber; fibers change hands only at barriers and shuffles, in an order that the tests set.
// Found: a barrier or shuffle that some threads do not reach, values that depend on the order of threads or blocks,
// shared memory read before it is written (it starts as NaN) or used out of bounds, misaligned vector accesses, a
// launch that CUDA refuses; in a cluster also shared memory of a block that has ended (it is NaN again), a barrier of
// the cluster used in a wrong order, an asynchronous copy that was not waited for. Blocks, or clusters of blocks, run
// one after another, to their end.
//
// Not covered, and needs a GPU: weak memory ordering and fences; races between two barriers that no order of whole
// intervals shows; blocks that wait for one another; registers, spills, occupancy and real launch failures; what ptxas
// makes of the code; the last bits of approximate instructions (__expf, rsqrtf); streams, graphs and all performance.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static_assert(false, "use LV_SHARED, static shared memory is not emulated");

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the fiber that runs.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace lv::emulate {

constexpr size_t kMaxValue = 16;  // bytes that a shuffle moves

// Runs body(context) once for each thread of each block; `cluster` neighbours along x run at the same time, 0: none.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context, int cluster);

template <typename Body>
void launch(dim3 grid, dim3 block, size_t shared_bytes, const Body& body, int cluster = 0) {
  run_grid(grid, block, shared_bytes, [](const void* b) { (*static_cast<const Body*>(b))(); }, &body, cluster);
}

void* shared_memory();
// Where `own`, in this block's shared memory, is in that of block `rank` of the cluster.
void* shared_of_block(void* own, unsigned rank);
void cluster_arrive();
void cluster_wait();

// Copies are made when the thread waits for them, and not before; in a random schedule some are made at once.
void copy_async(void* to, const void* from);
void copies_commit();
void wait_for_copies(int pending);
template <int kPending>
void copies_wait() {
  wait_for_copies(kPending);
}

void check_aligned(const void* pointer, size_t bytes);
void sync_block(int line);

// Waits for the lanes of `mask`; then `value` is that of lane `source`. Returns the lanes whose first byte was not 0.
unsigned exchange(unsigned mask, int source, unsigned char value[kMaxValue], int line);

inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize);
}

template <typename T>
T shuffle(unsigned mask, T value, int source, int line) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxValue, "a shuffle moves small plain values");
  unsigned char bytes[kMaxValue] = {};
  memcpy(bytes, &value, sizeof(T));
  exchange(mask, source, bytes, line);
  memcpy(&value, bytes, sizeof(T));
  return value;
}

inline unsigned vote(unsigned mask, bool predicate, int line) {
  unsigned char bytes[kMaxValue] = {predicate};
  return exchange(mask, lane(), bytes, line);
}

}  // namespace lv::emulate

// `line` is where the kernel calls: threads that wait together must wait at one line.
inline void __syncthreads(int line = __builtin_LINE()) { lv::emulate::sync_block(line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { lv::emulate::vote(mask, false, line); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  const int first = lv::emulate::lane() / width * width;
  return lv::emulate::shuffle(mask, value, first + (source & (width - 1)), line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  const int lane = lv::emulate::lane(), source = lane ^ bits;
  return lv::emulate::shuffle(mask, value, source < (lane / width + 1) * width ? source : lane, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = lv::emulate::lane(), source = lane + static_cast<int>(delta);
  return lv::emulate::shuffle(mask, value, source < (lane / width + 1) * width ? source : lane, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = lv::emulate::lane(), source = lane - static_cast<int>(delta);
  return lv::emulate::shuffle(mask, value, source >= lane / width * width ? source : lane, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return lv::emulate::vote(mask, predicate != 0, line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return lv::emulate::vote(mask, predicate != 0, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return lv::emulate::vote(mask, predicate != 0, line) == mask;
}

inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcs(const T* from) {
  return *from;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
template <typename T>
void __stcs(T* to, T value) {
  *to = value;
}
template <typename T>
void __stcg(T* to, T value) {
  *to = value;
}

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
