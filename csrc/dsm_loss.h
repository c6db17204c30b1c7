// The loss of denoising score matching and its gradient, one pass over the score:
//
//   loss_n = 1/2 sigma^(p-2) sum_e (sigma s + z)^2,      grad = sigma^(p-1) (sigma s + z)
//
// Vincent 2011; Song and Ermon 2019 (arXiv:1907.05600), equations 5 and 6 with lambda = sigma^p. In this form nothing
// is divided by sigma. z is noise_normals of the counter: the noise that perturb added, never stored.
//
// The sum is a tree of fixed shape over pieces of kDsmChunk elements, cut as a CUDA block holds them, so that the bits
// of the loss depend neither on threads, batch or memory format nor on the device:
//   4 neighbours in order -> 32 by halving -> 8 in order -> the pieces, in float64: 32 interleaved sums, by halving.
#pragma once

#include "half.h"
#include "images.h"
#include "philox.h"

namespace lv {

constexpr int kDsmLanes = 256;  // sums of four, one to a CUDA thread
constexpr int kDsmChunk = 4 * kDsmLanes;
constexpr int kWarp = 32;

template <typename T>
struct DsmLoss {
  const T* score;            // [N, C, P]
  const Compute<T>* sigma;   // [N]
  const Compute<T>* weight;  // [N] sigma^(p-2), or null: 1
  Compute<T>* loss;          // [N]
  T* grad;                   // [N, C, P] in score's memory format, or null
  Compute<T>* partials;      // [N, chunks()]
  ImageShape shape;
  bool channels_last;
  NoiseKey key;
  uint32_t first;  // global index of sample 0

  LV_HD int64_t chunks() const { return (shape.elements() + kDsmChunk - 1) / kDsmChunk; }
  LV_HD Compute<T> weight_of(int64_t sample) const { return weight == nullptr ? Compute<T>(1) : weight[sample]; }
  LV_HD Compute<T> residual(T s, Compute<T> level, float z) const {
    return fma(level, load(s), static_cast<Compute<T>>(z));
  }
  LV_HD Compute<T> loss_of(int64_t sample, double sum) const {
    return static_cast<Compute<T>>(0.5 * sum * static_cast<double>(weight_of(sample)));
  }
};

// r0^2 + r1^2 + r2^2 + r3^2 from left to right.
template <typename C>
LV_HD C sum_of_squares(const C r[4]) {
  return fma(r[3], r[3], fma(r[2], r[2], fma(r[1], r[1], r[0] * r[0])));
}

template <typename T>
void dsm_loss_cpu(const DsmLoss<T>& p, int threads);
template <typename T>
void dsm_loss_cuda(const DsmLoss<T>& p, void* stream);

}  // namespace lv
