#include "../instance_norm_plus.h"
#include "norm_blocks.h"

namespace lv {
namespace {

// dL/d(the normalised value): grad_y times ELU's slope.
template <bool kElu, typename A>
LV_HD A output_grad(A grad_y, A x, const NormCoefficients<A>& k) {
  return kElu ? grad_y * elu_slope(k(x)) : grad_y;
}

// Channels-last: sum of g and of g (x - mu) for each column.
template <bool kElu, typename A>
LV_HD void sum_columns(const StripCoefficients<A>& k, const Rows<const A>& x_rows, const Rows<const A>& grad_rows,
                       A* __restrict first, A* __restrict second) {
  for (int64_t j = 0; j < x_rows.width; ++j) first[j] = second[j] = A(0);
  for (int64_t row = 0; row < x_rows.count; ++row) {
    const A* __restrict x = x_rows.data + row * x_rows.stride;
    const A* __restrict grad_y = grad_rows.data + row * grad_rows.stride;
    for (int64_t j = 0; j < x_rows.width; ++j) {
      const A g = output_grad<kElu>(grad_y[j], x[j], k[j]);
      first[j] += g;
      second[j] = fma(g, x[j] - k.mean[j], second[j]);
    }
  }
}

// Contiguous: the same two for the row.
template <bool kElu, typename A>
LV_HD void sum_row(const NormCoefficients<A>& k, const Rows<const A>& x_row, const Rows<const A>& grad_row, A* first,
                   A* second) {
  const A* __restrict x = x_row.data, * __restrict grad_y = grad_row.data;
  A sums[kSums] = {}, products[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= x_row.width; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) {
      const A g = output_grad<kElu>(grad_y[i + j], x[i + j], k);
      sums[j] += g;
      products[j] = fma(g, x[i + j] - k.mean, products[j]);
    }
  }
  for (int64_t j = 0; i + j < x_row.width; ++j) {
    const A g = output_grad<kElu>(grad_y[i + j], x[i + j], k);
    sums[j] += g;
    products[j] = fma(g, x[i + j] - k.mean, products[j]);
  }
  *first = fold(sums);
  *second = fold(products);
}

template <typename A>
LV_CLONES void sum_block(const StripCoefficients<A>& k, const Strip& s, int64_t lane, bool with_elu,
                         const Rows<const A>& x, const Rows<const A>& grad_y, A* first, A* second) {
  if (s.channels_last)
    with_elu ? sum_columns<true>(k, x, grad_y, first, second) : sum_columns<false>(k, x, grad_y, first, second);
  else
    with_elu ? sum_row<true>(k[lane], x, grad_y, first, second) : sum_row<false>(k[lane], x, grad_y, first, second);
}

// First pass: S1 and S2 of a strip.
template <typename T>
void strip_sums(const InstanceNormPlusBackward<T>& p, int64_t sample, const Strip& s) {
  using A = Compute<T>;
  const StripCoefficients<A> k(p.plan, sample, s);
  Buffer<T> x_buffer, grad_buffer;
  A first[kLanes], second[kLanes];
  double sum[kLanes] = {}, product[kLanes] = {};
  for (int64_t i = 0; i < s.blocks(); ++i) {
    const Block b = s.block(i);
    sum_block(k, s, b.lane, p.plan.elu, readable(rows_at(p.x, sample, s, b), x_buffer.data),
              readable(rows_at(p.grad_y, sample, s, b), grad_buffer.data), first, second);
    for (int64_t j = 0; j < b.lanes; ++j) {
      sum[b.lane + j] += first[j];
      product[b.lane + j] += second[j];
    }
  }
  const A* r = p.plan.sample_stats(sample) + s.shape.channels + s.channel;
  A *s1 = p.plan.partial(sample, s.chunk) + s.channel, *s2 = s1 + s.shape.channels;
  for (int64_t j = 0; j < s.channels; ++j) {
    s1[j] = static_cast<A>(sum[j]);
    s2[j] = static_cast<A>(product[j] * r[j]);
  }
}

template <typename A>
LV_HD NormGradient<A> sample_gradient(const NormPlan<A>& p, int64_t sample, int64_t c, const A* sum_t) {
  const A *mu = p.sample_stats(sample), *r = mu + p.shape.channels, *m_and_q = r + p.shape.channels;
  const A *s1 = p.partial(sample, 0), *s2 = s1 + p.shape.channels;
  return norm_gradient(p, p.affine(sample, c), r[c], (mu[c] - m_and_q[0]) * m_and_q[1], m_and_q[1], s1[c], s2[c],
                       sum_t[0], sum_t[1]);
}

template <typename A>
struct StripGradients {
  A slope_g[kLanes], slope_x[kLanes], constant[kLanes];

  StripGradients(const NormPlan<A>& p, int64_t sample, const Strip& s, const A* sum_t) {
    for (int64_t j = 0; j < s.channels; ++j) {
      const NormGradient<A> d = sample_gradient(p, sample, s.channel + j, sum_t);
      slope_g[j] = d.slope_g, slope_x[j] = d.slope_x, constant[j] = d.constant;
    }
  }
};

// kColumns: column j belongs to channel j of the strip; else all belong to channel `lane`.
template <bool kColumns, bool kElu, typename A>
LV_HD void grad_rows(const StripCoefficients<A>& k, const StripGradients<A>& d, int64_t lane,
                     const Rows<const A>& x_rows, const Rows<const A>& grad_y_rows, const Rows<A>& out) {
  for (int64_t row = 0; row < out.count; ++row) {
    const A* __restrict x = x_rows.data + row * x_rows.stride;
    const A* __restrict grad_y = grad_y_rows.data + row * grad_y_rows.stride;
    A* __restrict grad_x = out.data + row * out.stride;
    for (int64_t j = 0; j < out.width; ++j) {
      const int64_t c = kColumns ? j : lane;
      const A g = output_grad<kElu>(grad_y[j], x[j], k[c]);
      grad_x[j] = fma(d.slope_g[c], g, fma(d.slope_x[c], x[j] - k.mean[c], d.constant[c]));
    }
  }
}

template <typename A>
LV_CLONES void grad_block(const StripCoefficients<A>& k, const StripGradients<A>& d, const Strip& s, int64_t lane,
                          bool with_elu, const Rows<const A>& x, const Rows<const A>& grad_y, const Rows<A>& out) {
  if (s.channels_last)
    with_elu ? grad_rows<true, true>(k, d, lane, x, grad_y, out) : grad_rows<true, false>(k, d, lane, x, grad_y, out);
  else
    with_elu ? grad_rows<false, true>(k, d, lane, x, grad_y, out) : grad_rows<false, false>(k, d, lane, x, grad_y, out);
}

// Second pass, once S1 and S2 of the whole sample stand in chunk 0: dL/dx.
template <typename T>
void strip_apply(const InstanceNormPlusBackward<T>& p, int64_t sample, const Strip& s) {
  const StripCoefficients<Compute<T>> k(p.plan, sample, s);
  const StripGradients<Compute<T>> d(p.plan, sample, s, p.channel_sums + 2 * sample);
  Buffer<T> x_buffer, grad_buffer, out_buffer;
  alignas(64) Compute<T> line[kBlock];
  for (int64_t i = 0; i < s.blocks(); ++i) {
    const Block b = s.block(i);
    const Rows<T> grad_x = rows_at(p.grad_x, sample, s, b);
    const Rows<Compute<T>> out = writable(grad_x, out_buffer.data), own{line, b.rows, b.width, b.width};
    grad_block(k, d, s, b.lane, p.plan.elu, readable(rows_at(p.x, sample, s, b), x_buffer.data),
               readable(rows_at(p.grad_y, sample, s, b), grad_buffer.data), p.grad_sum != nullptr ? own : out);
    if (p.grad_sum != nullptr)
      add_rows({line, b.rows, b.width, b.width}, readable(rows_at(p.grad_sum, sample, s, b), x_buffer.data), out);
    written(grad_x, out_buffer.data);
  }
}

// S1 and S2 of the sample into chunk 0, the two sums over the channels, the row of dL/dweight.
template <typename T>
void sample_sums(const InstanceNormPlusBackward<T>& p, int64_t sample) {
  using A = Compute<T>;
  const int64_t channels = p.plan.shape.channels;
  const A *mu = p.plan.sample_stats(sample), *m_and_q = mu + 2 * channels;
  A* totals = p.plan.partial(sample, 0);
  double sum_t = 0, sum_t_muhat = 0;
  for (int64_t c = 0; c < channels; ++c) {
    double s1 = 0, s2 = 0;
    for (int64_t chunk = 0; chunk < p.plan.chunks.count; ++chunk) {
      const A* part = p.plan.partial(sample, chunk);
      s1 += part[c];
      s2 += part[channels + c];
    }
    totals[c] = static_cast<A>(s1);
    totals[channels + c] = static_cast<A>(s2);
    const double t = norm_grad_shift(p.plan, p.plan.affine(sample, c), totals[c]);
    sum_t += t;
    sum_t_muhat += t * ((mu[c] - m_and_q[0]) * m_and_q[1]);
  }
  A *sums = p.channel_sums + 2 * sample, *row = p.rows + sample * 3 * channels;
  sums[0] = static_cast<A>(sum_t);
  sums[1] = static_cast<A>(sum_t_muhat);
  for (int64_t c = 0; c < channels; ++c) {
    const NormGradient<A> k = sample_gradient(p.plan, sample, c, sums);
    row[c] = k.gamma, row[channels + c] = k.alpha, row[2 * channels + c] = k.beta;
  }
}

// One level's row: the sum over its samples, in their order.
template <typename T>
void level_gradient(const InstanceNormPlusBackward<T>& p, int64_t level) {
  const int64_t columns = p.plan.columns();
  Compute<T>* out = p.grad_weight + level * columns;
  for (int64_t column = 0; column < columns; column += kLanes) {
    const int64_t lanes = std::min(kLanes, columns - column);
    double sum[kLanes] = {};
    for (int64_t sample = 0; sample < p.plan.shape.samples; ++sample) {
      if (p.plan.sample_level(sample) != level) continue;
      const Compute<T>* row = p.rows + sample * 3 * p.plan.shape.channels + column;
      for (int64_t j = 0; j < lanes; ++j) sum[j] += row[j];
    }
    for (int64_t j = 0; j < lanes; ++j) out[column + j] = static_cast<Compute<T>>(sum[j]);
  }
}

}  // namespace

template <typename T>
void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<T>& p, int threads) {
  const auto& plan = p.plan;
  const Strips strips = norm_strips(plan.shape, plan.channels_last, plan.chunks);
  collect_and_apply(
      strips, strips, threads, [&](int64_t sample, const Strip& s) { strip_sums(p, sample, s); },
      [&](int64_t sample) { sample_sums(p, sample); },
      [&](int64_t sample, const Strip& s) {
        if (p.grad_x != nullptr) strip_apply(p, sample, s);
      });
  if (p.grad_weight == nullptr) return;
  parallel_for(plan.levels, plan.levels * plan.columns() + plan.shape.samples * plan.columns(), threads,
               [&](int64_t level) { level_gradient(p, level); });
}

template void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<float>&, int);
template void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<bfloat16>&, int);
template void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<float16>&, int);
template void instance_norm_plus_backward_cpu(const InstanceNormPlusBackward<double>&, int);

}  // namespace lv
