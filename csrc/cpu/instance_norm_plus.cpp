#include "../instance_norm_plus.h"

#include "norm_blocks.h"
#include "norm_pool.h"

namespace lv {
namespace {

// Means and sums of squared deviations side by side, merged from parts (Chan, Golub and LeVeque 1979).
struct Moments {
  double mean[kLanes], squares[kLanes];

  explicit Moments(int64_t lanes) { std::fill_n(mean, lanes, 0.0), std::fill_n(squares, lanes, 0.0); }
};

template <typename A>
LV_CLONES void merge_moments(Moments& moments, int64_t lane, int64_t lanes, int64_t before, int64_t count,
                             const A* __restrict part_mean, const A* __restrict part_squares) {
  const double move = static_cast<double>(count) / static_cast<double>(before + count);
  const double spread = static_cast<double>(before) * move;
  for (int64_t j = 0; j < lanes; ++j) {
    const double delta = static_cast<double>(part_mean[j]) - moments.mean[lane + j];
    moments.mean[lane + j] += delta * move;
    moments.squares[lane + j] += static_cast<double>(part_squares[j]) + delta * delta * spread;
  }
}

// From the sums of d and d^2, d = x - centre, to the mean and the sum of squares about it. The sum of d is what
// rounding left in `centre`; rounding may also push the squares below 0. NaN stays.
template <typename A>
LV_HD void correct(A count, A& centre, A first, A& second) {
  const A squares = second - first * first / count;
  centre += first / count;
  second = squares < A(0) ? A(0) : squares;
}

constexpr int64_t kColumns = 64;  // whose sums stay in registers

// Channels-last: a sum for each column, of `columns` of them, at most kColumns.
template <typename A, typename Columns>
LV_HD void some_columns(const Rows<const A>& rows, Columns columns, A* __restrict centre, A* __restrict second) {
  const A count = static_cast<A>(rows.count);
  A mean[kColumns] = {}, first[kColumns] = {}, squares[kColumns] = {};
  for (int64_t row = 0; row < rows.count; ++row) {
    const A* __restrict x = rows.data + row * rows.stride;
    for (int64_t j = 0; j < columns; ++j) mean[j] += x[j];
  }
  for (int64_t j = 0; j < columns; ++j) mean[j] /= count;
  for (int64_t row = 0; row < rows.count; ++row) {
    const A* __restrict x = rows.data + row * rows.stride;
    for (int64_t j = 0; j < columns; ++j) {
      const A d = x[j] - mean[j];
      first[j] += d;
      squares[j] = fma(d, d, squares[j]);
    }
  }
  for (int64_t j = 0; j < columns; ++j) {
    centre[j] = mean[j], second[j] = squares[j];
    correct(count, centre[j], first[j], second[j]);
  }
}

template <typename A>
LV_CLONES void column_moments(Rows<const A> rows, A* centre, A* second) {
  for (; rows.width >= kColumns; rows.width -= kColumns, rows.data += kColumns, centre += kColumns, second += kColumns)
    some_columns(rows, std::integral_constant<int64_t, kColumns>(), centre, second);
  if (rows.width > 0) some_columns(rows, rows.width, centre, second);
}

constexpr int64_t kAlong = 64;   // sums side by side along a plane, so that no addition waits for the one before
constexpr int64_t kNear = 1024;  // elements from what is read to what is asked of memory

// Contiguous: one sum for the row. What lies `ahead` of it, in elements, is asked for meanwhile: pages are small, and
// the processor itself looks ahead in one only.
template <typename A>
LV_CLONES void row_moments(const Rows<const A>& rows, int64_t ahead, A* centre, A* second) {
  constexpr int64_t kLine = 64 / sizeof(A);
  const A* __restrict x = rows.data;
  const int64_t full = rows.width / kAlong * kAlong;
  const A count = static_cast<A>(rows.width);
  A sums[kAlong] = {}, first[kAlong] = {}, squares[kAlong] = {};
  for (int64_t i = 0; i < full; i += kAlong)
    for (int64_t j = 0; j < kAlong; ++j) sums[j] += x[i + j];
  for (int64_t i = full; i < rows.width; ++i) sums[i - full] += x[i];
  const A mean = fold(sums) / count;
  for (int64_t i = 0; i < full; i += kAlong) {
    for (int64_t j = 0; j < kAlong; j += kLine) __builtin_prefetch(x + ahead + i + j);
    for (int64_t j = 0; j < kAlong; ++j) {
      const A d = x[i + j] - mean;
      first[j] += d;
      squares[j] = fma(d, d, squares[j]);
    }
  }
  for (int64_t i = full; i < rows.width; ++i) {
    const A d = x[i] - mean;
    first[i - full] += d;
    squares[i - full] = fma(d, d, squares[i - full]);
  }
  *centre = mean;
  *second = fold(squares);
  correct(count, *centre, fold(first), *second);
}

template <typename A>
void add_bias(const A* bias, bool channels_last, const Rows<A>& sum) {
  for (int64_t row = 0; row < sum.count; ++row)
    for (int64_t j = 0; j < sum.width; ++j) sum.data[row * sum.stride + j] += bias[channels_last ? j : 0];
}

// What is normalised; with a residual it is written to p.sum first, and read back as rounded there.
template <typename T>
Rows<const Compute<T>> input_rows(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s, const Block& b,
                                  Compute<T>* buffer) {
  const Rows<const T> x = rows_at(p.x, sample, s, b);
  if (p.residual == nullptr) return readable(x, buffer);
  Buffer<T> other, total;
  const Rows<T> sum = rows_at(p.sum, sample, s, b);
  const Rows<Compute<T>> exact = writable(sum, total.data);
  add_rows(readable(x, buffer), readable(rows_at(p.residual, sample, s, b), other.data), exact);
  if (p.bias != nullptr) add_bias(p.bias + s.channel + b.lane, s.channels_last, exact);
  written(sum, total.data);
  return readable(rows_at(static_cast<const T*>(p.sum), sample, s, b), buffer);
}

template <typename T>
void strip_moments(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s) {
  using A = Compute<T>;
  Buffer<T> buffer;
  A mean[kLanes], squares[kLanes];
  Moments moments(s.channels);
  const int64_t ahead = std::is_same_v<T, A> && p.residual == nullptr ? kNear : 0;
  for (int64_t i = 0; i < s.blocks(); ++i) {
    const Block b = s.block(i);
    const Rows<const A> x = input_rows(p, sample, s, b, buffer.data);
    s.channels_last ? column_moments(x, mean, squares) : row_moments(x, ahead, mean, squares);
    merge_moments(moments, b.lane, b.lanes, b.pixels_before, b.pixels, mean, squares);
  }
  A* out = p.plan.partial(sample, s.chunk) + s.channel;
  for (int64_t k = 0; k < s.channels; ++k) {
    out[k] = static_cast<A>(moments.mean[k]);
    out[s.shape.channels + k] = static_cast<A>(moments.squares[k]);
  }
}

template <typename A>
void sample_stats(const NormPlan<A>& p, int64_t sample) {
  const int64_t channels = p.shape.channels;
  A *mu = p.sample_stats(sample), *r = mu + channels, *m_and_q = r + channels;
  for (int64_t channel = 0; channel < channels; channel += kLanes) {
    const int64_t lanes = std::min(kLanes, channels - channel);
    Moments moments(lanes);
    for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
      const A* part = p.partial(sample, chunk) + channel;
      merge_moments(moments, 0, lanes, chunk * p.chunks.pixels, p.chunk_size(chunk), part, part + channels);
    }
    for (int64_t k = 0; k < lanes; ++k) {
      mu[channel + k] = static_cast<A>(moments.mean[k]);
      r[channel + k] = static_cast<A>(1.0 / std::sqrt(moments.squares[k] / p.shape.pixels + p.eps));
    }
  }
  const auto mean = [&](int64_t c) { return static_cast<double>(p.biased_mean(c, mu[c])); };
  double m = 0, v = 0;
  for (int64_t c = 0; c < channels; ++c) m += mean(c) - mean(0);
  m = mean(0) + m / channels;
  for (int64_t c = 0; c < channels; ++c) v += (mean(c) - m) * (mean(c) - m);
  if (channels > 1) v /= channels - 1;
  m_and_q[0] = static_cast<A>(m);
  m_and_q[1] = static_cast<A>(1.0 / std::sqrt(v + p.eps));
}

// kColumns: column j belongs to channel j of the strip; else all belong to channel `lane`.
template <bool kColumns, typename A>
LV_HD void normalise(const StripCoefficients<A>& k, int64_t lane, bool with_elu, const Rows<const A>& in,
                     const Rows<A>& out) {
  const NormCoefficients<A> one = k[kColumns ? 0 : lane];
  for (int64_t row = 0; row < in.count; ++row) {
    const A* __restrict x = in.data + row * in.stride;
    A* __restrict y = out.data + row * out.stride;
    if (with_elu) {
      for (int64_t j = 0; j < in.width; ++j) y[j] = elu((kColumns ? k[j] : one)(x[j]));
    } else {
      for (int64_t j = 0; j < in.width; ++j) y[j] = (kColumns ? k[j] : one)(x[j]);
    }
  }
}

template <typename A>
LV_CLONES void normalise_block(const StripCoefficients<A>& k, const Strip& s, int64_t lane, bool with_elu,
                               const Rows<const A>& in, const Rows<A>& out) {
  s.channels_last ? normalise<true>(k, lane, with_elu, in, out) : normalise<false>(k, lane, with_elu, in, out);
}

// Asks for the elements `ahead` of these; kCaches: 3 for all of them, 2 for all but the first.
template <int kCaches, typename T>
void prefetch(const Rows<const T>& rows, int64_t ahead) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t row = 0; row < rows.count; ++row)
    for (int64_t j = 0; j < rows.width; j += kLine)
      __builtin_prefetch(rows.data + ahead + row * rows.stride + j, 0, kCaches);
}

constexpr int64_t kPiece = 512;          // elements, so that memory traffic and arithmetic alternate quickly
constexpr int64_t kStreamedPiece = 128;  // even quicker past the caches, where stores are as slow as memory
constexpr int64_t kAhead = 1 << 20;      // bytes, of the next sample's first, that a second-level cache has room for
constexpr int64_t kStreamed = 32 << 20;  // bytes of y, at least, of which no cache would keep a thread's share

template <typename T>
void strip_apply(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s) {
  using A = Compute<T>;
  constexpr bool direct = std::is_same_v<T, A>;
  const StripCoefficients<A> k(p.plan, sample, s);
  const int64_t bytes = s.shape.elements() * int64_t{sizeof(T)};
  const bool streams = direct && bytes * s.shape.samples >= kStreamed;
  const int64_t elements = streams ? kStreamedPiece : kPiece;
  alignas(64) A in[kPiece], packed[kPiece];
  for (int64_t i = 0; i < s.blocks(); ++i) {
    const Block b = s.block(i);
    const int64_t rows = std::max<int64_t>(1, elements / b.width);
    for (int64_t row = 0; row < b.rows; row += rows)
      for (int64_t column = 0; column < b.width; column += elements) {
        Block piece = b;
        piece.offset += row * b.stride + column;
        piece.rows = std::min(rows, b.rows - row), piece.width = std::min(elements, b.width - column);
        // Of this sample, what the caches have lost since its statistics were taken; of the next, what its statistics
        // begin with.
        if (streams) prefetch<3>(rows_at(p.normalised(), sample, s, piece), kNear);
        const bool ahead = sample + 1 < s.shape.samples && piece.offset * int64_t{sizeof(T)} < kAhead;
        if (ahead) prefetch<2>(rows_at(p.x, sample, s, piece), s.shape.elements());
        if (ahead && p.residual != nullptr) prefetch<2>(rows_at(p.residual, sample, s, piece), s.shape.elements());
        const Rows<T> y = rows_at(p.y, sample, s, piece);
        const Rows<A> out = streams ? Rows<A>{packed, y.count, y.width, y.width} : writable(y, packed);
        normalise_block(k, s, b.lane, p.plan.elu, readable(rows_at(p.normalised(), sample, s, piece), in), out);
        if constexpr (direct) {
          if (streams) stream(packed, y);
        } else {
          written(y, packed);
        }
      }
  }
  if (streams) end_stream();
}

}  // namespace

template <typename T>
void instance_norm_plus_cpu(const InstanceNormPlus<T>& p, int threads) {
  // Contiguous: both passes plane by plane, as memory lies.
  Strips strips = norm_strips(p.plan.shape, p.plan.channels_last, p.plan.chunks);
  if (strips.chunks > 1) strips.planes = 1;
  const bool pools = p.pooled_width > 0, whole = !p.plan.channels_last && p.plan.shape.samples >= threads;
  const Strips applied = pools   ? pool_strips(p.plan, p.pooled_width)
                         : whole ? Strips{p.plan.shape, false, p.plan.shape.pixels, 1}
                                 : strips;
  collect_and_apply(
      strips, applied, threads, [&](int64_t sample, const Strip& s) { strip_moments(p, sample, s); },
      [&](int64_t sample) { sample_stats(p.plan, sample); },
      [&](int64_t sample, const Strip& s) { pools ? strip_pool(p, sample, s) : strip_apply(p, sample, s); });
}

template void instance_norm_plus_cpu(const InstanceNormPlus<float>&, int);
template void instance_norm_plus_cpu(const InstanceNormPlus<bfloat16>&, int);
template void instance_norm_plus_cpu(const InstanceNormPlus<float16>&, int);
template void instance_norm_plus_cpu(const InstanceNormPlus<double>&, int);

}  // namespace lv
