// Convolution 3x3 with stride 1 and zero padding by Winograd's minimal filtering F(4x4, 3x3): 36 products give 16
// outputs, where the definition takes 144. Channels-last float32, for the CPU.
//
//   Lavin and Gray 2016 (arXiv:1509.09308), equations 8 and 12: on tiles of 6x6 inputs d that overlap by two,
//     y = A^T [ sum_c (G w_c G^T) * (B^T d_c B) ] A
//   with the interpolation points 0, 1, -1, 1/2, -2 and infinity, which Barabasz et al. 2020 (arXiv:1803.10986) find to
//   round less than 0, 1, -1, 2, -2:
//     B^T = 1 -3/2   -2  3/2    1    0     G = 1       0      0       A^T = 1  1  1    1   1  0
//           0   -1  1/2  5/2    1    0         1/3     1/3    1/3           0  1 -1  1/2  -2  0
//           0    1 -5/2  1/2    1    0        -1/3     1/3   -1/3           0  1  1  1/4   4  0
//           0   -2   -1    2    1    0        -16/15  -8/15  -4/15          0  1 -1  1/8  -8  1
//           0  1/2   -1 -1/2    1    0         1/15   -2/15   4/15
//           0    1 -3/2   -2  3/2    1         0       0      1
//   A dilation of d makes d^2 interleaved images, each convolved without one. The sum over c goes in runs of kRun
//   channels: the matrices enlarge the rounding of one long sum tenfold.
#pragma once

#include "common.h"

namespace lv {

constexpr int64_t kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr int64_t kVector = 16;  // channels come in so many
constexpr int64_t kPanel = 64;   // outputs that are computed together
constexpr int64_t kRun = 64;     // sums of so many products are added up

struct Winograd {
  const float* x;       // [N, H, W, C]
  const float* weight;  // G w G^T: [36][panels of 64 outputs, the last of 16, 32, 48 or 64][C][panel]
  const float* scale;   // [K], factors of the sums; or null
  const float* bias;    // [K], or null
  const float* add;     // [N, H', W', K], added to the result, may be y; or null
  float* y;             // [N, H', W', K], H' = H, or H / 2 if pooled
  float* scratch;       // `scratch_size` elements
  int64_t samples, height, width, channels, outputs, dilation;
  bool pool;  // y is the mean over 2x2 pixels of the convolution; even H and W, no dilation

  int64_t tiles_along(int64_t size) const { return ((size + dilation - 1) / dilation + kTile - 1) / kTile; }
  int64_t tiles_in_sample() const { return dilation * dilation * tiles_along(height) * tiles_along(width); }
  int64_t tiles() const { return samples * tiles_in_sample(); }
  // Tiles whose transforms are held at a time: enough to pay for reading the weights, few enough for the cache, and
  // about as many each time.
  int64_t block() const {
    constexpr int64_t kElements = 1 << 21, kLeast = 48;
    const int64_t fitting = kElements / (kPoints * (channels + outputs));
    const int64_t most = fitting < kLeast ? kLeast : fitting, times = (tiles() + most - 1) / most;
    return (tiles() + times - 1) / times;
  }
  // From one of the 36 matrices [block, columns] to the next: an odd number of cache lines, as a tile's 36 values at
  // even distances would fall on a few lines of the cache.
  int64_t plane(int64_t columns) const { return (block() * columns / kVector | 1) * kVector; }
  int64_t scratch_size() const { return kPoints * (plane(channels) + plane(outputs)); }
  int64_t gradient_plane() const { return channels * outputs + kVector; }
  int64_t gradient_scratch_size() const { return scratch_size() + kPoints * gradient_plane(); }
};

// The same with 16-bit factors: B^T d B and G w G^T are rounded to integers, and products of integers are added up in
// 32 bits without any rounding. A tile's transform is scaled at each point by its largest value in the run of channels,
// which becomes kLargest; that of the weights by point_scale and scale, so that no sum can leave the 32 bits:
//   kLargest sum_c |weight_c| < 2^31 over the channels of a run.
// A transform that is not finite has a scale that is not, which the result takes over.
struct WinogradInt16 : Winograd {
  // Pair i of a group is its channels i and i + 16, the second zero where there is none.
  static constexpr int64_t kGroup = 2 * kVector;
  static constexpr int64_t kRun = 128;
  static constexpr int kLargest = 7000;

  const int16_t* pairs;      // as Winograd::weight, with pairs [pairs, panel, 2] in place of channels
  const float* point_scale;  // [36], factors of the sums at each point

  int64_t pairs_of_channels() const { return (channels + kGroup - 1) / kGroup * kVector; }
  int64_t runs() const { return (channels + kRun - 1) / kRun; }
  int64_t scales() const { return runs() * kPoints * block(); }
  int64_t scratch_size() const { return kPoints * (plane(pairs_of_channels()) + plane(outputs)) + scales(); }
};

void winograd_cpu(const Winograd& p, int threads);
void winograd_int16_cpu(const WinogradInt16& p, int threads);
const char* why_no_winograd_int16_cpu();       // "" where this CPU runs it
const char* why_winograd_int16_is_slow_cpu();  // "" where it runs and is faster than the form in float32

// For training: y is linear in w, so that with g = dL/dy
//   dL/dx is the convolution of g with the transposed weight, w'_ck = w_kc turned by half a turn;
//   dL/dw_kc = G^T [ sum over tiles of (A g_k A^T) * (B^T d_c B) ] G
constexpr int64_t kTaps = 9;

struct WinogradWeight {
  const float* weight;        // [K, 3, 3, C]; transposed: [C, 3, 3, K]
  float* points;              // Winograd::weight
  int64_t channels, outputs;  // C and K, those of the convolution that the result is for
  bool transposed;
};

void winograd_weight_cpu(const WinogradWeight& p, int threads);

// p: x, the sizes without pool, and scratch of `gradient_scratch_size` elements.
void winograd_weight_gradient_cpu(const Winograd& p,
                                  const float* grad_y,  // [N, H, W, K]
                                  float* grad_weight,   // [K, 3, 3, C]
                                  int threads);

}  // namespace lv
