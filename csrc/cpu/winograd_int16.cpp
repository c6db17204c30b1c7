// The form with 16-bit factors of winograd.h, for CPUs with AVX512-VNNI: vpdpwssd multiplies and adds twice as many of
// them in the time of a float32 multiply-add. The pragmas stand behind what other files include too, which must stay
// what it is there.
#include "../winograd.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#include <immintrin.h>
#pragma GCC target("arch=x86-64-v4,avx512vnni")
#pragma GCC optimize("fp-contract=fast")
#define LV_ISA vnni
#define LV_LANES 16
#define LV_WIDTH 4
#include "winograd_loops.h"

namespace lv {
namespace vnni {
namespace {

typedef int32_t Integers __attribute__((vector_size(4 * kVector)));
constexpr int64_t kRun = WinogradInt16::kRun, kRunPairs = kRun / 2;

// One rounding wherever it stands, so that results do not depend on which copy of a loop computes them.
inline __attribute__((always_inline)) Vector multiply_add(Vector a, float b, Vector c) {
  return (Vector)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(b), (__m512)c);
}

struct Int16 {
  typedef int32_t Factor;  // a pair
  typedef Integers Sum;
  static constexpr int kScale = 1;

  static inline __attribute__((always_inline)) Sum plus(Sum sum, int32_t left, Sum right) {
    return (Sum)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32(left), (__m512i)right);
  }
  static inline __attribute__((always_inline)) Vector added(Vector to, Sum sum, const float* scale, int row) {
    return multiply_add(__builtin_convertvector(sum, Vector), scale[row], to);
  }
};

// Lane i is the largest lane of v[i].
inline __attribute__((always_inline)) Integers largest_lanes(const Integers* v) {
  Integers found[kVector];
  for (int64_t i = 0; i < kVector; ++i) found[i] = v[i];
  // In each round a vector holds the lanes of twice as many: those of the first where bit `half` of the lane is clear.
#pragma GCC unroll 4
  for (int64_t half = 1; half < kVector; half *= 2) {
    Integers low{}, high{};
#pragma GCC unroll 16
    for (int64_t lane = 0; lane < kVector; ++lane) {
      low[lane] = lane & half ? lane - half + kVector : lane;
      high[lane] = lane & half ? lane + kVector : lane + half;
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kVector; i += 2 * half) {
      const Integers a = __builtin_shuffle(found[i], found[i + half], low);
      const Integers b = __builtin_shuffle(found[i], found[i + half], high);
      found[i] = a > b ? a : b;
    }
  }
  return found[0];
}

// Row `slot` of each of the 36 matrices [block, pairs], in strips of kRunPairs, and its factors [runs, 36, block].
void transform_input(const WinogradInt16& p, int64_t tile, int64_t slot, int64_t block, int32_t* out, float* scales) {
  constexpr int64_t kVectors = kRun / kVector, kRounds = (kPoints + kVector - 1) / kVector;
  constexpr float kLeast = 1e-30f;   // smaller values become zero
  constexpr float kRound = 3 << 22;  // the last bits of a sum with it are the integer next to the other summand
  const Pixels pixels(p, tile);
  const int64_t pairs = p.pairs_of_channels(), plane = p.plane(pairs);
  for (int64_t run = 0; run < p.runs(); ++run) {
    const int64_t first = run * kRun, channels = p.channels - first < kRun ? p.channels - first : kRun;
    Vector v[kVectors][kPoints], factors[kRounds], inverse[kRounds];
    Integers largest[kRounds * kVector] = {};
    for (int64_t n = 0; n < channels / kVector; ++n) {
      pixels.begin(first + n * kVector, v[n]);
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
      const Integers least = (Integers)(Vector{} + kLeast), size = largest_lanes(largest + i * kVector);
      const Vector most = (Vector)(size > least ? size : least);
      factors[i] = float(p.kLargest) / most;
      inverse[i] = most * (1.0f / p.kLargest);
    }
    const Strip strip(pairs, kRunPairs, block, run * kRunPairs);
    for (int64_t i = 0; i < kPoints; ++i) {
      const float factor = reinterpret_cast<const float*>(factors)[i];
      scales[(run * kPoints + i) * block + slot] = reinterpret_cast<const float*>(inverse)[i] * p.point_scale[i];
      int32_t* to = out + i * plane + strip.offset + slot * strip.width;
      for (int64_t n = 0; n < channels / kVector; n += 2, to += kVector) {
        const Integers low = (Integers)multiply_add(v[n][i], factor, Vector{} + kRound) & 0xffff;
        const bool both = n + 1 < channels / kVector;
        const Integers high = both ? (Integers)multiply_add(v[n + 1][i], factor, Vector{} + kRound) << 16 : Integers{};
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

}  // namespace
}  // namespace vnni

const char* why_no_winograd_int16_cpu() {
  return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni") ? ""
                                                                                     : "this CPU has no AVX512-VNNI";
}
void winograd_int16_cpu(const WinogradInt16& p, int threads) { vnni::winograd(p, threads); }

}  // namespace lv
#else
namespace lv {

const char* why_no_winograd_int16_cpu() { return "the native core was not compiled for x86-64 by GCC 12 or newer"; }
void winograd_int16_cpu(const WinogradInt16&, int) {}

}  // namespace lv
#endif
