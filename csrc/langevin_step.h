// x <- x + score_coef score + noise_coef z: one step of (annealed) Langevin dynamics.
//
//   Song and Ermon 2019, Algorithm 1, line 6:   score_coef = alpha_i / 2,  noise_coef = sqrt(alpha_i)
//   the unadjusted Langevin algorithm:          score_coef = g,            noise_coef = sqrt(2 g)
//
// Known pixels of inpainting (Algorithm 2) are left as they are. z is noise_normals of the counter, never stored.
#pragma once

#include "half.h"
#include "images.h"
#include "philox.h"

namespace lv {

template <typename X, typename S>
struct LangevinStep {
  X* x;                 // [N, C, P]
  const S* score;       // [N, C, P]
  const uint8_t* mask;  // [C, P] or [N, C, P], contiguous, non-zero: leave x; or null
  ImageShape shape;
  bool x_channels_last, score_channels_last, mask_per_sample;
  X score_coef, noise_coef;
  NoiseKey key;
  uint32_t first;  // global index of sample 0

  LV_HD X moved(X x_old, S s, float z) const {
    return fma(noise_coef, static_cast<X>(z), fma(score_coef, static_cast<X>(load(s)), x_old));
  }
  LV_HD bool is_known(int64_t sample, int64_t element) const {
    return mask != nullptr && mask[(mask_per_sample ? sample * shape.elements() : 0) + element] != 0;
  }
};

template <typename X, typename S>
void langevin_step_cpu(const LangevinStep<X, S>& p, int threads);
template <typename X, typename S>
void langevin_step_cuda(const LangevinStep<X, S>& p, void* stream);

}  // namespace lv
