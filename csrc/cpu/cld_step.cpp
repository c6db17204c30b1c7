#include "../cld_step.h"

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

template <typename X>
LV_CLONES void move_dense(const CldStep<X>& p, int64_t count, X* __restrict x, X* __restrict v, const X* __restrict s,
                          const float* __restrict z_x, const float* __restrict z_v) {
  for (int64_t i = 0; i < count; ++i) p.move(x[i], v[i], s[i], z_x[i], z_v[i]);
}

template <typename X>
LV_CLONES void step_chunk(const CldStep<X>& p, int64_t sample, int64_t begin, int64_t end) {
  X* u = p.u + 2 * sample * p.shape.elements();
  const X* score = p.score == nullptr ? nullptr : p.score + sample * p.shape.elements();
  const uint32_t global = p.first + static_cast<uint32_t>(sample);
  MemoryWalk u_walk(p.both(), p.u_channels_last, begin), score_walk(p.shape, p.score_channels_last, begin);
  float z_x[kNoiseBuffer] = {}, z_v[kNoiseBuffer] = {};
  const X no_score[kNoiseBuffer] = {};
  for (int64_t from = begin; from < end; from += kNoiseBuffer) {
    const int64_t count = std::min(kNoiseBuffer, end - from);
    if (p.draws_x()) fill_noise(p.key_x, global, from, count, z_x);
    if (p.draws_v()) fill_noise(p.key_v, global, from, count, z_v);
    if (!p.u_channels_last && !p.score_channels_last) {
      X* x = u + from;
      move_dense(p, count, x, x + p.x_to_v(), score == nullptr ? no_score : score + from, z_x, z_v);
      continue;
    }
    for (int64_t i = 0; i < count; ++i, u_walk.next(), score_walk.next()) {
      X* x = u + u_walk.offset();
      p.move(*x, x[p.x_to_v()], score == nullptr ? X(0) : score[score_walk.offset()], z_x[i], z_v[i]);
    }
  }
}

}  // namespace

template <typename X>
void cld_step_cpu(const CldStep<X>& p, int threads) {
  parallel_chunks(p.shape.samples, p.shape.elements(), threads,
                  [&](int64_t sample, int64_t begin, int64_t end) { step_chunk(p, sample, begin, end); });
}

template void cld_step_cpu(const CldStep<float>&, int);
template void cld_step_cpu(const CldStep<double>&, int);

}  // namespace lv
