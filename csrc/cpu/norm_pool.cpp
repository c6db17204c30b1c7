// Tile by tile of some columns of the image and some channels: each of its rows becomes deviations from the mean in a
// ring of five, whose sum down the columns is then summed along the row. An element's additions come in one order
// whatever the tile is. Deviations, not normalised values: nothing cancels behind a large mean.
#include "norm_pool.h"

namespace lv {
namespace {

constexpr int64_t kReach = 2, kSide = 2 * kReach + 1;     // of the window
constexpr int64_t kBand = 8;                              // rows of the image that a thread may have to itself
constexpr int64_t kTogether = 32;                         // channels of a tile, channels-last
constexpr int64_t kRoom = kTogether * (32 + 2 * kReach);  // elements of a tile's row with its borders

// Columns [begin, end) of `lanes` channels from the strip's channel `lane` on; a pixel's are neighbours.
struct Tile {
  int64_t begin, end, lane, lanes, width;  // width of the image

  int64_t columns() const { return end - begin; }
  int64_t first() const { return std::max<int64_t>(0, begin - kReach); }
  int64_t last() const { return std::min(width, end + kReach); }
  int64_t window(int64_t column) const {
    return std::min(width, column + kReach + 1) - std::max<int64_t>(0, column - kReach);
  }
};

// Columns [first, last) of a row of the image.
template <typename T>
Rows<T> pixels_at(T* image, int64_t sample, const Strip& s, const Tile& t, int64_t row, int64_t first, int64_t last) {
  const int64_t pixel = row * t.width + first, channel = s.channel + t.lane, count = last - first;
  T* data = image + sample * s.shape.elements();
  if (s.channels_last) return {data + pixel * s.shape.channels + channel, count, t.lanes, s.shape.channels};
  return {data + channel * s.shape.pixels + pixel, 1, count, count};
}

template <typename A, typename Lanes>
LV_HD void some_deviations(const A* __restrict x, int64_t stride, int64_t count, Lanes lanes, const A* __restrict mean,
                           A* __restrict out) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < lanes; ++j) out[i * lanes + j] = x[i * stride + j] - mean[j];
}

template <typename A>
LV_CLONES void deviations(const A* x, int64_t stride, int64_t count, int64_t lanes, const A* mean, A* out) {
  if (lanes == kTogether)
    return some_deviations(x, stride, count, std::integral_constant<int64_t, kTogether>(), mean, out);
  if (lanes == 1 && stride == 1) return some_deviations(x, 1, count, std::integral_constant<int64_t, 1>(), mean, out);
  some_deviations(x, stride, count, lanes, mean, out);
}

// Of a tile's channels: y = scale / 25 (sum of deviations) + share bias.
template <typename A>
struct PoolCoefficients {
  A scale[kTogether], bias[kTogether];
};

template <typename A, typename Lanes>
LV_HD void some_means(const A* __restrict sums, const PoolCoefficients<A>& k, const A* __restrict share, int64_t count,
                      Lanes lanes, A* __restrict y, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    const A* __restrict at = sums + i * lanes;
    for (int64_t j = 0; j < lanes; ++j) {
      const A outer = at[j] + at[4 * lanes + j], inner = at[lanes + j] + at[3 * lanes + j];
      y[i * stride + j] = fma(k.scale[j], (outer + inner) + at[2 * lanes + j], product(share[i], k.bias[j]));
    }
  }
}

// `rows`: five in the image's order, with borders. `share`: the part of each pixel's window within the image.
template <typename A>
LV_CLONES void means(const A* const* rows, const PoolCoefficients<A>& k, const A* share, int64_t count, int64_t lanes,
                     A* y, int64_t stride) {
  alignas(64) A sums[kRoom];
  const A* __restrict a = rows[0], * __restrict b = rows[1], * __restrict c = rows[2];
  const A* __restrict d = rows[3], * __restrict e = rows[4];
  for (int64_t i = 0; i < (count + 2 * kReach) * lanes; ++i) sums[i] = ((a[i] + e[i]) + (b[i] + d[i])) + c[i];
  if (lanes == kTogether)
    return some_means(sums, k, share, count, std::integral_constant<int64_t, kTogether>(), y, stride);
  if (lanes == 1 && stride == 1) return some_means(sums, k, share, count, std::integral_constant<int64_t, 1>(), y, 1);
  some_means(sums, k, share, count, lanes, y, stride);
}

template <typename T>
class PooledTile {
  using A = Compute<T>;

 public:
  PooledTile(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s, const Tile& tile)
      : p_(p), s_(s), t_(tile), sample_(sample) {
    for (int64_t j = 0; j < t_.lanes; ++j) {
      const NormCoefficients<A> k = p.plan.saved_coefficients(sample, s.channel + t_.lane + j);
      mean_[j] = k.mean, k_.scale[j] = k.scale / A(kSide * kSide), k_.bias[j] = k.bias;
    }
    for (int64_t i = 0; i < kSide; ++i)
      std::fill(ring_[i], ring_[i] + (t_.columns() + 2 * kReach) * t_.lanes, A(0));  // the borders stay 0
  }

  void run() {
    const int64_t begin = s_.begin / t_.width, end = s_.end / t_.width;
    for (int64_t row = begin - kReach; row < end + kReach; ++row) {
      read(row);
      if (row >= begin + kReach) write(row - kReach);
    }
  }

 private:
  int64_t height() const { return s_.shape.pixels / t_.width; }
  A* ring(int64_t row) { return ring_[(row + kReach) % kSide]; }

  void read(int64_t row) {
    A* to = ring(row) + (t_.first() - t_.begin + kReach) * t_.lanes;
    const int64_t count = t_.last() - t_.first();
    if (row < 0 || row >= height()) return void(std::fill(to, to + count * t_.lanes, A(0)));
    const Rows<const T> x = pixels_at(p_.normalised(), sample_, s_, t_, row, t_.first(), t_.last());
    const Rows<const A> wide = readable(x, buffer_);
    deviations(wide.data, s_.channels_last ? wide.stride : 1, count, t_.lanes, mean_, to);
  }

  void write(int64_t row) {
    const int64_t above = std::max<int64_t>(0, row - kReach), below = std::min(height(), row + kReach + 1);
    A share[kRoom];
    for (int64_t i = 0; i < t_.columns(); ++i)
      share[i] = static_cast<A>((below - above) * t_.window(t_.begin + i)) / A(kSide * kSide);
    const A* rows[kSide];
    for (int64_t i = 0; i < kSide; ++i) rows[i] = ring(row - kReach + i);
    const Rows<T> y = pixels_at(p_.y, sample_, s_, t_, row, t_.begin, t_.end);
    const Rows<A> out = writable(y, buffer_);
    means(rows, k_, share, t_.columns(), t_.lanes, out.data, s_.channels_last ? out.stride : 1);
    written(y, buffer_);
  }

  const InstanceNormPlus<T>& p_;
  const Strip& s_;
  const Tile t_;
  int64_t sample_;
  A mean_[kTogether];
  PoolCoefficients<A> k_;
  alignas(64) A ring_[kSide][kRoom], buffer_[kRoom];
};

}  // namespace

template <typename A>
Strips pool_strips(const NormPlan<A>& p, int64_t width) {
  const int64_t band = kBand * width;
  return {p.shape, p.channels_last, band, (p.shape.pixels + band - 1) / band};
}

template <typename T>
void strip_pool(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s) {
  const int64_t together = s.channels_last ? kTogether : 1, width = p.pooled_width;
  for (int64_t lane = 0; lane < s.channels; lane += together) {
    const int64_t lanes = std::min(together, s.channels - lane), columns = kRoom / lanes - 2 * kReach;
    for (int64_t begin = 0; begin < width; begin += columns)
      PooledTile<T>(p, sample, s, {begin, std::min(begin + columns, width), lane, lanes, width}).run();
  }
}

template Strips pool_strips(const NormPlan<float>&, int64_t);
template Strips pool_strips(const NormPlan<double>&, int64_t);
template void strip_pool(const InstanceNormPlus<float>&, int64_t, const Strip&);
template void strip_pool(const InstanceNormPlus<bfloat16>&, int64_t, const Strip&);
template void strip_pool(const InstanceNormPlus<float16>&, int64_t, const Strip&);
template void strip_pool(const InstanceNormPlus<double>&, int64_t, const Strip&);

}  // namespace lv
