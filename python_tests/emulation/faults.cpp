// Kernels that are wrong, each in one way that emulate.h must find; and some that are right.
#include <cstdio>
#include <stdexcept>

#include "emulate.h"

namespace {

constexpr unsigned kAll = ~0u;

float* shared() { return static_cast<float*>(lv::emulate::shared_memory()); }

void early_return_before_barrier() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
void barrier_in_a_branch() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
void early_return_before_shuffle() {
  if (threadIdx.x == 3) return;
  __shfl_xor_sync(kAll, 1.0f, 1);
}
void different_shuffles() {
  if (threadIdx.x < 16)
    __syncwarp();
  else
    __shfl_xor_sync(kAll, 1.0f, 1);
}
void lane_outside_its_mask() { __shfl_xor_sync(0x0000FFFFu, 1.0f, 1); }
void source_outside_the_mask() {
  if (threadIdx.x < 16) __shfl_xor_sync(0x0000FFFFu, 1.0f, 16);
}
void shared_too_far() {
  if (threadIdx.x == 0) shared()[16] = 1.0f;
}
void shared_before_its_start() {
  if (threadIdx.x == 0) shared()[-1] = 1.0f;
}
void misaligned() { lv::emulate::check_aligned(reinterpret_cast<char*>(shared()) + 8, 16); }
void arrives_twice() {
  lv::emulate::cluster_arrive();
  lv::emulate::cluster_arrive();
}
void waits_without_arriving() { lv::emulate::cluster_wait(); }
void leaves_before_the_cluster_meets() {
  if (threadIdx.x == 3 && blockIdx.x == 1) return;
  lv::emulate::cluster_arrive();
  lv::emulate::cluster_wait();
}
void no_such_block() { lv::emulate::shared_of_block(shared(), gridDim.x); }
void not_shared() { lv::emulate::shared_of_block(&blockIdx, 0); }
void throws() {
  if (threadIdx.x == 5) throw std::runtime_error("emulation: a thread threw");
  __syncthreads();
}

float result[64];

void shared_starts_as_nan() { result[threadIdx.x] = shared()[threadIdx.x % 16]; }
void race_in_order() {  // every thread writes: the last one wins
  shared()[0] = static_cast<float>(threadIdx.x);
  __syncthreads();
  result[threadIdx.x] = shared()[0];
}
void reads_before_a_barrier() {
  shared()[threadIdx.x % 16] = 1.0f;
  result[threadIdx.x] = shared()[(threadIdx.x + 1) % 16];
}
void sums_a_warp() {
  float sum = static_cast<float>(threadIdx.x);
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(kAll, sum, bits);
  result[threadIdx.x] = sum;
}
void shuffles() {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int down = __shfl_down_sync(kAll, lane, 3, 8), up = __shfl_up_sync(kAll, lane, 1);
  const int from = __shfl_sync(kAll, lane, 5, 8);
  const bool right = down == (lane % 8 < 5 ? lane + 3 : lane) && up == (lane == 0 ? 0 : lane - 1) &&
                     from == lane / 8 * 8 + 5 && __ballot_sync(kAll, lane % 2) == 0xAAAAAAAAu &&
                     __any_sync(kAll, lane == 7) && !__all_sync(kAll, lane == 7);
  result[threadIdx.x] = right ? 1.0f : 0.0f;
}

float& of_other_block() {
  const unsigned other = gridDim.x - 1 - blockIdx.x;
  return static_cast<float*>(lv::emulate::shared_of_block(shared(), other))[threadIdx.x % 16];
}
void reads_another_block() {  // every block adds what the other has written
  shared()[threadIdx.x % 16] = static_cast<float>(threadIdx.x % 16 + 100 * blockIdx.x);
  lv::emulate::cluster_arrive();
  lv::emulate::cluster_wait();
  const float sum = shared()[threadIdx.x % 16] + of_other_block();
  lv::emulate::cluster_arrive();
  result[threadIdx.x] = sum;
  lv::emulate::cluster_wait();
}
void reads_a_block_that_has_ended() {
  shared()[threadIdx.x % 16] = 1.0f;
  lv::emulate::cluster_arrive();
  lv::emulate::cluster_wait();
  result[32 * blockIdx.x + threadIdx.x % 32] = of_other_block();
}
void reads_another_block_too_early() {
  shared()[threadIdx.x % 16] = 1.0f;
  result[32 * blockIdx.x + threadIdx.x % 32] = of_other_block();
  lv::emulate::cluster_arrive();
  lv::emulate::cluster_wait();
}
alignas(16) const float source[4] = {1.0f, 2.0f, 3.0f, 4.0f};
void copies(bool waits) {
  if (threadIdx.x == 0) lv::emulate::copy_async(shared(), source);
  lv::emulate::copies_commit();
  if (waits) lv::emulate::copies_wait<0>();
  __syncthreads();
  result[threadIdx.x] = shared()[threadIdx.x % 4];
}
void copies_asynchronously() { copies(true); }
void does_not_wait_for_copies() { copies(false); }

struct Named {
  const char* name;
  void (*kernel)();
};
#define NAMED(kernel) {#kernel, kernel}
const Named kKernels[] = {NAMED(early_return_before_barrier),
                          NAMED(barrier_in_a_branch),
                          NAMED(early_return_before_shuffle),
                          NAMED(different_shuffles),
                          NAMED(lane_outside_its_mask),
                          NAMED(source_outside_the_mask),
                          NAMED(shared_too_far),
                          NAMED(shared_before_its_start),
                          NAMED(misaligned),
                          NAMED(arrives_twice),
                          NAMED(waits_without_arriving),
                          NAMED(leaves_before_the_cluster_meets),
                          NAMED(no_such_block),
                          NAMED(not_shared),
                          NAMED(throws),
                          NAMED(reads_another_block),
                          NAMED(reads_a_block_that_has_ended),
                          NAMED(reads_another_block_too_early),
                          NAMED(copies_asynchronously),
                          NAMED(does_not_wait_for_copies),
                          NAMED(shared_starts_as_nan),
                          NAMED(race_in_order),
                          NAMED(reads_before_a_barrier),
                          NAMED(sums_a_warp),
                          NAMED(shuffles)};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Runs a kernel on blocks of 64 threads with 16 floats of shared memory; the error's text, or "".
EXPORT const char* run_kernel(const char* name, int grid_x, int grid_y, int threads, int shared_bytes, int cluster,
                              float* out) {
  static char message[512];
  message[0] = 0;
  try {
    for (const Named& named : kKernels)
      if (strcmp(name, named.name) == 0)
        lv::emulate::launch(dim3(grid_x, grid_y), dim3(threads), shared_bytes, [&] { named.kernel(); }, cluster);
  } catch (const std::exception& error) {
    snprintf(message, sizeof message, "%s", error.what());
  }
  memcpy(out, result, sizeof result);
  return message;
}
