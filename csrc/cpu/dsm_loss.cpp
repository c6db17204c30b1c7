#include "../dsm_loss.h"

#include "noise_buffer.h"
#include "parallel.h"

namespace lv {
namespace {

static_assert(kChunk % kDsmChunk == 0 && kDsmChunk % kNoiseBuffer == 0, "pieces nest");

// Halves `width` sums until one is left in v[0], as shuffles in a warp do.
template <int width, typename C>
LV_HD C sum_by_halving(C* v) {
  if constexpr (width > 1) {
    for (int lane = 0; lane < width / 2; ++lane) v[lane] += v[lane + width / 2];
    sum_by_halving<width / 2>(v);
  }
  return v[0];
}

// r[0, count) = residuals from element `from` on; the gradient is written on the way.
template <typename T>
LV_HD void residuals(const DsmLoss<T>& p, int64_t sample, int64_t from, int64_t count, MemoryWalk& walk,
                     Compute<T>* r) {
  const T* score = p.score + sample * p.shape.elements();
  T* grad = p.grad + (p.grad == nullptr ? 0 : sample * p.shape.elements());
  const Compute<T> sigma = p.sigma[sample], scale = p.weight_of(sample) * sigma;
  float z[kNoiseBuffer];
  fill_noise(p.key, p.first + static_cast<uint32_t>(sample), from, count, z);
  if (!p.channels_last) {
    for (int64_t i = 0; i < count; ++i) r[i] = p.residual(score[from + i], sigma, z[i]);
    if (p.grad == nullptr) return;
    for (int64_t i = 0; i < count; ++i) grad[from + i] = store<T>(scale * r[i]);
    return;
  }
  for (int64_t i = 0; i < count; ++i, walk.next()) {
    r[i] = p.residual(score[walk.offset()], sigma, z[i]);
    if (p.grad != nullptr) grad[walk.offset()] = store<T>(scale * r[i]);
  }
}

// partials[sample, begin / kDsmChunk ...] of the pieces in [begin, end).
template <typename T>
LV_CLONES void loss_chunk(const DsmLoss<T>& p, int64_t sample, int64_t begin, int64_t end) {
  MemoryWalk walk(p.shape, p.channels_last, begin);
  for (int64_t chunk = begin; chunk < end; chunk += kDsmChunk) {
    const int64_t chunk_end = std::min(chunk + kDsmChunk, end);
    Compute<T> lanes[kDsmLanes] = {};
    for (int64_t from = chunk; from < chunk_end; from += kNoiseBuffer) {
      const int64_t count = std::min(kNoiseBuffer, chunk_end - from);
      Compute<T> r[kNoiseBuffer];
      residuals(p, sample, from, count, walk, r);
      for (int64_t i = count; i % 4 != 0; ++i) r[i] = 0;
      for (int64_t block = 0; block < (count + 3) / 4; ++block)
        lanes[(from - chunk) / 4 + block] = sum_of_squares(r + 4 * block);
    }
    Compute<T> sum = sum_by_halving<kWarp>(lanes);
    for (int warp = 1; warp < kDsmLanes / kWarp; ++warp) sum += sum_by_halving<kWarp>(lanes + warp * kWarp);
    p.partials[sample * p.chunks() + chunk / kDsmChunk] = sum;
  }
}

}  // namespace

template <typename T>
void dsm_loss_cpu(const DsmLoss<T>& p, int threads) {
  parallel_chunks(p.shape.samples, p.shape.elements(), threads,
                  [&](int64_t sample, int64_t begin, int64_t end) { loss_chunk(p, sample, begin, end); });
  for (int64_t sample = 0; sample < p.shape.samples; ++sample) {
    double lanes[kWarp] = {};
    for (int64_t chunk = 0; chunk < p.chunks(); ++chunk)
      lanes[chunk % kWarp] += static_cast<double>(p.partials[sample * p.chunks() + chunk]);
    p.loss[sample] = p.loss_of(sample, sum_by_halving<kWarp>(lanes));
  }
}

template void dsm_loss_cpu(const DsmLoss<float>&, int);
template void dsm_loss_cpu(const DsmLoss<bfloat16>&, int);
template void dsm_loss_cpu(const DsmLoss<float16>&, int);
template void dsm_loss_cpu(const DsmLoss<double>&, int);

}  // namespace lv
