// How a cluster of blocks keeps a sample in its shared memory, for the one-pass form of instance_norm_plus on a GPU.
//
// Each block of a cluster takes as many of the sample's chunks of pixels (PixelChunks) as the others, the last perhaps
// fewer: its slab, which is one run of memory in channels-last layout. Its threads stand in one or two groups; a group
// sums a chunk at a time, as a block does in the two-kernel form, and so both forms give the same bits.
#pragma once

#include "instance_norm_plus.h"

namespace lv {

struct NormCluster {
  int blocks, chunks, groups;  // blocks of a sample, chunks of a block, chunks at a time; no blocks: see why_not
  int slab_bytes, shared_bytes;
  const char* why_not;

  LV_HD int rounds() const { return (chunks + groups - 1) / groups; }
};

constexpr int kNormGroupThreads = 256, kNormMaxCluster = 8, kNormVectorBytes = 16;

// Floats that a group of threads needs to sum two values of each channel down its rows, or of each thread.
LV_HD int norm_group_sums(int channels, int element_bytes) {
  const int rows = kNormGroupThreads / (channels * element_bytes / kNormVectorBytes), values = rows * channels;
  return 2 * (values > kNormGroupThreads ? values : kNormGroupThreads);
}

inline NormCluster no_norm_cluster(const char* why_not) { return {0, 0, 0, 0, 0, why_not}; }

// The plan with `blocks` blocks where a block may have `limit` bytes of shared memory.
inline NormCluster norm_cluster_of(const ImageShape& shape, bool channels_last, int element_bytes, int64_t limit,
                                   int blocks) {
  constexpr int64_t kMaxVectors = 128;  // those of a pixel, which stand side by side
  const int64_t row = shape.channels * element_bytes;
  if (!channels_last) return no_norm_cluster("the one-pass form is for channels-last memory");
  if (element_bytes > 4) return no_norm_cluster("the one-pass form is for float32, bfloat16 and float16");
  if (shape.elements() == 0) return no_norm_cluster("the one-pass form needs a pixel");
  if (row % kNormVectorBytes != 0) return no_norm_cluster("the channels of a pixel must fill vectors of 16 bytes");
  if (row / kNormVectorBytes > kMaxVectors) return no_norm_cluster("a pixel has too many channels for one block");
  if (blocks != 1 && blocks != 2 && blocks != 4 && blocks != kNormMaxCluster)
    return no_norm_cluster("a cluster must have 1, 2, 4 or 8 blocks");
  const PixelChunks all = pixel_chunks(shape, channels_last);
  const int64_t chunks = (all.count + blocks - 1) / blocks;
  if ((blocks - 1) * chunks >= all.count) return no_norm_cluster("a sample has too few pixels for so many blocks");
  const int64_t groups = chunks > 1 ? 2 : 1, pixels = chunks * all.pixels;
  const int64_t slab = (pixels < shape.pixels ? pixels : shape.pixels) * row;
  const int64_t floats =
      (2 * chunks + 3) * shape.channels + groups * norm_group_sums(static_cast<int>(shape.channels), element_bytes);
  const int64_t shared = slab + floats * static_cast<int64_t>(sizeof(float));
  if (shared > limit) return no_norm_cluster("a sample does not fit the shared memory of so many blocks");
  return {blocks, static_cast<int>(chunks), static_cast<int>(groups), static_cast<int>(slab), static_cast<int>(shared),
          ""};
}

// The plan to begin with: the smallest cluster of at most 4 blocks whose slabs leave room for a second block on the
// multiprocessor, that one loading while this one stores; else the largest cluster that fits.
inline NormCluster norm_cluster(const ImageShape& shape, bool channels_last, int element_bytes, int64_t limit) {
  constexpr int kSlabBytes = 64 * 1024;
  NormCluster last = no_norm_cluster("");
  for (int blocks = 1; blocks <= kNormMaxCluster; blocks *= 2) {
    const NormCluster plan = norm_cluster_of(shape, channels_last, element_bytes, limit, blocks);
    if (plan.blocks != 0 || last.blocks == 0) last = plan;
    if (plan.blocks != 0 && plan.slab_bytes <= kSlabBytes) break;
  }
  return last;
}

// Bytes of shared memory that a block may have on the current GPU, for one that has clusters and a kernel for it; 0
// where the one-pass form cannot run. The kernels are made ready for it.
int64_t norm_cluster_limit(int device);
// How many clusters of this plan the GPU holds at a time.
int norm_clusters_at_once(const NormCluster& plan, int element_bytes);

template <typename T>
void instance_norm_plus_cluster_cuda(const InstanceNormPlus<T>& p, const NormCluster& cluster, void* stream);

}  // namespace lv
