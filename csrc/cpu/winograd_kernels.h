// The float32 form of winograd.h; see winograd_loops.h.
#include "winograd_loops.h"

namespace lv {
namespace LV_ISA {
namespace {

struct Float32 {
  typedef float Factor;
  typedef Vector Sum;
  static constexpr int kScale = 0;

  static inline __attribute__((always_inline)) Sum plus(Sum sum, float left, Sum right) { return sum + left * right; }
  static inline __attribute__((always_inline)) Vector added(Vector to, Sum sum, const float*, int) { return to + sum; }
};

// Row `slot` of each of the 36 matrices [block, C], in strips of kRun.
void transform_input(const Winograd& p, int64_t tile, int64_t slot, int64_t block, float* out) {
  const Pixels pixels(p, tile);
  const int64_t plane = p.plane(p.channels);
  for (int64_t c = 0; c < p.channels; c += kLanes) {
    const Strip strip(p.channels, kRun, block, c);
    float* to = out + strip.offset + slot * strip.width + c % kRun;
    Vector v[kPoints];
    pixels.begin(c, v);
    for (int64_t i = 0; i < kPatch; ++i) {
      to_points<1>(v + kPatch * i);
      for (int64_t j = 0; j < kPatch; ++j) store(to + (kPatch * i + j) * plane, v[kPatch * i + j]);
    }
  }
}

// Product of the transforms at one point for one panel of outputs: v [rows, C] in strips of kRun, m [rows, panel].
void product(const Winograd& p, int64_t point, int64_t panel, int64_t rows, int64_t block, const float* v, float* m) {
  const int64_t first = panel * kPanel, width = p.outputs - first < kPanel ? p.outputs - first : kPanel;
  const float* weight = p.weight + (point * p.outputs + first) * p.channels;
  m += first * block;
  for (int64_t k = 0; k < p.channels; k += kRun) {
    const int64_t run = p.channels - k < kRun ? p.channels - k : kRun;
    multiply_panel<Float32>(v + k * block, run, weight + k * width, width, nullptr, m, rows, k == 0);
  }
}

}  // namespace

void winograd(const Winograd& p, int threads) {
  float *v = p.scratch, *m = v + kPoints * p.plane(p.channels);
  convolve(
      p, m, threads, [&](int64_t tile, int64_t slot, int64_t block) { transform_input(p, tile, slot, block, v); },
      [&](int64_t point, int64_t panel, int64_t rows, int64_t block) {
        product(p, point, panel, rows, block, v + point * p.plane(p.channels), m + point * p.plane(p.outputs));
      });
}

}  // namespace LV_ISA
}  // namespace lv
