#include "../upsample_bicubic2x.h"

#include <vector>

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

// A plane is one channel, or all channels at once where they are neighbours (channels-last): a row of x has `line`
// elements, and a neighbour in it is `lanes` away.
struct Planes {
  int64_t count, lanes, line;

  template <typename X>
  explicit Planes(const Bicubic2x<X>& p)
      : count(p.channels_last ? 1 : p.channels), lanes(p.channels_last ? p.channels : 1), line(p.width * lanes) {}
  int64_t padded() const { return line + 4 * lanes; }  // two pixels more at either end
};

// upper, lower <- a row of x interpolated to rows 2 r and 2 r + 1 of y, padded.
template <typename X>
LV_HD void between_rows(const BicubicWeights<X>& w, const X* const (&rows)[5], const Planes& s, X* upper, X* lower) {
  const X *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4];
  for (int64_t k = 0; k < s.line; ++k) {
    upper[k] = w(r3[k], r2[k], r1[k], r0[k]);
    lower[k] = w(r1[k], r2[k], r3[k], r4[k]);
  }
  for (X* row : {upper, lower})
    for (int64_t k = 0; k < s.lanes; ++k) {
      row[k - 2 * s.lanes] = row[k - s.lanes] = row[k];
      row[s.line + k] = row[s.line + s.lanes + k] = row[s.line - s.lanes + k];
    }
}

// y <- a row of twice the pixels.
template <typename X>
LV_HD void between_columns(const BicubicWeights<X>& w, const X* row, const Planes& s, X* y) {
  if (s.lanes == 1) {
    for (int64_t i = 0; i < s.line; ++i) {
      y[2 * i] = w(row[i + 1], row[i], row[i - 1], row[i - 2]);
      y[2 * i + 1] = w(row[i - 1], row[i], row[i + 1], row[i + 2]);
    }
    return;
  }
  const int64_t n = s.lanes;
  for (int64_t i = 0; i < s.line; i += n, y += 2 * n)
    for (int64_t k = i; k < i + n; ++k) {
      y[k - i] = w(row[k + n], row[k], row[k - n], row[k - 2 * n]);
      y[k - i + n] = w(row[k - n], row[k], row[k + n], row[k + 2 * n]);
    }
}

// y <- y + sigma z on `count` pixels of one channel, `stride` apart.
template <typename X>
LV_HD void add_noise(const Bicubic2x<X>& p, uint32_t sample, int64_t begin, int64_t count, int64_t stride, X* y) {
  float z[kNoiseBuffer];
  for (int64_t from = 0; from < count; from += kNoiseBuffer) {
    const int64_t piece = std::min(kNoiseBuffer, count - from);
    fill_noise(p.key, sample, begin + from, piece, z);
    X* at = y + from * stride;
    for (int64_t i = 0; i < piece; ++i) at[i * stride] = p.renoised(at[i * stride], z[i]);
  }
}

// Rows [2 begin, 2 end) of a plane of y.
template <typename X>
LV_CLONES void upsample_rows(const Bicubic2x<X>& p, const Planes& s, int64_t sample, int64_t plane, int64_t begin,
                             int64_t end, X* buffer) {
  const X* x = p.x + sample * p.elements() + plane * p.pixels();
  X* y = p.y + 4 * (sample * p.elements() + plane * p.pixels());
  X *upper = buffer + 2 * s.lanes, *lower = upper + s.padded();
  for (int64_t r = begin; r < end; ++r) {
    const X* rows[5];
    for (int64_t i = 0; i < 5; ++i) rows[i] = x + clamped(r + i - 2, p.height) * s.line;
    between_rows(p.weights, rows, s, upper, lower);
    X* out = y + 4 * r * s.line;
    between_columns(p.weights, upper, s, out);
    between_columns(p.weights, lower, s, out + 2 * s.line);
    if (p.sigma != X(0))
      for (int64_t lane = 0; lane < s.lanes; ++lane)
        add_noise(p, p.first + static_cast<uint32_t>(sample), 4 * ((plane + lane) * p.pixels() + r * p.width),
                  4 * p.width, s.lanes, out + lane);
  }
}

// The same rows of u.
template <typename X, typename U>
LV_CLONES void input_rows(const UpsampleBicubic2x<X, U>& p, const Planes& s, int64_t sample, int64_t plane,
                          int64_t begin, int64_t end) {
  const int64_t step = p.channels / s.lanes;  // from one element of u to the next of this plane
  const X* y = p.y + 4 * (sample * p.elements() + plane * p.pixels() + begin * s.line);
  U* u = p.u + 4 * (sample * p.elements() + begin * s.line * step) + plane;
  for (int64_t k = 0; k < 4 * (end - begin) * s.line; ++k) u[k * step] = p.input(y[k]);
}

}  // namespace

template <typename X, typename U>
void upsample_bicubic2x_cpu(const UpsampleBicubic2x<X, U>& p, int threads) {
  const Planes s(p);
  const int64_t step = std::max<int64_t>(1, kChunk / (4 * s.line)), pieces = (p.height + step - 1) / step;
  parallel_for(p.samples * s.count * pieces, 4 * p.samples * p.elements(), threads, [&](int64_t i) {
    std::vector<X> buffer(2 * s.padded());
    const int64_t begin = i % pieces * step, end = std::min(begin + step, p.height), plane = i / pieces;
    upsample_rows<X>(p, s, plane / s.count, plane % s.count, begin, end, buffer.data());
    if (p.u != nullptr) input_rows(p, s, plane / s.count, plane % s.count, begin, end);
  });
}

template void upsample_bicubic2x_cpu(const UpsampleBicubic2x<float, float>&, int);
template void upsample_bicubic2x_cpu(const UpsampleBicubic2x<float, bfloat16>&, int);
template void upsample_bicubic2x_cpu(const UpsampleBicubic2x<float, float16>&, int);
template void upsample_bicubic2x_cpu(const UpsampleBicubic2x<double, float>&, int);

}  // namespace lv
