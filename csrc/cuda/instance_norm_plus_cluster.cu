// The one-pass form of instance_norm_plus: a cluster of blocks keeps a sample in its shared memory, so that it is read
// once and written once. For sm_90 and newer; csrc/norm_cluster.h says where it applies. Bit for bit the two-kernel
// form: the same threads' sums of the same chunks, merged in the same order.
#include <atomic>

#include "../norm_cluster.h"
#include "cluster.h"
#include "device.h"
#include "norm_moments.h"

namespace lv {
namespace {

static_assert(kNormGroupThreads == kThreads, "a group of threads sums a chunk as a block of the two-kernel form does");

constexpr int kMaxGroups = 2;

#if defined(LV_HAS_CLUSTERS)

// What this thread works on: vectors of one column of the chunks that its group takes, one in a round.
template <typename T>
struct ClusterTile {
  static constexpr int kLanes = VectorAccess<T>::kLanes;
  int group, thread, row, slot, step;
  int first;  // the block's first chunk

  __device__ ClusterTile(const NormGrid& g, const NormCluster& cluster)
      : group(static_cast<int>(threadIdx.x) / kThreads),
        thread(static_cast<int>(threadIdx.x) % kThreads),
        row(thread / g.columns),
        slot(thread % g.columns * kLanes),
        step(g.rows * g.slots),
        first(static_cast<int>(blockIdx.x) * cluster.chunks) {}

  // A round's chunk, counted within the block; the last groups of the last round may have none.
  __device__ int chunk(const NormCluster& cluster, int round) const { return round * cluster.groups + group; }
  __device__ int pixels(const NormPlan<float>& p, const NormCluster& cluster, int chunk) const {
    const int whole = static_cast<int>(p.chunks.pixels);
    const int left = static_cast<int>(p.shape.pixels) - (first + chunk) * whole;
    return chunk < cluster.chunks ? max(min(left, whole), 0) : 0;
  }
  // Calls body(place in the slab, fetch(place)) for the thread's vectors of a chunk, fetching kAtOnce of them ahead.
  template <int kAtOnce, typename Fetch, typename Body>
  __device__ void for_places(const NormPlan<float>& p, const NormGrid& g, const NormCluster& cluster, int chunk,
                             const Fetch& fetch, const Body& body) const {
    const int count = row < g.rows ? pixels(p, cluster, chunk) : 0;
    int place = (chunk * static_cast<int>(p.chunks.pixels) + row) * g.slots + slot;
#pragma unroll 1
    for (int pixel = row; pixel < count; pixel += kAtOnce * g.rows, place += kAtOnce * step) {
      decltype(fetch(place)) fetched[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
        if (pixel + u * g.rows < count) fetched[u] = fetch(place + u * step);
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
        if (pixel + u * g.rows < count) body(place + u * step, fetched[u]);
    }
  }
};

// Waits until the round's chunk has arrived; those of later rounds may still be on their way.
__device__ inline void wait_for_round(int round, int rounds) {
  if (rounds - round > 2)
    copies_wait<2>();
  else if (rounds - round == 2)
    copies_wait<1>();
  else
    copies_wait<0>();
}

// The moments of the round's chunk, into partial[C] and partial[C + ...]: as moments_kernel of the two-kernel form.
template <typename T, typename Places>
__device__ void sum_chunk(const NormPlan<float>& p, const NormGrid& g, const ClusterTile<T>& tile, float pixels,
                          const T* slab, float* sums, float* partial, float (&sum)[1][ClusterTile<T>::kLanes],
                          const Places& for_places) {
  constexpr int kLanes = ClusterTile<T>::kLanes;
  const VectorAccess<T> access;
  const int channels = g.slots, stored = pixels > 0.0f ? channels : 0;
  sum_down_rows(sums, tile.thread, g.rows, g.slots, tile.row, tile.slot, 1, sum);
#pragma unroll 1
  for (int c = tile.thread; c < stored; c += kThreads) partial[c] = __fdividef(sums[c], pixels);
  __syncthreads();
  float centre[kLanes], moments[2][kLanes] = {};
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) centre[lane] = stored == 0 ? 0.0f : partial[tile.slot + lane];
  for_places([&](int, const auto& v) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const float d = access.value(v, lane) - centre[lane];
      moments[0][lane] += d;
      moments[1][lane] = fma(d, d, moments[1][lane]);
    }
  });
  sum_down_rows(sums, tile.thread, g.rows, g.slots, tile.row, tile.slot, 1, moments);
#pragma unroll 1
  for (int c = tile.thread; c < stored; c += kThreads)
    chunk_moments(pixels, partial[c], sums[c], sums[g.rows * g.slots + c], partial[c], partial[channels + c]);
  __syncthreads();  // before the next round's sums
}

#endif

template <typename T>
__global__ void __launch_bounds__(kMaxGroups* kThreads, 2)
    one_pass_kernel(NormPlan<float> p, NormImages images, NormGrid g, NormCluster cluster) {
#if defined(LV_HAS_CLUSTERS)
  constexpr int kLanes = ClusterTile<T>::kLanes;
  using Stored = typename VectorAccess<T>::Stored;
  const VectorAccess<T> access;
  const ClusterTile<T> tile(g, cluster);
  LV_SHARED(unsigned char, shared);
  T* slab = reinterpret_cast<T*>(shared);
  float* partials = reinterpret_cast<float*>(shared + cluster.slab_bytes);  // [chunks][2][C]
  const SlotCoefficients slots(partials + 2 * cluster.chunks * g.slots, g);
  float* sums = slots.biases + g.slots + tile.group * norm_group_sums(g.slots, static_cast<int>(sizeof(T)));
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    const int64_t from = (sample * p.shape.pixels + tile.first * p.chunks.pixels) * g.slots;
#pragma unroll 1
    for (int round = 0; round < cluster.rounds(); ++round) {
      tile.template for_places<4>(
          p, g, cluster, tile.chunk(cluster, round), [](int place) { return place; },
          [&](int place, int) { copy_async(slab + place, static_cast<const T*>(images.x) + from + place); });
      copies_commit();
    }
#pragma unroll 1
    for (int round = 0; round < cluster.rounds(); ++round) {
      const int chunk = tile.chunk(cluster, round);
      float sum[1][kLanes] = {};
      wait_for_round(round, cluster.rounds());
      const auto add = [&](const float (&values)[kLanes]) {
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) sum[0][lane] += values[lane];
      };
      const auto of_slab = [&](int place) { return access.read(slab, place); };
      if (images.residual == nullptr) {
        tile.template for_places<1>(p, g, cluster, chunk, of_slab, [&](int, const auto& v) {
          float values[kLanes];
#pragma unroll
          for (int lane = 0; lane < kLanes; ++lane) values[lane] = access.value(v, lane);
          add(values);
        });
      } else {  // the sum takes the place of x, rounded as where it is written
        float bias[kLanes];
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) bias[lane] = sum_bias(images, tile.slot + lane);
        const auto of_residual = [&](int place) { return access.read(images.residual, from + place); };
        tile.template for_places<2>(p, g, cluster, chunk, of_residual, [&](int place, const auto& other) {
          const auto v = access.read(slab, place);
          float values[kLanes];
#pragma unroll
          for (int lane = 0; lane < kLanes; ++lane)
            values[lane] = access.value(v, lane) + access.value(other, lane) + bias[lane];
          const Stored total = access.stored(values);
          *reinterpret_cast<Stored*>(slab + place) = total;
          total.write(static_cast<T*>(images.sum) + from + place);
#pragma unroll
          for (int lane = 0; lane < kLanes; ++lane) values[lane] = access.value(total, lane);
          add(values);
        });
      }
      sum_chunk<T>(p, g, tile, static_cast<float>(tile.pixels(p, cluster, chunk)), slab, sums,
                   partials + 2 * chunk * g.slots, sum,
                   [&](const auto& body) { tile.template for_places<1>(p, g, cluster, chunk, of_slab, body); });
    }
    cluster_arrive();
    cluster_wait();  // every block's partials are there
#pragma unroll 1
    for (int c = static_cast<int>(threadIdx.x); c < g.slots; c += static_cast<int>(blockDim.x)) {
      const auto partial = [&](int chunk) {
        return shared_of_block(partials + 2 * (chunk % cluster.chunks) * g.slots,
                               static_cast<unsigned>(chunk / cluster.chunks));
      };
      float mean, squares;
      merged_moments(p, c, partial, mean, squares);
      slots.means[c] = mean, slots.scales[c] = squares;  // the squares wait where the scales will be
    }
    cluster_arrive();  // this thread has read what it needs of the others
    __syncthreads();
    float m, q;
    spread_of_means(p, tile.thread, sums, [&](int64_t c) { return p.biased_mean(c, slots.means[c]); }, m, q);
    float* stats = p.sample_stats(sample);
#pragma unroll 1
    for (int c = static_cast<int>(threadIdx.x); c < g.slots; c += static_cast<int>(blockDim.x)) {
      const float mean = slots.means[c], r = root_of_variance(p, slots.scales[c]);
      slots.set(c, p.coefficients(p.affine(sample, c), mean, p.biased_mean(c, mean), r, m, q));
      if (blockIdx.x == 0) stats[c] = mean, stats[g.slots + c] = r;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) stats[2 * g.slots] = m, stats[2 * g.slots + 1] = q;
    __syncthreads();
    NormCoefficients<float> k[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane)
      k[lane] = {slots.means[tile.slot + lane], slots.scales[tile.slot + lane], slots.biases[tile.slot + lane]};
#pragma unroll 1
    for (int round = 0; round < cluster.rounds(); ++round) {
      const auto of_slab = [&](int place) { return access.read(slab, place); };
      tile.template for_places<1>(p, g, cluster, tile.chunk(cluster, round), of_slab, [&](int place, const auto& v) {
        float values[kLanes];
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) {
          values[lane] = k[lane](access.value(v, lane));
          if (p.elu) values[lane] = access.elu(values[lane]);
        }
        access.write(images.y, from + place, values);
      });
    }
    cluster_wait();  // the others have read this block's partials: it may end, or write the next sample's
  }
#endif
}

template <typename Use>
auto with_kernel(int element_bytes, const Use& use) {
  return element_bytes == 4 ? use(one_pass_kernel<float>) : use(one_pass_kernel<float16>);
}

}  // namespace

#if defined(LV_EMULATE)

int64_t norm_cluster_limit(int) { return 227 * 1024; }
int norm_clusters_at_once(const NormCluster&, int) { return 1; }

#else

int64_t norm_cluster_limit(int device) {
  constexpr int kDevices = 64;
  static std::atomic<int64_t> known[kDevices];  // the limit + 1, so that a launch asks the runtime nothing
  if (device < kDevices && known[device] > 0) return known[device] - 1;
  const int64_t limit = cluster_limit(device, {reinterpret_cast<const void*>(one_pass_kernel<float>),
                                               reinterpret_cast<const void*>(one_pass_kernel<float16>),
                                               reinterpret_cast<const void*>(one_pass_kernel<bfloat16>)});
  if (device < kDevices) known[device] = limit + 1;
  return limit;
}

int norm_clusters_at_once(const NormCluster& plan, int element_bytes) {
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config =
      cluster_launch(attribute, plan.blocks, plan.blocks, plan.groups * kThreads, plan.shared_bytes, nullptr);
  int clusters = 0;
  with_kernel(element_bytes, [&](auto kernel) {
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "cudaOccupancyMaxActiveClusters");
  });
  return clusters;
}

#endif

template <typename T>
void instance_norm_plus_cluster_cuda(const InstanceNormPlus<T>& p, const NormCluster& cluster, void* stream) {
  const NormGrid g = norm_grid(p.plan, VectorAccess<T>::kLanes);
  const dim3 blocks(static_cast<unsigned>(cluster.blocks),
                    static_cast<unsigned>(std::min(p.plan.shape.samples, kMaxGridY)));
  const NormImages images{p.x, p.residual, p.sum, p.y, p.bias};
  LV_LAUNCH_CLUSTER(one_pass_kernel<T>, cluster.blocks, blocks, cluster.groups * kThreads, cluster.shared_bytes, stream,
                    p.plan, images, g, cluster);
}

template void instance_norm_plus_cluster_cuda(const InstanceNormPlus<float>&, const NormCluster&, void*);
template void instance_norm_plus_cluster_cuda(const InstanceNormPlus<bfloat16>&, const NormCluster&, void*);
template void instance_norm_plus_cluster_cuda(const InstanceNormPlus<float16>&, const NormCluster&, void*);

}  // namespace lv
