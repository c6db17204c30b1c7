#include "norm_pool.h"

namespace lv {
namespace {

// The thread's sums of what is normalised; with a residual the sum is written on the way, and added as rounded there.
template <typename Access>
__device__ void sum_inputs(const NormImages& images, const Access& access, const NormTile<Access::kLanes>& tile,
                           int64_t from, float (&sum)[1][Access::kLanes]) {
  constexpr int kLanes = Access::kLanes;
  if (images.residual == nullptr) {
    for_vectors<1>(access, {images.x}, from, tile, [&](int64_t, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) sum[0][lane] += v[0][lane];
    });
    return;
  }
  if (tile.count == 0) return;  // its slots may be beyond the channels
  float bias[kLanes];
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) bias[lane] = sum_bias(images, tile.channel + tile.slot_of(lane));
  for_vectors<2>(access, {images.x, images.residual}, from, tile, [&](int64_t at, auto& v) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane)
      sum[0][lane] += v[0][lane] = access.rounded(v[0][lane] + v[1][lane] + bias[lane]);
    access.write(images.sum, at, v[0]);
  });
}

template <int kLanes>
__device__ void write_partials(const NormPlan<float>& p, const NormGrid& g, const NormTile<kLanes>& tile,
                               int64_t sample, const float* centres, const float* sums) {
  const float pixels = static_cast<float>(tile.pixels);
  float* partial = p.partial(sample, tile.chunk) + tile.channel;
#pragma unroll 1
  for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads)
    chunk_moments(pixels, centres[slot], sums[slot], sums[g.rows * g.slots + slot], partial[slot],
                  partial[p.shape.channels + slot]);
}

// The partial statistics of a chunk in two passes: its mean, then the deviations from it and their squares. The second
// pass reads back what the same thread wrote.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    moments_kernel(NormPlan<float> p, NormImages images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  float *centres = shared, *sums = shared + g.slots;  // [slots], [2][rows * slots]
  const NormTile<kLanes> tile(p, g);
  for (int64_t sample = blockIdx.y; sample < p.shape.samples; sample += gridDim.y) {
    const int64_t from = sample * p.shape.elements() + tile.offset;
    float sum[1][kLanes] = {}, centre[kLanes], moments[2][kLanes] = {};
    sum_inputs(images, access, tile, from, sum);
    sum_tile(sums, g, tile, sum);
#pragma unroll 1
    for (int slot = static_cast<int>(threadIdx.x); slot < g.slots; slot += kThreads)
      centres[slot] = __fdividef(sums[slot], static_cast<float>(tile.pixels));
    __syncthreads();
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) centre[lane] = centres[tile.slot_of(lane)];
    for_vectors<1>(access, {images.residual != nullptr ? images.sum : images.x}, from, tile, [&](int64_t, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const float d = v[0][lane] - centre[lane];
        moments[0][lane] += d;
        moments[1][lane] = fma(d, d, moments[1][lane]);
      }
    });
    sum_tile(sums, g, tile, moments);
    write_partials(p, g, tile, sample, centres, sums);
    __syncthreads();  // before the next sample's sums
  }
}

// The coefficients of the block's slots; the statistics are saved by the blocks of the first chunk.
template <typename Tile>
__device__ void make_coefficients(const NormPlan<float>& p, const Tile& tile, int64_t sample, float m, float q,
                                  const SlotCoefficients& slots) {
  const int64_t channels = p.shape.channels;
  float* stats = p.sample_stats(sample);
#pragma unroll 1
  for (int slot = static_cast<int>(threadIdx.x); slot < tile.channels; slot += kThreads) {
    const int64_t c = tile.channel + slot;
    float mean, squares;
    merged_moments(p, c, [&](int chunk) { return p.partial(sample, chunk); }, mean, squares);
    const float r = root_of_variance(p, squares);
    slots.set(slot, p.coefficients(p.affine(sample, c), mean, p.biased_mean(c, mean), r, m, q));
    if (tile.chunk == 0) stats[c] = mean, stats[channels + c] = r;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) stats[2 * channels] = m, stats[2 * channels + 1] = q;
}

// The coefficients of the block's slots in shared memory, for all its threads.
template <typename Tile>
__device__ void prepare_sample(const NormPlan<float>& p, const Tile& tile, int64_t sample, float* sums,
                               const SlotCoefficients& slots) {
  float m, q;
  const auto mean_of = [&](int64_t channel) {
    float mean, squares;
    merged_moments(p, channel, [&](int chunk) { return p.partial(sample, chunk); }, mean, squares);
    return p.biased_mean(channel, mean);
  };
  spread_of_means(p, static_cast<int>(threadIdx.x), sums, mean_of, m,
                  q);  // and its barriers keep the slots until all threads have read them
  make_coefficients(p, tile, sample, m, q, slots);
  __syncthreads();
}

// The last samples that the first kernel read are the first here: they may still be in the cache.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 4)
    normalise_kernel(NormPlan<float> p, NormImages images, Access access, NormGrid g) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  const SlotCoefficients slots(shared, g);
  const NormTile<kLanes> tile(p, g);
  for (int64_t back = blockIdx.y; back < p.shape.samples; back += gridDim.y) {
    const int64_t sample = p.shape.samples - 1 - back;
    prepare_sample(p, tile, sample, shared + 3 * g.slots, slots);
    NormCoefficients<float> k[kLanes];
    slots.of_lanes(tile, k);
    const int64_t from = sample * p.shape.elements() + tile.offset;
    for_vectors<1>(access, {images.residual != nullptr ? images.sum : images.x}, from, tile, [&](int64_t at, auto& v) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        v[0][lane] = k[lane](v[0][lane]);
        if (p.elu) v[0][lane] = access.elu(v[0][lane]);
      }
      access.write(images.y, at, v[0]);
    });
  }
}

// A block takes a strip of rows, in it g.rows pairs of columns side by side, and the channels of a tile.
struct PoolGrid {
  PoolImage image;
  int rows, strips, sides;
};

PoolGrid pool_grid(const NormPlan<float>& p, const NormGrid& g, int64_t width) {
  constexpr int kRows = 16;  // each strip reads 4 rows of its neighbours
  const PoolImage image{static_cast<int>(width), static_cast<int>(p.shape.pixels / width)};
  const int strips = (image.height + kRows - 1) / kRows, across = kPoolColumns * g.rows;
  const int pairs = (image.height + strips * kPoolRows - 1) / (strips * kPoolRows);
  return {image, pairs * kPoolRows, strips, (image.width + across - 1) / across};
}

// What this thread of this block works on: two columns of a strip.
template <int kLanes>
struct PoolTile {
  int chunk, channel, channels;  // the block among those of its channels, its first channel and how many it has
  int x, top, bottom;            // no rows: nothing
  int slot, lane_slots;          // as NormTile's

  __device__ PoolTile(const NormPlan<float>& p, const NormGrid& g, const PoolGrid& pool) {
    chunk = static_cast<int>(blockIdx.x / g.channel_tiles);
    channel = static_cast<int>(blockIdx.x % g.channel_tiles) * g.slots;
    channels = p.shape.channels - channel < g.slots ? static_cast<int>(p.shape.channels - channel) : g.slots;
    const int row = static_cast<int>(threadIdx.x) / g.columns;
    lane_slots = p.channels_last ? 1 : 0;
    slot = static_cast<int>(threadIdx.x) % g.columns * (p.channels_last ? kLanes : 1);
    x = kPoolColumns * (chunk % pool.sides * g.rows + row);
    top = chunk / pool.sides * pool.rows;
    bottom = row < g.rows && slot < channels && x < pool.image.width ? min(top + pool.rows, pool.image.height) : top;
  }
  __device__ int slot_of(int lane) const { return slot + lane * lane_slots; }
};

// As normalise_kernel, with the mean over 5x5 pixels behind it.
template <typename Access>
__global__ void __launch_bounds__(kThreads, 3)
    normalise_pool_kernel(NormPlan<float> p, NormImages images, Access access, NormGrid g, PoolGrid pool) {
  constexpr int kLanes = Access::kLanes;
  LV_SHARED(float, shared);
  const SlotCoefficients slots(shared, g);
  const PoolTile<kLanes> tile(p, g, pool);
  for (int64_t back = blockIdx.y; back < p.shape.samples; back += gridDim.y) {
    const int64_t sample = p.shape.samples - 1 - back;
    prepare_sample(p, tile, sample, shared + 3 * g.slots, slots);
    if (tile.top >= tile.bottom) continue;
    NormCoefficients<float> k[kLanes];
    slots.of_lanes(tile, k);
    const void* image = images.residual != nullptr ? images.sum : images.x;
    const int stride = p.channels_last ? static_cast<int>(p.shape.channels) : 1;
    const int64_t row = static_cast<int64_t>(stride) * pool.image.width;
    const int64_t from = sample * p.shape.elements() +
                         (tile.channel + tile.slot) * (p.channels_last ? 1 : p.shape.pixels) +
                         (tile.top - kPoolReach) * row + static_cast<int64_t>(tile.x) * stride;
    const typename Access::Pixels pixels(access, image, images.y, from, stride, row);
    if (tile.x >= kPoolReach && tile.x + kPoolColumns + kPoolReach <= pool.image.width)
      pool_columns<true>(access, pool.image, tile.x, tile.top, tile.bottom, k, pixels);
    else
      pool_columns<false>(access, pool.image, tile.x, tile.top, tile.bottom, k, pixels);
  }
}

template <typename Access>
void launch(const NormPlan<float>& p, const NormImages& images, Access access, bool normalises, void* stream) {
  const NormGrid g = norm_grid(p, Access::kLanes);
  const dim3 blocks = norm_blocks(p, g);
  LV_LAUNCH(moments_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 1), stream, p, images, access, g);
  if (normalises)
    LV_LAUNCH(normalise_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 3), stream, p, images, access, g);
}

// Instead of normalise_kernel.
template <typename Access>
void launch_pool(const NormPlan<float>& p, const NormImages& images, Access access, int64_t width, void* stream) {
  const NormGrid g = norm_grid(p, Access::kLanes);
  const PoolGrid pool = pool_grid(p, g, width);
  const dim3 blocks(static_cast<unsigned>(pool.strips * pool.sides) * g.channel_tiles, norm_blocks(p, g).y);
  LV_LAUNCH(normalise_pool_kernel<Access>, blocks, kThreads, norm_shared_bytes(g, 3), stream, p, images, access, g,
            pool);
}

}  // namespace

template <typename T>
void instance_norm_plus_cuda(const InstanceNormPlus<T>& p, void* stream) {
  const NormImages images{p.x, p.residual, p.sum, p.y, p.bias};
  const bool pools = p.pooled_width > 0;
  if (VectorAccess<T>::fits(p.plan, {p.x, p.residual, p.sum, p.y}))
    launch(p.plan, images, VectorAccess<T>(), !pools, stream);
  else
    launch(p.plan, images, ScalarAccess::of<T>(), !pools, stream);
  if (!pools) return;
  if (p.plan.channels_last && PoolAccess<T>::fits(p.plan, {p.normalised(), p.y}))
    launch_pool(p.plan, images, PoolAccess<T>(), p.pooled_width, stream);
  else
    launch_pool(p.plan, images, PoolSingleAccess{ScalarAccess::of<T>()}, p.pooled_width, stream);
}

template void instance_norm_plus_cuda(const InstanceNormPlus<float>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<bfloat16>&, void*);
template void instance_norm_plus_cuda(const InstanceNormPlus<float16>&, void*);

}  // namespace lv
