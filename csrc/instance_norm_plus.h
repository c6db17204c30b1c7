// Conditional instance normalisation++, with an optional residual before it and an optional ELU behind it.
//
//   Song and Ermon 2019 (arXiv:1907.05600), appendix A.1, in the form of their code ("official"):
//     mu_c, s_c^2 = mean and biased variance of x_c over its P pixels,   r_c = 1 / sqrt(s_c^2 + eps)
//     m, v        = mean and unbiased variance of the C values mu_c,     q   = 1 / sqrt(v + eps)
//     y_c = gamma_c ((x_c - mu_c) r_c + alpha_c (mu_c - m) q) + beta_c
//   and as printed ("paper"):
//     y_c = gamma_c (x_c - mu_c) r_c + alpha_c (mu_c - m) q + beta_c
//   so y_c = scale_c (x_c - mu_c) + bias_c. Row i of the weight is [gamma | alpha | beta] of level i.
//   Of x_c + b_c the same, with mu_c + b_c for mu_c but in x_c - mu_c: b_c is seen by alpha's term alone.
//
// Pooled, with n of the 5x5 pixels around one within the image: y_c = scale_c / 25 sum (x_c - mu_c) + n / 25 bias_c.
//
// Backward, with g = dL/dy (times ELU's slope at y), xhat_c = (x_c - mu_c) r_c, muhat_c = (mu_c - m) q,
// S1_c = sum g, S2_c = sum g xhat_c over the pixels:
//     dbeta_c = S1_c,  dalpha_c = gamma_c muhat_c S1_c,  dgamma_c = S2_c + alpha_c muhat_c S1_c
//     t_c = gamma_c alpha_c S1_c     (paper: dalpha_c = muhat_c S1_c,  dgamma_c = S2_c,  t_c = alpha_c S1_c)
//     dmu_c = q (t_c - sum_j t_j / C - muhat_c sum_j t_j muhat_j / (C - 1))
//     dx_c = gamma_c r_c (g - S1_c / P - xhat_c S2_c / P) + dmu_c / P
//
// Sums go over fixed chunks of pixels: means and squared deviations in two passes each, merged as in Chan, Golub and
// LeVeque 1979. A sample's numbers depend on nothing but the sample, its layout and the device.
#pragma once

#include "elu.h"
#include "half.h"
#include "images.h"

namespace lv {

// How many pixels of every channel one partial sum covers, and how many such chunks a sample has.
struct PixelChunks {
  int64_t pixels, count;
};

inline PixelChunks pixel_chunks(const ImageShape& shape, bool channels_last) {
  constexpr int64_t kElements = 16384, kPlanePixels = 1024, kMaxCount = 16, kVector = 8;
  const int64_t wanted = channels_last ? (kElements + shape.channels - 1) / shape.channels : kPlanePixels;
  const int64_t least = (shape.pixels + kMaxCount - 1) / kMaxCount;
  const int64_t pixels = ((wanted > least ? wanted : least) + kVector - 1) / kVector * kVector;
  return {pixels, (shape.pixels + pixels - 1) / pixels};
}

// Elements of scratch memory: two partial sums for each chunk and channel; backward also the gradient row and two
// sums over the channels.
inline int64_t norm_scratch_size(const ImageShape& shape, bool channels_last, bool backward) {
  const int64_t partials = pixel_chunks(shape, channels_last).count * 2 * shape.channels;
  return shape.samples * (partials + (backward ? 3 * shape.channels + 2 : 0));
}

template <typename A>
struct NormCoefficients {
  A mean, scale, bias;
  LV_HD A operator()(A x) const { return fma(scale, x - mean, bias); }
};

// What forward and backward know of a sample.
template <typename A>
struct NormPlan {
  ImageShape shape;
  bool channels_last, paper, elu, has_beta;
  A eps;
  PixelChunks chunks;
  int64_t levels;
  const A* weight;       // [L, 3 C], or [L, 2 C] without beta
  const int64_t* level;  // [N], or null: row 0 for every sample
  A* stats;              // [N, 2 C + 2]: mu, r, m, q; mu without the bias, m and q with it
  A* partials;           // [N, chunks, 2, C]: mean and sum of squared deviations; backward: S1 and S2
  const A* bias;         // [C], or null: x + bias is normalised, which changes nothing but the means' spread

  LV_HD int64_t columns() const { return (has_beta ? 3 : 2) * shape.channels; }
  LV_HD int64_t chunk_size(int64_t chunk) const {
    const int64_t rest = shape.pixels - chunk * chunks.pixels;
    return rest < chunks.pixels ? rest : chunks.pixels;
  }
  LV_HD int64_t sample_level(int64_t sample) const { return level == nullptr ? 0 : level[sample]; }
  LV_HD A* sample_stats(int64_t sample) const { return stats + sample * (2 * shape.channels + 2); }
  LV_HD A* partial(int64_t sample, int64_t chunk) const {
    return partials + (sample * chunks.count + chunk) * 2 * shape.channels;
  }

  struct Affine {
    A gamma, alpha, beta;
  };
  // A level outside the table reads nothing and makes the sample NaN.
  LV_HD Affine affine(int64_t sample, int64_t channel) const {
    const int64_t row = sample_level(sample);
    if (row < 0 || row >= levels) return {static_cast<A>(NAN), static_cast<A>(NAN), static_cast<A>(NAN)};
    const A* at = weight + row * columns() + channel;
    return {at[0], at[shape.channels], has_beta ? at[2 * shape.channels] : A(0)};
  }

  // Of what is normalised, from the mean of x.
  LV_HD A biased_mean(int64_t channel, A mu) const { return bias == nullptr ? mu : mu + bias[channel]; }

  LV_HD NormCoefficients<A> coefficients(const Affine& w, A mu, A biased, A r, A m, A q) const {
    const A shift = product(w.alpha, (biased - m) * q);
    return {mu, w.gamma * r, (paper ? shift : product(w.gamma, shift)) + w.beta};
  }
  LV_HD NormCoefficients<A> saved_coefficients(int64_t sample, int64_t channel) const {
    const A *mu = sample_stats(sample), *r = mu + shape.channels, *m_and_q = r + shape.channels;
    const A biased = biased_mean(channel, mu[channel]);
    return coefficients(affine(sample, channel), mu[channel], biased, r[channel], m_and_q[0], m_and_q[1]);
  }
};

// dL/dx = slope_g g + slope_x (x - mu) + constant, and the row of dL/dweight.
template <typename A>
struct NormGradient {
  A slope_g, slope_x, constant, gamma, alpha, beta;
};

// t_c, the gradient with respect to muhat_c.
template <typename A>
LV_HD A norm_grad_shift(const NormPlan<A>& p, const typename NormPlan<A>::Affine& w, A s1) {
  return (p.paper ? w.alpha : w.gamma * w.alpha) * s1;
}

// sum_t = sum_j t_j, sum_t_muhat = sum_j t_j muhat_j.
template <typename A>
LV_HD NormGradient<A> norm_gradient(const NormPlan<A>& p, const typename NormPlan<A>::Affine& w, A r, A muhat, A q,
                                    A s1, A s2, A sum_t, A sum_t_muhat) {
  const A channels = static_cast<A>(p.shape.channels), pixels = static_cast<A>(p.shape.pixels);
  const A others = p.shape.channels > 1 ? channels - A(1) : A(1);
  const A grad_mu = q * (norm_grad_shift(p, w, s1) - sum_t / channels - muhat * sum_t_muhat / others);
  // One pixel is its own mean, and nothing of g comes through x - mu: exactly 0, not a difference of large terms.
  const A scale = p.shape.pixels > 1 ? w.gamma * r : A(0);
  return {scale,
          -scale * r * s2 / pixels,
          (grad_mu - scale * s1) / pixels,
          p.paper ? s2 : s2 + w.alpha * muhat * s1,
          p.paper ? muhat * s1 : w.gamma * muhat * s1,
          s1};
}

template <typename T>
struct InstanceNormPlus {
  NormPlan<Compute<T>> plan;
  const T* x;         // [N, C, P], channels-last [N, P, C]; residual, sum and y lie alike
  const T* residual;  // or null
  T* sum;             // x + residual + bias, rounded to T before it is normalised; null without residual
  T* y;
  const Compute<T>* bias;  // [C] of the sum, or null; without a residual the plan has it
  int64_t pooled_width;    // y is the mean over 5x5 pixels, zeros around the image, of images this wide; 0: it is not

  LV_HD const T* normalised() const { return residual != nullptr ? sum : x; }
};

template <typename T>
struct InstanceNormPlusBackward {
  NormPlan<Compute<T>> plan;
  const T* x;  // what was normalised: [N, C, P], channels-last [N, P, C]; the other three lie alike
  const T* grad_y;
  const T* grad_sum;         // added to grad_x, or null
  T* grad_x;                 // or null
  Compute<T>* grad_weight;   // the weight's shape, or null
  Compute<T>* rows;          // scratch [N, 3 C]: each sample's row of grad_weight
  Compute<T>* channel_sums;  // scratch [N, 2]: sum_t and sum_t_muhat
};

template <typename T>
void instance_norm_plus_cpu(const InstanceNormPlus<T>& p, int threads);
template <typename T>
void instance_norm_plus_cuda(const InstanceNormPlus<T>& p, void* stream);
template <typename T>
void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<T>& p, int threads);
template <typename T>
void instance_norm_plus_backward_cuda(const InstanceNormPlusBackward<T>& p, void* stream);

}  // namespace lv
