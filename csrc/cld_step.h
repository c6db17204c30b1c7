// (x, v) <- A (x, v) + b s + N (z_x, z_v): one step of a sampler of critically-damped Langevin diffusion
// (Dockhorn, Vahdat and Kreis 2022, arXiv:2112.07068, section 3.3 and appendix D). u = (x, v), s the score in v.
//
// With the step dt, beta = beta(t), k = 2 Gamma beta dt and g = 1 / Gamma the samplers are
//
//   Euler-Maruyama:  A = [1, -dt beta/M; dt beta, 1 + dt Gamma beta/M],  b = (0, k),  N_vv = sqrt(k), else 0
//   SSCS:            the half-step in closed form, over which beta integrates to h, is
//                      R(h) = e^{-2gh} [1 + 2gh, -4g^2 h; h, 1 - 2gh],  L(h) L(h)^T = diag(1, M) - R diag(1, M) R^T;
//                      the score's step is v <- v + k (s + v/M). The closed form is a semigroup, so the second
//                      half-step and the first of the next step merge into one over H, the sum of their h, and a step
//                      from one score to the next is A = R(H) [1, 0; 0, 1 + k/M],  b = R(H) (0, k),  N = L(H).
//                      The first half-step of all is A = R(h), N = L(h), without a score.
//   denoising:       the last step, Euler-Maruyama with N = 0
//
// A is given as A - I: a step moves u by little, and I u + (A - I) u has its largest rounding in the last sum alone.
// z_x and z_v are noise_normals of two streams, never stored; what N does not use is not drawn.
#pragma once

#include "images.h"
#include "philox.h"

namespace lv {

template <typename X>
struct CldStep {
  X* u;              // [N, 2C, P], x in the first C channels, v in the others
  const X* score;    // [N, C, P]; or null, then b is 0
  ImageShape shape;  // of x
  bool u_channels_last, score_channels_last;
  X xx, xv, vx, vv;                // A - I
  X score_x, score_v;              // b
  X noise_xx, noise_vx, noise_vv;  // N, lower triangular
  NoiseKey key_x, key_v;
  uint32_t first;  // global index of sample 0

  LV_HD bool draws_x() const { return noise_xx != X(0) || noise_vx != X(0); }
  LV_HD bool draws_v() const { return noise_vv != X(0); }
  LV_HD ImageShape both() const { return {shape.samples, 2 * shape.channels, shape.pixels}; }
  // From an element of x to that of v.
  LV_HD int64_t x_to_v() const { return u_channels_last ? shape.channels : shape.elements(); }

  LV_HD void move(X& x, X& v, X s, float z_x, float z_v) const {
    const X zx = static_cast<X>(z_x), zv = static_cast<X>(z_v);
    const X dx = fma(noise_xx, zx, fma(score_x, s, fma(xv, v, xx * x)));
    const X dv = fma(noise_vv, zv, fma(noise_vx, zx, fma(score_v, s, fma(vv, v, vx * x))));
    x += dx;
    v += dv;
  }
};

template <typename X>
void cld_step_cpu(const CldStep<X>& p, int threads);
template <typename X>
void cld_step_cuda(const CldStep<X>& p, void* stream);

}  // namespace lv
