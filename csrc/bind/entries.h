// What the Python module calls, and what that asks of Python. The entries are compiled in entries.cpp, without
// pybind11, which takes seconds to compile and is in bindings.cpp alone.
#pragma once

#include "../norm_cluster.h"
#include "../tensor.h"

namespace lv {

void cld_step(const TensorView& u, const OptionalTensor& score, double a_xx, double a_xv, double a_vx, double a_vv,
              double b_x, double b_v, double noise_xx, double noise_vx, double noise_vv, int64_t seed, uint32_t step,
              uint32_t first, uint32_t stream_x, uint32_t stream_v, int threads);

void dsm_loss(const TensorView& score, const TensorView& sigma, const OptionalTensor& weight, const TensorView& loss,
              const OptionalTensor& grad, const TensorView& partials, int64_t seed, uint32_t step, uint32_t first,
              uint32_t stream, int threads);

void instance_norm_plus(const TensorView& x, const OptionalTensor& residual, const OptionalTensor& sum,
                        const OptionalTensor& y, const TensorView& weight, const OptionalTensor& level,
                        const TensorView& stats, const TensorView& scratch, bool paper, double eps, bool elu,
                        const OptionalTensor& bias, bool pool, int threads);
void instance_norm_plus_backward(const TensorView& x, const OptionalTensor& grad_y, const OptionalTensor& grad_sum,
                                 const OptionalTensor& grad_x, const OptionalTensor& grad_weight,
                                 const TensorView& weight, const OptionalTensor& level, const TensorView& stats,
                                 const TensorView& scratch, bool paper, double eps, bool elu, int threads);
int64_t instance_norm_plus_scratch(const TensorView& x, bool backward);
// The one-pass form: on a GPU with clusters, for an x that has a plan; `blocks` of a sample, 0 for the usual number.
// It does not pool.
void instance_norm_plus_cluster(const TensorView& x, const OptionalTensor& residual, const OptionalTensor& sum,
                                const OptionalTensor& y, const TensorView& weight, const OptionalTensor& level,
                                const TensorView& stats, bool paper, double eps, bool elu, const OptionalTensor& bias,
                                int blocks);
NormCluster instance_norm_plus_cluster_plan(const TensorView& x, int64_t limit, int blocks);
int64_t instance_norm_plus_cluster_limit(const TensorView& x);  // 0 where it cannot run
int instance_norm_plus_clusters_at_once(const TensorView& x, int blocks);

void langevin_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask, double score_coef,
                   double noise_coef, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads);
void langevin_table_step(const TensorView& x, const TensorView& score, const OptionalTensor& mask,
                         const TensorView& table, const TensorView& place, uint32_t stream, int threads);
void advance_row(const TensorView& place, const TensorView& table, const TensorView& level);

void perturb(const TensorView& x, const TensorView& sigma, const TensorView& out, int64_t seed, uint32_t step,
             uint32_t first, uint32_t stream, int threads);

void philox_words(const TensorView& out, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads);
void philox_normal(const TensorView& out, int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads);

void upsample_bicubic2x(const TensorView& x, const TensorView& y, const OptionalTensor& u, double a, double sigma,
                        int64_t seed, uint32_t step, uint32_t first, uint32_t stream, int threads);

void winograd(const TensorView& x, const TensorView& weight, const OptionalTensor& bias, const OptionalTensor& add,
              const TensorView& y, const TensorView& scratch, int64_t dilation, bool pool, int threads);
int64_t winograd_scratch(const TensorView& x, int64_t outputs, int64_t dilation);
void winograd_weight(const TensorView& weight, const TensorView& points, bool transposed, int threads);
void winograd_weight_gradient(const TensorView& x, const TensorView& grad_y, const TensorView& grad_weight,
                              const TensorView& scratch, int64_t dilation, int threads);
int64_t winograd_weight_gradient_scratch(const TensorView& x, int64_t outputs, int64_t dilation);
void winograd_int16(const TensorView& x, const TensorView& weight, const TensorView& point_scale,
                    const TensorView& scale, const OptionalTensor& bias, const OptionalTensor& add, const TensorView& y,
                    const TensorView& scratch, int64_t dilation, bool pool, int threads);
int64_t winograd_int16_scratch(const TensorView& x, int64_t outputs, int64_t dilation);
const char* why_no_winograd_int16();       // "" where this CPU runs it
const char* why_winograd_int16_is_slow();  // "" where it runs and is faster than the form in float32

// torch's current stream on a GPU; needs the GIL and throws what Python raised.
void* current_cuda_stream(int device);

// Other Python threads may run while one of these lives.
class GilRelease {
 public:
  GilRelease();
  ~GilRelease();
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  void* state_;
};

}  // namespace lv
