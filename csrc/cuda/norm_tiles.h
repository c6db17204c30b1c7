// How blocks of threads divide an image for instance_norm_plus, in both memory layouts, and how they sum.
//
// A block takes one chunk of pixels of some channels. Its threads stand in `rows` x `columns`; each walks over vectors
// of kLanes neighbouring elements, and its neighbours down the column take the vectors between.
//   channels-last:  a column is kLanes channels, which have a sum (a slot) each; a step goes `rows` pixels on
//   contiguous:     a column is one channel, one slot for all its lanes;         a step goes `rows` vectors on
#pragma once

#include <cfloat>

#include "../instance_norm_plus.h"
#include "launch.h"
#include "vector.h"

namespace lv {

struct NormGrid {
  int rows, columns, slots;
  unsigned channel_tiles;  // blocks side by side in a chunk
};

template <typename A>
NormGrid norm_grid(const NormPlan<A>& p, int lanes) {
  constexpr int64_t kMaxRows = 32, kMaxColumns = 128;
  if (p.channels_last) {
    const int64_t vectors = p.shape.channels / lanes, columns = std::min(vectors, kMaxColumns);
    return {static_cast<int>(kThreads / columns), static_cast<int>(columns), static_cast<int>(columns * lanes),
            static_cast<unsigned>((vectors + columns - 1) / columns)};
  }
  int64_t rows = 1;
  while (rows < kMaxRows && rows * lanes < std::min(p.chunks.pixels, p.shape.pixels)) rows *= 2;
  const int64_t columns = kThreads / rows;
  return {static_cast<int>(rows), static_cast<int>(columns), static_cast<int>(columns),
          static_cast<unsigned>((p.shape.channels + columns - 1) / columns)};
}

template <typename A>
dim3 norm_blocks(const NormPlan<A>& p, const NormGrid& g) {
  return dim3(static_cast<unsigned>(p.chunks.count * g.channel_tiles),
              static_cast<unsigned>(std::min(p.shape.samples, kMaxGridY)));
}

// `arrays` values for each slot, then room for block_sum of two values.
inline int norm_shared_bytes(const NormGrid& g, int arrays) {
  return static_cast<int>(sizeof(float)) * (arrays * g.slots + 2 * std::max(g.rows * g.slots, kThreads));
}

// How elements are moved: 16 bytes at a time, or one by one where that does not fit, for all types in one kernel.
template <typename T, int kCount = 16 / sizeof(T)>
struct VectorAccess {
  static constexpr int kLanes = kCount, kInFlight = 2;
  using Stored = Vector<T, kLanes>;

  __device__ Stored read(const void* image, int64_t at) const {
    return Stored::read(static_cast<const T*>(image) + at);
  }
  __device__ float value(const Stored& stored, int lane) const { return load(stored.lane[lane]); }
  __device__ Stored stored(const float (&values)[kLanes]) const {
    Stored result;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int lane = 0; lane < kLanes; lane += 2) {
        const uint32_t pair = store_pair<T>(values[lane], values[lane + 1]);
        memcpy(&result.lane[lane], &pair, sizeof(pair));
      }
    } else
#endif
    {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) result.lane[lane] = store<T>(values[lane]);
    }
    return result;
  }
  __device__ void write(void* image, int64_t at, const float (&values)[kLanes]) const {
    stored(values).write(static_cast<T*>(image) + at);
  }
  __device__ float rounded(float a) const { return load(store<T>(a)); }
  __device__ float elu(float a) const { return sizeof(T) == 2 ? coarse_elu(a) : lv::elu(a); }

  // Whether vectors never cross the end of a row and are aligned.
  static bool fits(const NormPlan<float>& p, std::initializer_list<const void*> images) {
    if ((p.channels_last ? p.shape.channels : p.shape.pixels) % kLanes != 0) return false;
    return std::all_of(images.begin(), images.end(), [](const void* image) { return is_aligned<T, kLanes>(image); });
  }
};

struct ScalarAccess {
  static constexpr int kLanes = 1, kInFlight = 1;
  using Stored = uint32_t;  // float's bits, or 16 bits
  enum Kind { kFloat, kBfloat16, kFloat16 } kind;

  template <typename T>
  static ScalarAccess of() {
    return {std::is_same_v<T, float> ? kFloat : std::is_same_v<T, bfloat16> ? kBfloat16 : kFloat16};
  }
  __device__ Stored read(const void* image, int64_t at) const {
    if (kind == kFloat) return static_cast<const uint32_t*>(image)[at];
    return static_cast<const uint16_t*>(image)[at];
  }
  __device__ float value(Stored bits, int) const {
    if (kind == kFloat) return bit_cast<float>(bits);
    const uint16_t low = static_cast<uint16_t>(bits);
    return kind == kBfloat16 ? load(bfloat16{low}) : load(float16{low});
  }
  __device__ void write(void* image, int64_t at, const float (&values)[1]) const {
    if (kind == kFloat)
      static_cast<float*>(image)[at] = values[0];
    else
      static_cast<uint16_t*>(image)[at] = narrowed(values[0]);
  }
  __device__ float rounded(float a) const { return kind == kFloat ? a : value(narrowed(a), 0); }
  __device__ float elu(float a) const { return kind == kFloat ? lv::elu(a) : coarse_elu(a); }

 private:
  __device__ uint16_t narrowed(float a) const {
    return kind == kBfloat16 ? store<bfloat16>(a).bits : store<float16>(a).bits;
  }
};

// What this thread of this block works on.
template <int kLanes>
struct NormTile {
  int chunk, channel;    // the block's chunk and first channel
  int channels, pixels;  // how many it has of them, and of the chunk's pixels
  int64_t offset;        // the thread's vectors: offset + i step from the start of the sample, i < count
  int step, count;
  int row, slot;   // where it stands; slot of lane 0
  int lane_slots;  // 1 where each lane has a slot, else 0

  __device__ NormTile(const NormPlan<float>& p, const NormGrid& g) {
    chunk = static_cast<int>(blockIdx.x / g.channel_tiles);
    channel = static_cast<int>(blockIdx.x % g.channel_tiles) * g.slots;
    channels = p.shape.channels - channel < g.slots ? static_cast<int>(p.shape.channels - channel) : g.slots;
    row = static_cast<int>(threadIdx.x) / g.columns;
    lane_slots = p.channels_last ? 1 : 0;
    slot = static_cast<int>(threadIdx.x) % g.columns * (p.channels_last ? kLanes : 1);
    const int64_t begin = chunk * p.chunks.pixels;
    pixels = static_cast<int>(p.chunk_size(chunk));
    const int vectors = p.channels_last ? pixels : pixels / kLanes;
    if (p.channels_last) {
      offset = (begin + row) * p.shape.channels + channel + slot;
      step = g.rows * static_cast<int>(p.shape.channels);
    } else {
      offset = (channel + slot) * p.shape.pixels + begin + row * kLanes;
      step = g.rows * kLanes;
    }
    count = row < g.rows && row < vectors && slot < channels ? (vectors - row - 1) / g.rows + 1 : 0;
  }
  __device__ int slot_of(int lane) const { return slot + lane * lane_slots; }
};

// Calls body(place, values[kImages][kLanes]) for the thread's vectors of several images. kInFlight vectors in all are
// asked for before the first is used, so that memory always has work.
template <int kImages, typename Access, typename Body>
__device__ void for_vectors(const Access& access, const void* const (&images)[kImages], int64_t from,
                            const NormTile<Access::kLanes>& tile, const Body& body) {
  constexpr int kUnroll = Access::kInFlight > kImages ? Access::kInFlight / kImages : 1;
#pragma unroll 1
  for (int i = 0; i < tile.count; i += kUnroll) {
    typename Access::Stored stored[kUnroll][kImages];
    float values[kImages][Access::kLanes];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u >= tile.count) continue;
#pragma unroll
      for (int image = 0; image < kImages; ++image)
        stored[u][image] = access.read(images[image], from + static_cast<int64_t>(i + u) * tile.step);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u >= tile.count) continue;
#pragma unroll
      for (int lane = 0; lane < kImages * Access::kLanes; ++lane)
        values[lane / Access::kLanes][lane % Access::kLanes] =
            access.value(stored[u][lane / Access::kLanes], lane % Access::kLanes);
      body(from + static_cast<int64_t>(i + u) * tile.step, values);
    }
  }
}

// sums[a][s] <- value a summed over `rows` threads and, where they share the slot, over their lanes; a < kCount,
// s < slots, [kCount][rows * slots] in memory. In a fixed order, by kThreads threads, of which the caller is number
// `thread`; the whole block must call. All threads must have left `sums` before.
template <int kCount, int kLanes>
__device__ void sum_down_rows(float* sums, int thread, int rows, int slots, int row, int slot, int lane_slots,
                              const float (&value)[kCount][kLanes]) {
  const int size = rows * slots;
  if (row < rows) {
#pragma unroll
    for (int a = 0; a < kCount; ++a) {
      float* to = sums + a * size + row * slots + slot;
      if (lane_slots) {
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) to[lane] = value[a][lane];
      } else {
        float sum = value[a][0];
#pragma unroll
        for (int lane = 1; lane < kLanes; ++lane) sum += value[a][lane];
        *to = sum;
      }
    }
  }
  __syncthreads();
  for (int live = rows; live > 1; live = (live + 1) / 2) {  // the upper half of the rows is added to the lower
    const int half = (live + 1) / 2 * slots;
#pragma unroll 1
    for (int i = thread; i + half < live * slots; i += kThreads) {
#pragma unroll
      for (int a = 0; a < kCount; ++a) sums[a * size + i] += sums[a * size + i + half];
    }
    __syncthreads();
  }
}

template <int kCount, int kLanes>
__device__ void sum_tile(float* sums, const NormGrid& g, const NormTile<kLanes>& tile,
                         const float (&value)[kCount][kLanes]) {
  sum_down_rows(sums, static_cast<int>(threadIdx.x), g.rows, g.slots, tile.row, tile.slot, tile.lane_slots, value);
}

// value[a] <- its sum over kThreads threads, the same in each; `thread` is the caller's number among them.
template <int kCount>
__device__ void block_sum(float* sums, int thread, float (&value)[kCount][1]) {
  sum_down_rows(sums, thread, kThreads, 1, thread, 0, 1, value);
#pragma unroll
  for (int a = 0; a < kCount; ++a) value[a][0] = sums[a * kThreads];
  __syncthreads();
}

// The coefficients of the slots as three arrays in shared memory.
struct SlotCoefficients {
  float *means, *scales, *biases;

  __device__ SlotCoefficients(float* shared, const NormGrid& g)
      : means(shared), scales(shared + g.slots), biases(shared + 2 * g.slots) {}
  __device__ void set(int slot, const NormCoefficients<float>& k) const {
    means[slot] = k.mean, scales[slot] = k.scale, biases[slot] = k.bias;
  }
  template <typename Tile, int kLanes>
  __device__ void of_lanes(const Tile& tile, NormCoefficients<float> (&k)[kLanes]) const {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const int slot = tile.slot_of(lane);
      k[lane] = {means[slot], scales[slot], biases[slot]};
    }
  }
};

// 1 / sqrt(v) to about one unit in the last place; unlike 1.0f / sqrtf(v) without a branch to rare cases. 0 of
// infinity, which without the bound would be infinity times 0.
__device__ inline float inverse_root(float v) {
  const float r = rsqrtf(v);
  return r * fma(-0.5f * fminf(v, FLT_MAX) * r, r, 1.5f);
}

}  // namespace lv
