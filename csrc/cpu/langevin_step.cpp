#include "../langevin_step.h"

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

template <typename X, typename S>
LV_CLONES void step_chunk(const LangevinStep<X, S>& p, int64_t sample, int64_t begin, int64_t end) {
  X* x = p.x + sample * p.shape.elements();
  const S* score = p.score + sample * p.shape.elements();
  const bool dense = !p.x_channels_last && !p.score_channels_last && p.mask == nullptr;
  MemoryWalk x_walk(p.shape, p.x_channels_last, begin), score_walk(p.shape, p.score_channels_last, begin);
  float z[kNoiseBuffer];
  for (int64_t from = begin; from < end; from += kNoiseBuffer) {
    const int64_t count = std::min(kNoiseBuffer, end - from);
    fill_noise(p.key, p.first + static_cast<uint32_t>(sample), from, count, z);
    if (dense) {
      for (int64_t i = 0; i < count; ++i) x[from + i] = p.moved(x[from + i], score[from + i], z[i]);
      continue;
    }
    for (int64_t i = 0; i < count; ++i, x_walk.next(), score_walk.next()) {
      if (p.is_known(sample, from + i)) continue;
      X& element = x[x_walk.offset()];
      element = p.moved(element, score[score_walk.offset()], z[i]);
    }
  }
}

}  // namespace

template <typename X, typename S>
void langevin_step_cpu(const LangevinStep<X, S>& p, int threads) {
  parallel_chunks(p.shape.samples, p.shape.elements(), threads,
                  [&](int64_t sample, int64_t begin, int64_t end) { step_chunk(p, sample, begin, end); });
}

template <typename X, typename S>
void langevin_table_step_cpu(const LangevinTableStep<X, S>& p, int threads) {
  langevin_step_cpu(p.at_place(), threads);
}

void advance_row_cpu(const AdvanceRow& p) {
  const int64_t row = p.table.place[kPlaceRow] = p.table.next_row();
  std::fill(p.level, p.level + p.samples, p.level_of(row));
}

template void langevin_step_cpu(const LangevinStep<float, float>&, int);
template void langevin_step_cpu(const LangevinStep<float, bfloat16>&, int);
template void langevin_step_cpu(const LangevinStep<float, float16>&, int);
template void langevin_step_cpu(const LangevinStep<double, double>&, int);
template void langevin_table_step_cpu(const LangevinTableStep<float, float>&, int);
template void langevin_table_step_cpu(const LangevinTableStep<float, bfloat16>&, int);
template void langevin_table_step_cpu(const LangevinTableStep<float, float16>&, int);
template void langevin_table_step_cpu(const LangevinTableStep<double, double>&, int);

}  // namespace lv
