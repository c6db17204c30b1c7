// out = x + sigma z: the noisy images of denoising score matching (Vincent 2011; Song and Ermon 2019, equation 5).
//
// z is noise_normals of the counter, never stored; dsm_loss makes it again. One rounding to float32, then one to T.
#pragma once

#include "half.h"
#include "images.h"
#include "philox.h"

namespace lv {

template <typename T>
struct Perturb {
  const T* x;               // [N, C, P]
  T* out;                   // [N, C, P], in x's memory format
  const Compute<T>* sigma;  // [N]
  ImageShape shape;
  bool channels_last;
  NoiseKey key;
  uint32_t first;  // global index of sample 0

  LV_HD T perturbed(T element, Compute<T> level, float z) const {
    return store<T>(fma(level, static_cast<Compute<T>>(z), load(element)));
  }
};

template <typename T>
void perturb_cpu(const Perturb<T>& p, int threads);
template <typename T>
void perturb_cuda(const Perturb<T>& p, void* stream);

}  // namespace lv
