// x <- x + score_coef score + noise_coef z: one step of (annealed) Langevin dynamics.
//
//   Song and Ermon 2019, Algorithm 1, line 6:   score_coef = alpha_i / 2,  noise_coef = sqrt(alpha_i)
//   the unadjusted Langevin algorithm:          score_coef = g,            noise_coef = sqrt(2 g)
//
// Known pixels of inpainting (Algorithm 2) are left as they are. z is noise_normals of the counter, never stored.
#pragma once

#include "half.h"
#include "images.h"
#include "philox.h"

namespace lv {

template <typename X, typename S>
struct LangevinStep {
  X* x;                 // [N, C, P]
  const S* score;       // [N, C, P]
  const uint8_t* mask;  // [C, P] or [N, C, P], contiguous, non-zero: leave x; or null
  ImageShape shape;
  bool x_channels_last, score_channels_last, mask_per_sample;
  X score_coef, noise_coef;
  NoiseKey key;
  uint32_t first;  // global index of sample 0

  LV_HD X moved(X x_old, S s, float z) const {
    return fma(noise_coef, static_cast<X>(z), fma(score_coef, static_cast<X>(load(s)), x_old));
  }
  LV_HD bool is_known(int64_t sample, int64_t element) const {
    return mask != nullptr && mask[(mask_per_sample ? sample * shape.elements() : 0) + element] != 0;
  }
};

// The same step with everything that changes from step to step read from memory, so that a captured step can be
// replayed for any schedule:
//
//   place = [row, seed, first]      row counts the steps that were made; the seed's 64 bits as they are
//   table[row] = [score_coef, noise_coef, step, level]
//
// A row outside the table makes x NaN.
enum : int { kPlaceRow, kPlaceSeed, kPlaceFirst, kPlaceSize };
enum : int { kScoreCoef, kNoiseCoef, kStepNumber, kLevel, kTableColumns };

struct StepTable {
  const double* rows;  // [R, 4]
  int64_t count;       // R
  int64_t* place;      // [3]

  LV_HD bool holds(int64_t row) const { return row >= 0 && row < count; }
  // In unsigned numbers, as the largest must not overflow.
  LV_HD int64_t next_row() const { return static_cast<int64_t>(static_cast<uint64_t>(place[kPlaceRow]) + 1); }
};

template <typename X, typename S>
struct LangevinTableStep {
  LangevinStep<X, S> step;  // its coefficients, key.seed_*, key.step and first are those of the table
  StepTable table;

  LV_HD LangevinStep<X, S> at_place() const {
    LangevinStep<X, S> p = step;
    const int64_t row = table.place[kPlaceRow];
    const uint64_t seed = static_cast<uint64_t>(table.place[kPlaceSeed]);
    const double nan = bit_cast<double>(0x7FF8000000000000);
    const bool held = table.holds(row);
    const double* values = table.rows + (held ? kTableColumns * row : 0);
    p.score_coef = static_cast<X>(held ? values[kScoreCoef] : nan);
    p.noise_coef = static_cast<X>(held ? values[kNoiseCoef] : nan);
    p.key.step = held ? static_cast<uint32_t>(values[kStepNumber]) : 0;
    p.key.seed_low = static_cast<uint32_t>(seed);
    p.key.seed_high = static_cast<uint32_t>(seed >> 32);
    p.first = static_cast<uint32_t>(table.place[kPlaceFirst]);
    return p;
  }
};

// To the next row: place[0] += 1, level[n] = the level of that row; -1 outside the table.
struct AdvanceRow {
  StepTable table;
  int64_t* level;  // [N]
  int64_t samples;

  LV_HD int64_t level_of(int64_t row) const {
    return table.holds(row) ? static_cast<int64_t>(table.rows[kTableColumns * row + kLevel]) : -1;
  }
};

template <typename X, typename S>
void langevin_step_cpu(const LangevinStep<X, S>& p, int threads);
template <typename X, typename S>
void langevin_step_cuda(const LangevinStep<X, S>& p, void* stream);
template <typename X, typename S>
void langevin_table_step_cpu(const LangevinTableStep<X, S>& p, int threads);
template <typename X, typename S>
void langevin_table_step_cuda(const LangevinTableStep<X, S>& p, void* stream);
void advance_row_cpu(const AdvanceRow& p);
void advance_row_cuda(const AdvanceRow& p, void* stream);

}  // namespace lv
