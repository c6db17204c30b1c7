// The loops of winograd.h's form with 16-bit factors. Included once for each instruction set, as winograd_loops.h is.
//
// A product of two pairs is one instruction that adds it to its sum where AVX512-VNNI is (vpdpwssd), and two with AVX2
// (vpmaddwd, vpaddd), which have twice the factors of a float32 multiply-add.
#include <immintrin.h>

#include "winograd_loops.h"

namespace lv {
namespace LV_ISA {
namespace {

typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
constexpr int64_t kRun = WinogradInt16::kRun, kRunPairs = kRun / 2;

// multiply_add rounds once wherever it stands, so that results do not depend on which copy of a loop computes them.
#if LV_LANES == 16
inline __attribute__((always_inline)) Vector multiply_add(Vector a, float b, Vector c) {
  return (Vector)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(b), (__m512)c);
}
inline __attribute__((always_inline)) Integers add_products(Integers sum, int32_t left, Integers right) {
  return (Integers)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32(left), (__m512i)right);
}
#else
inline __attribute__((always_inline)) Vector multiply_add(Vector a, float b, Vector c) {
  return (Vector)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(b), (__m256)c);
}
inline __attribute__((always_inline)) Integers add_products(Integers sum, int32_t left, Integers right) {
  return sum + (Integers)_mm256_madd_epi16(_mm256_set1_epi32(left), (__m256i)right);
}
#endif

struct Int16 {
  typedef int32_t Factor;  // a pair
  typedef Integers Sum;
  static constexpr int kScale = 1;

  static inline __attribute__((always_inline)) Sum plus(Sum sum, int32_t left, Sum right) {
    return add_products(sum, left, right);
  }
  static inline __attribute__((always_inline)) Vector added(Vector to, Sum sum, const float* scale, int row) {
    return multiply_add(__builtin_convertvector(sum, Vector), scale[row], to);
  }
};

// Lane i is the largest lane of v[i].
inline __attribute__((always_inline)) Integers largest_lanes(const Integers* v) {
  Integers found[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) found[i] = v[i];
  // In each round a vector holds the lanes of twice as many: those of the first where bit `half` of the lane is clear.
#pragma GCC unroll 4
  for (int64_t half = 1; half < kLanes; half *= 2) {
    Integers low{}, high{};
#pragma GCC unroll 16
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      low[lane] = lane & half ? lane - half + kLanes : lane;
      high[lane] = lane & half ? lane + kLanes : lane + half;
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kLanes; i += 2 * half) {
      const Integers a = __builtin_shuffle(found[i], found[i + half], low);
      const Integers b = __builtin_shuffle(found[i], found[i + half], high);
      found[i] = a > b ? a : b;
    }
  }
  return found[0];
}

// Row `slot` of each of the 36 matrices [block, pairs], in strips of kRunPairs, and its factors [runs, 36, block].
void transform_input(const WinogradInt16& p, int64_t tile, int64_t slot, int64_t block, int32_t* out, float* scales) {
  constexpr int64_t kHalf = kVector / kLanes, kCount = kRun / kLanes, kRounds = (kPoints + kLanes - 1) / kLanes;
  constexpr float kLeast = 1e-30f;   // smaller values become zero
  constexpr float kRound = 3 << 22;  // the last bits of a sum with it are the integer next to the other summand
  const Pixels pixels(p, tile);
  const int64_t pairs = p.pairs_of_channels(), plane = p.plane(pairs);
  for (int64_t run = 0; run < p.runs(); ++run) {
    const int64_t first = run * kRun, channels = p.channels - first < kRun ? p.channels - first : kRun;
    Vector v[kCount][kPoints], factors[kRounds], inverse[kRounds];
    Integers largest[kRounds * kLanes] = {};
    for (int64_t n = 0; n < channels / kLanes; ++n) {
      pixels.begin(first + n * kLanes, v[n]);
      for (int64_t i = 0; i < kPatch; ++i) {
        to_points<1>(v[n] + kPatch * i);
        for (int64_t j = kPatch * i; j < kPatch * (i + 1); ++j) {
          // As integers, what is not finite is larger than what is.
          const Integers size = (Integers)v[n][j] & 0x7fffffff;
          largest[j] = size > largest[j] ? size : largest[j];
        }
      }
    }
    for (int64_t i = 0; i < kRounds; ++i) {
      const Integers least = (Integers)(Vector{} + kLeast), size = largest_lanes(largest + i * kLanes);
      const Vector most = (Vector)(size > least ? size : least);
      factors[i] = float(p.kLargest) / most;
      inverse[i] = most * (1.0f / p.kLargest);
    }
    const Strip strip(pairs, kRunPairs, block, run * kRunPairs);
    for (int64_t i = 0; i < kPoints; ++i) {
      const float factor = reinterpret_cast<const float*>(factors)[i];
      scales[(run * kPoints + i) * block + slot] = reinterpret_cast<const float*>(inverse)[i] * p.point_scale[i];
      int32_t* to = out + i * plane + strip.offset + slot * strip.width;
      for (int64_t n = 0; n < channels / kLanes; n += n % kHalf == kHalf - 1 ? kHalf + 1 : 1, to += kLanes) {
        const Integers low = (Integers)multiply_add(v[n][i], factor, Vector{} + kRound) & 0xffff;
        const bool both = n + kHalf < channels / kLanes;
        const Integers high =
            both ? (Integers)multiply_add(v[n + kHalf][i], factor, Vector{} + kRound) << 16 : Integers{};
        store(to, high | low);
      }
    }
  }
}

// Product of the transforms at one point for one panel of outputs.
void product(const WinogradInt16& p, int64_t point, int64_t panel, int64_t rows, int64_t block, const int32_t* v,
             const float* scales, float* m) {
  const int64_t first = panel * kPanel, width = p.outputs - first < kPanel ? p.outputs - first : kPanel;
  const int64_t pairs = p.pairs_of_channels();
  const int32_t* weight = reinterpret_cast<const int32_t*>(p.pairs) + (point * p.outputs + first) * pairs;
  m += first * block;
  for (int64_t run = 0, k = 0; k < pairs; ++run, k += kRunPairs) {
    const int64_t count = pairs - k < kRunPairs ? pairs - k : kRunPairs;
    multiply_panel<Int16>(v + k * block, count, weight + k * width, width, scales + (run * kPoints + point) * block, m,
                          rows, k == 0);
  }
}

}  // namespace

void winograd(const WinogradInt16& p, int threads) {
  const int64_t plane = p.plane(p.pairs_of_channels());
  int32_t* v = reinterpret_cast<int32_t*>(p.scratch);
  float *m = p.scratch + kPoints * plane, *scales = m + kPoints * p.plane(p.outputs);
  convolve(
      p, m, threads,
      [&](int64_t tile, int64_t slot, int64_t block) { transform_input(p, tile, slot, block, v, scales); },
      [&](int64_t point, int64_t panel, int64_t rows, int64_t block) {
        product(p, point, panel, rows, block, v + point * plane, scales, m + point * p.plane(p.outputs));
      });
}

}  // namespace LV_ISA
}  // namespace lv
