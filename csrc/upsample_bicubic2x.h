// y = bicubic(x) + sigma z: an image twice as large in both directions, with fresh noise; and the next network input.
//
//   Keys 1981, "Cubic convolution interpolation for digital image processing", equation 4 with his -1/2 as a free a:
//     w(s) = (a + 2) |s|^3 - (a + 3) |s|^2 + 1                    |s| <= 1
//     w(s) = a |s|^3 - 5 a |s|^2 + 8 a |s| - 4 a              1 < |s| < 2
//   Output o lies at (o + 1/2) / 2 - 1/2 of the input: a quarter to either side of pixel floor(o / 2), so there are two
//   phases, mirror images of one another. Along one axis, with i clamped to the image,
//     y[2 i]     = w(1/4) x[i] + w(3/4) x[i - 1] + w(5/4) x[i + 1] + w(7/4) x[i - 2]
//     y[2 i + 1] = w(1/4) x[i] + w(3/4) x[i + 1] + w(5/4) x[i - 1] + w(7/4) x[i + 2]
//   a = -3/4 is torch's bicubic with align_corners=False, a = -1/2 is Keys' and Pillow's kernel.
//
// Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), Algorithm 2, line 12. The axes are interpolated one after
// the other, rows first, each by one chain of fused multiply-adds, and z is noise_normals of the counter: the bits
// depend on neither threads, batch, memory format nor device, and a mirrored image gives the mirrored result.
#pragma once

#include "half.h"
#include "philox.h"

namespace lv {

// w(s) in float64, rounded once to A.
template <typename A>
struct BicubicWeights {
  A quarter, three, five, seven;  // of s = 1/4, 3/4, 5/4, 7/4

  explicit BicubicWeights(double a)
      : quarter(inner(a, 0.25)), three(inner(a, 0.75)), five(outer(a, 1.25)), seven(outer(a, 1.75)) {}

  // The value between x1 and x2, a quarter from x1.
  LV_HD A operator()(A x0, A x1, A x2, A x3) const {
    return fma(quarter, x1, fma(three, x2, fma(five, x0, seven * x3)));
  }

 private:
  static A inner(double a, double s) { return static_cast<A>(((a + 2.0) * s - (a + 3.0)) * s * s + 1.0); }
  static A outer(double a, double s) { return static_cast<A>(((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a); }
};

template <typename X>
struct Bicubic2x {
  const X* x;  // [N, C, H, W]
  X* y;        // [N, C, 2 H, 2 W], in x's memory format
  int64_t samples, channels, height, width;
  bool channels_last;  // x and y
  BicubicWeights<X> weights;
  X sigma;
  NoiseKey key;
  uint32_t first;  // global index of sample 0

  LV_HD int64_t pixels() const { return height * width; }  // of a plane of x
  LV_HD int64_t elements() const { return channels * pixels(); }
  LV_HD X renoised(X y_old, float z) const { return fma(sigma, static_cast<X>(z), y_old); }
};

template <typename X, typename U>
struct UpsampleBicubic2x : Bicubic2x<X> {
  U* u;  // [N, C, 2 H, 2 W], channels-last; or null

  LV_HD U input(X y_new) const { return store<U>(static_cast<float>(fma(X(2), y_new, X(-1)))); }
};

// The border is repeated.
template <typename I>
LV_HD I clamped(I i, I size) {
  return i < 0 ? 0 : i < size ? i : size - 1;
}

template <typename X, typename U>
void upsample_bicubic2x_cpu(const UpsampleBicubic2x<X, U>& p, int threads);
template <typename X, typename U>
void upsample_bicubic2x_cuda(const UpsampleBicubic2x<X, U>& p, void* stream);

}  // namespace lv
