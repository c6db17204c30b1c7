// The loops of winograd.h that training adds: the transform of the weights and their gradient. Included behind
// winograd_kernels.h, whose types and transforms they use.
#include "winograd_kernels.h"

namespace lv {
namespace LV_ISA {
namespace {

constexpr float kThird = 1.0f / 3.0f;

// Six values at `out` from three at `in`, G w along one axis.
template <int in_step, int out_step>
inline __attribute__((always_inline)) void weights_to_points(const Vector* in, Vector* out) {
  const Vector first = in[0], middle = in[in_step], last = in[2 * in_step];
  const Vector outer = (first + last) * kThird, inner = middle * kThird;
  out[0] = first, out[out_step] = inner + outer, out[2 * out_step] = inner - outer;
  out[3 * out_step] = (4.0f * first + 2.0f * middle + last) * (-4.0f / 15.0f);
  out[4 * out_step] = (first - 2.0f * middle + 4.0f * last) * (1.0f / 15.0f);
  out[5 * out_step] = last;
}

// Its transpose, G^T u: three values from six.
template <int in_step, int out_step>
inline __attribute__((always_inline)) void points_to_weights(const Vector* in, Vector* out) {
  const Vector sum = (in[in_step] + in[2 * in_step]) * kThird, difference = (in[in_step] - in[2 * in_step]) * kThird;
  const Vector half = in[3 * in_step] * (-4.0f / 15.0f), two = in[4 * in_step] * (1.0f / 15.0f);
  out[0] = in[0] + difference + (4.0f * half + two);
  out[out_step] = sum + (2.0f * half - 2.0f * two);
  out[2 * out_step] = difference + (half + 4.0f * two) + in[5 * in_step];
}

// The first six of v <- A v, of four.
template <int step>
inline __attribute__((always_inline)) void outputs_to_points(Vector* v) {
  const Vector a = v[0], b = v[step], c = v[2 * step], d = v[3 * step];
  const Vector even = a + c, odd = b + d;
  v[step] = even + odd, v[2 * step] = even - odd;
  v[3 * step] = a + 0.25f * c + (0.5f * b + 0.125f * d);
  v[4 * step] = a + 4.0f * c - (2.0f * b + 8.0f * d);
  v[5 * step] = d;
}

// G w G^T of kLanes outputs for one channel, to `to`, from one point to the next by `plane`.
inline __attribute__((always_inline)) void store_points(const Vector* w, float* to, int64_t plane) {
  Vector rows[3 * kPatch], points[kPatch];
  for (int64_t j = 0; j < 3; ++j) weights_to_points<3, 3>(w + j, rows + j);
  for (int64_t i = 0; i < kPatch; ++i) {
    weights_to_points<1, 1>(rows + 3 * i, points);
    for (int64_t j = 0; j < kPatch; ++j) store(to + (kPatch * i + j) * plane, points[j]);
  }
}

// kLanes outputs, all channels.
void transform_weight(const WinogradWeight& p, int64_t output) {
  const int64_t plane = p.channels * p.outputs;
  const Strip strip(p.outputs, kPanel, p.channels, output);
  float* to = p.points + strip.offset + output % kPanel;
  alignas(64) float lines[kLanes][kLanes], taps[kTaps][kLanes][kLanes];
  for (int64_t channel = 0; channel < p.channels; channel += kLanes) {
    for (int64_t tap = 0; tap < kTaps; ++tap) {  // transposes: vectors over the outputs
      const float* from = p.weight + (output * kTaps + tap) * p.channels + channel;
      for (int64_t i = 0; i < kLanes; ++i) store(lines[i], load(from + i * kTaps * p.channels));
      for (int64_t j = 0; j < kLanes; ++j)
        for (int64_t i = 0; i < kLanes; ++i) taps[tap][j][i] = lines[i][j];
    }
    for (int64_t j = 0; j < kLanes; ++j) {
      Vector w[kTaps];
      for (int64_t tap = 0; tap < kTaps; ++tap) w[tap] = load(taps[tap][j]);
      store_points(w, to + (channel + j) * strip.width, plane);
    }
  }
}

// The same for the transposed convolution, whose outputs are this one's channels: one channel, all its outputs.
void transform_transposed_weight(const WinogradWeight& p, int64_t channel) {
  const int64_t plane = p.channels * p.outputs;
  for (int64_t output = 0; output < p.outputs; output += kLanes) {
    const Strip strip(p.outputs, kPanel, p.channels, output);
    Vector w[kTaps];
    for (int64_t tap = 0; tap < kTaps; ++tap)
      w[tap] = load(p.weight + (channel * kTaps + kTaps - 1 - tap) * p.outputs + output);
    store_points(w, p.points + strip.offset + channel * strip.width + output % kPanel, plane);
  }
}

// A g A^T: row `slot` of each of the 36 matrices [block, K], in strips of kRun, as transform_input makes them.
void transform_gradient(const Winograd& p, const float* grad_y, int64_t tile, int64_t slot, int64_t block, float* out) {
  const Place at(p, tile);
  const int64_t plane = p.plane(p.outputs);
  const float* pixels[kTile * kTile];  // null outside the image
  for (int64_t i = 0; i < kTile * kTile; ++i) {
    const int64_t row = at.row + i / kTile * p.dilation, column = at.column + i % kTile * p.dilation;
    const bool inside = row < p.height && column < p.width;
    pixels[i] = inside ? grad_y + ((at.sample * p.height + row) * p.width + column) * p.outputs : nullptr;
  }
  for (int64_t c = 0; c < p.outputs; c += kLanes) {
    const Strip strip(p.outputs, kRun, block, c);
    float* to = out + strip.offset + slot * strip.width + c % kRun;
    Vector v[kPoints];
    for (int64_t i = 0; i < kTile * kTile; ++i)
      v[i / kTile * kPatch + i % kTile] = pixels[i] != nullptr ? load(pixels[i] + c) : Vector{};
    for (int64_t i = 0; i < kTile; ++i) outputs_to_points<kPatch>(v + i);
    for (int64_t i = 0; i < kPatch; ++i) {
      outputs_to_points<1>(v + kPatch * i);
      for (int64_t j = 0; j < kPatch; ++j) store(to + (kPatch * i + j) * plane, v[kPatch * i + j]);
    }
  }
}

// m (+)= a^T b over `run` rows: a [run, stride], of which `rows` columns, b [run, width], m [rows, width].
template <int rows, int vectors>
inline __attribute__((always_inline)) void multiply_transposed(const float* a, int64_t stride, const float* b,
                                                               int64_t width, int64_t run, float* m, bool begin) {
  Vector sums[rows][vectors] = {};
  for (int64_t k = 0; k < run; ++k, a += stride, b += width) {
    Vector right[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) right[j] = load(b + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const float left = a[i];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      float* to = m + i * width + j * kLanes;
      store(to, begin ? sums[i][j] : load(to) + sums[i][j]);
    }
  }
}

template <int vectors>
void multiply_columns(const float* a, int64_t rows, const float* b, int64_t width, int64_t run, float* m, bool begin) {
  int64_t i = 0;
  for (; i + 6 <= rows; i += 6) multiply_transposed<6, vectors>(a + i, rows, b, width, run, m + i * width, begin);
  for (; i < rows; i += 2) multiply_transposed<2, vectors>(a + i, rows, b, width, run, m + i * width, begin);
}

// The columns from `j` on.
template <int vectors = LV_WIDTH>
void multiply_strip(const float* a, int64_t rows, const float* b, int64_t width, int64_t run, float* m, bool begin,
                    int64_t j = 0) {
  for (; width - j >= vectors * kLanes; j += vectors * kLanes)
    multiply_columns<vectors>(a, rows, b + j, width, run, m + j, begin);
  if constexpr (vectors * kLanes > kVector) multiply_strip<vectors / 2>(a, rows, b, width, run, m, begin, j);
}

// One point's gradient for one panel of channels, from `rows` tiles: v and m as the transforms make them, u [K, panel].
void gradient_product(const Winograd& p, int64_t panel, int64_t rows, int64_t block, const float* v, const float* m,
                      float* u, bool begin) {
  const Strip strip(p.channels, kRun, block, panel * kRun);
  v += strip.offset, u += panel * kRun * p.outputs;
  for (int64_t row = 0; row < rows; row += kRun) {
    const int64_t run = rows - row < kRun ? rows - row : kRun;
    for (int64_t k = 0; k < p.outputs; k += kRun) {
      const Strip from(p.outputs, kRun, block, k);
      const float *a = m + from.offset + row * from.width, *b = v + row * strip.width;
      float* to = u + k * strip.width;
      multiply_strip(a, from.width, b, strip.width, run, to, begin && row == 0);
    }
  }
}

// G^T u G for one output, all channels.
void gradient_of_weight(const Winograd& p, int64_t output, const float* u, float* grad_weight) {
  for (int64_t c = 0; c < p.channels; c += kLanes) {
    const Strip strip(p.channels, kRun, p.outputs, c);
    const float* from = u + strip.offset + output * strip.width + c % kRun;
    Vector points[kPoints], rows[3 * kPatch], w[kTaps];
    for (int64_t i = 0; i < kPoints; ++i) points[i] = load(from + i * p.gradient_plane());
    for (int64_t j = 0; j < kPatch; ++j) points_to_weights<kPatch, kPatch>(points + j, rows + j);
    for (int64_t i = 0; i < 3; ++i) points_to_weights<1, 1>(rows + kPatch * i, w + 3 * i);
    for (int64_t tap = 0; tap < kTaps; ++tap) store(grad_weight + (output * kTaps + tap) * p.channels + c, w[tap]);
  }
}

}  // namespace

void winograd_weight(const WinogradWeight& p, int threads) {
  if (p.transposed) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t channel = 0; channel < p.channels; ++channel) transform_transposed_weight(p, channel);
  } else {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t output = 0; output < p.outputs; output += kLanes) transform_weight(p, output);
  }
}

void winograd_weight_gradient(const Winograd& p, const float* grad_y, float* grad_weight, int threads) {
  const int64_t tiles = p.tiles(), block = p.block(), panels = (p.channels + kRun - 1) / kRun;
  float *v = p.scratch, *m = v + kPoints * p.plane(p.channels), *u = m + kPoints * p.plane(p.outputs);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    for (int64_t begin = 0; begin < tiles; begin += block) {
      const int64_t count = tiles - begin < block ? tiles - begin : block;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < count; ++i) {
        transform_input(p, begin + i, i, block, v);
        transform_gradient(p, grad_y, begin + i, i, block, m);
      }
#pragma omp for schedule(static)
      for (int64_t i = 0; i < kPoints * panels; ++i)
        gradient_product(p, i % panels, count, block, v + i / panels * p.plane(p.channels),
                         m + i / panels * p.plane(p.outputs), u + i / panels * p.gradient_plane(), begin == 0);
    }
#pragma omp for schedule(static)
    for (int64_t output = 0; output < p.outputs; ++output) gradient_of_weight(p, output, u, grad_weight);
  }
}

}  // namespace LV_ISA
}  // namespace lv
