// What the forms of winograd.h share. Included once for each instruction set, after its `#pragma GCC target`, in a
// namespace LV_ISA of its own. LV_LANES is how many floats one of its registers holds: wider vectors would not stay in
// registers, GCC moves them through memory in pieces. LV_WIDTH is how many of them fit six times, as the product's
// sums. A form is a struct with the types `Factor` and `Sum` and the functions `plus` and `added` of the product's
// loop.
#include <type_traits>

#include "../winograd.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to functions that are always inlined, so no ABI is used
#endif

namespace lv {
namespace LV_ISA {
namespace {

constexpr int64_t kLanes = LV_LANES;
typedef float Vector __attribute__((vector_size(4 * kLanes)));

template <typename Any = Vector>
inline __attribute__((always_inline)) Any load(const void* from) {
  Any value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}
template <typename Any>
inline __attribute__((always_inline)) void store(void* to, Any value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

template <typename Form>
using Factor = typename Form::Factor;

// Where tile `index` of all lies: its first output pixel, and how far its phase of the dilation goes.
struct Place {
  int64_t sample, row, column;

  Place(const Winograd& p, int64_t index) {
    const int64_t across = p.tiles_along(p.width), down = p.tiles_along(p.height), d = p.dilation;
    column = index % across * kTile * d, index /= across;
    row = index % down * kTile * d, index /= down;
    column += index % d, index /= d;
    row += index % d, sample = index / d;
  }
};

// v <- B^T v along one axis; element i of v is v[i * step].
template <int step>
inline __attribute__((always_inline)) void to_points(Vector* v) {
  const Vector a = v[3 * step] - v[step], b = v[4 * step] - v[2 * step];
  const Vector first = v[0] - v[2 * step] + 1.5f * a + b;
  const Vector last = v[5 * step] - v[3 * step] - a + 1.5f * b;
  const Vector plus = a + b + 1.5f * (v[2 * step] + v[3 * step]);
  const Vector minus = b - a + 1.5f * (v[3 * step] - v[2 * step]);
  v[0] = first, v[step] = plus, v[2 * step] = minus;
  v[3 * step] = b + 2.0f * a, v[4 * step] = b - 0.5f * a, v[5 * step] = last;
}

// The first four of v <- A^T v.
template <int step>
inline __attribute__((always_inline)) void from_points(Vector* v) {
  const Vector sum = v[step] + v[2 * step], difference = v[step] - v[2 * step];
  const Vector half = v[3 * step], two = v[4 * step];
  v[0] = v[0] + sum + (half + two);
  v[step] = difference + (0.5f * half - 2.0f * two);
  v[2 * step] = sum + (0.25f * half + 4.0f * two);
  v[3 * step] = difference + (0.125f * half - 8.0f * two) + v[5 * step];
}

// Where the columns from `column` of a matrix of `block` rows lie: it is cut into strips of `strip` columns, one behind
// the other, so that the rows of a strip are neighbours in the cache.
struct Strip {
  int64_t offset, width;

  Strip(int64_t columns, int64_t strip, int64_t block, int64_t column)
      : offset(column / strip * strip * block),
        width(columns - column / strip * strip < strip ? columns - column / strip * strip : strip) {}
};

// Where the 36 pixels of a tile lie, null outside the image.
struct Pixels {
  const float* from[kPoints];

  Pixels(const Winograd& p, int64_t tile) {
    const Place at(p, tile);
    const float* image = p.x + at.sample * p.height * p.width * p.channels;
    for (int64_t i = 0; i < kPoints; ++i) {
      const int64_t row = at.row + (i / kPatch - 1) * p.dilation, column = at.column + (i % kPatch - 1) * p.dilation;
      const bool inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
      from[i] = inside ? image + (row * p.width + column) * p.channels : nullptr;
    }
  }
  // v <- B^T d of kLanes channels.
  inline __attribute__((always_inline)) void begin(int64_t channel, Vector* v) const {
    for (int64_t i = 0; i < kPoints; ++i) v[i] = from[i] != nullptr ? load(from[i] + channel) : Vector{};
    for (int64_t i = 0; i < kPatch; ++i) to_points<kPatch>(v + i);
  }
};

// m (+)= a b over `run` factors: a [rows, run], b [run, width], m [rows, width]; `scale` is of the rows.
template <typename Form, int rows, int vectors>
inline __attribute__((always_inline)) void multiply(const Factor<Form>* a, int64_t run, const Factor<Form>* b,
                                                    int64_t width, const float* scale, float* m, bool begin) {
  typename Form::Sum sums[rows][vectors] = {};
  const int64_t twice = 2 * run;  // six rows by two pointers and two strides: all addresses stay in registers
  const Factor<Form>* below = a + twice + run;
  for (int64_t k = 0; k < run; ++k, ++a, ++below, b += width) {
    typename Form::Sum right[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) right[j] = load<typename Form::Sum>(b + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const int64_t at = i % 3 == 0 ? 0 : i % 3 == 1 ? run : twice;  // within [] GCC 12's sanitizer makes it wrong
      const Factor<Form> left = (i < 3 ? a : below)[at];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sums[i][j] = Form::plus(sums[i][j], left, right[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      float* to = m + i * width + j * kLanes;
      store(to, Form::added(begin ? Vector{} : load(to), sums[i][j], scale, i));
    }
  }
}

template <typename Form, int vectors>
void multiply_rows(const Factor<Form>* a, int64_t run, const Factor<Form>* b, int64_t width, const Factor<Form>* ahead,
                   const float* scale, float* m, int64_t rows, bool begin) {
  constexpr int kRows = 6, kLine = 16;
  // The weights that are needed next: as many as are multiplied here, of the next run's.
  const int64_t columns = vectors * kLanes, share = run * columns * kRows / (rows * kLine) + 1;
  const Factor<Form>* end = ahead + run * columns;
  const auto next = [&](auto count) __attribute__((always_inline)) {
    constexpr int kCount = decltype(count)::value;
    multiply<Form, kCount, vectors>(a, run, b, width, scale, m, begin);
    rows -= kCount, a += kCount * run, m += kCount * width, scale += Form::kScale * kCount;
  };
  while (rows >= kRows) {
    for (int64_t i = 0; i < share && ahead < end; ++i, ahead += kLine) __builtin_prefetch(ahead);
    next(std::integral_constant<int, kRows>());
  }
  if (rows >= 4) next(std::integral_constant<int, 4>());
  if (rows >= 2) next(std::integral_constant<int, 2>());
  if (rows >= 1) next(std::integral_constant<int, 1>());
}

// The columns from `j` on.
template <typename Form, int vectors = LV_WIDTH>
void multiply_panel(const Factor<Form>* a, int64_t run, const Factor<Form>* b, int64_t width, const float* scale,
                    float* m, int64_t rows, bool begin, int64_t j = 0) {
  for (; width - j >= vectors * kLanes; j += vectors * kLanes)
    multiply_rows<Form, vectors>(a, run, b + j, width, b + run * (width + j), scale, m + j, rows, begin);
  if constexpr (vectors * kLanes > kVector)
    multiply_panel<Form, vectors / 2>(a, run, b, width, scale, m, rows, begin, j);
}

// Where a tile's results go: those inside the image, each the element of the transform that it begins at and its offset
// in y.
struct Results {
  int count = 0, from[kTile * kTile];
  int64_t to[kTile * kTile];

  Results(const Winograd& p, int64_t tile) {
    const Place at(p, tile);
    const int64_t shrink = p.pool ? 2 : 1, height = p.height / shrink, width = p.width / shrink;
    for (int64_t i = 0; i < kTile / shrink; ++i) {
      for (int64_t j = 0; j < kTile / shrink; ++j) {
        const int64_t row = at.row / shrink + i * p.dilation, column = at.column / shrink + j * p.dilation;
        if (row >= height || column >= width) continue;
        from[count] = static_cast<int>((kPatch * i + j) * shrink);
        to[count++] = ((at.sample * height + row) * width + column) * p.outputs;
      }
    }
  }
};

void transform_output(const Winograd& p, int64_t tile, int64_t slot, int64_t block, const float* m) {
  const Results results(p, tile);
  const int64_t plane = p.plane(p.outputs);
  for (int64_t c = 0; c < p.outputs; c += kLanes) {
    const Strip strip(p.outputs, kPanel, block, c);
    const float* from = m + strip.offset + slot * strip.width + c % kPanel;
    Vector v[kPoints];
    for (int64_t i = 0; i < kPoints; ++i) v[i] = load(from + i * plane);
    for (int64_t i = 0; i < kPatch; ++i) from_points<kPatch>(v + i);
    for (int64_t i = 0; i < kTile; ++i) from_points<1>(v + kPatch * i);
    const Vector scale = p.scale != nullptr ? load(p.scale + c) : Vector{} + 1.0f;
    const Vector bias = p.bias != nullptr ? load(p.bias + c) : Vector{};
    for (int i = 0; i < results.count; ++i) {
      const Vector* found = v + results.from[i];
      Vector value = p.pool ? 0.25f * ((found[0] + found[1]) + (found[kPatch] + found[kPatch + 1])) : found[0];
      value = value * scale + bias;
      const int64_t offset = results.to[i] + c;
      if (p.add != nullptr) value += load(p.add + offset);
      store(p.y + offset, value);
    }
  }
}

// transform(tile, slot, block) is the transform of a tile of x, product(point, panel, rows, block) of `block` of them.
template <typename Transform, typename Product>
void convolve(const Winograd& p, const float* m, int threads, const Transform& transform, const Product& product) {
  const int64_t tiles = p.tiles(), block = p.block(), panels = (p.outputs + kPanel - 1) / kPanel;
#pragma omp parallel num_threads(threads) if (threads > 1)
  for (int64_t begin = 0; begin < tiles; begin += block) {
    const int64_t count = tiles - begin < block ? tiles - begin : block;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; ++i) transform(begin + i, i, block);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < kPoints * panels; ++i) product(i / panels, i % panels, count, block);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; ++i) transform_output(p, begin + i, i, block, m);
  }
}

}  // namespace
}  // namespace LV_ISA
}  // namespace lv
