#pragma once

#include "../norm_cluster.h"
#include "common.h"

namespace lv {

// What both directions are told beside their images.
struct NormArguments {
  const TensorView& x;
  const TensorView& weight;
  const OptionalTensor& level;
  const TensorView& stats;
  const TensorView* scratch;  // or null: the one-pass form needs none
  bool paper, elu;
  double eps;
  const OptionalTensor* bias = nullptr;  // or null, as in backward
};

int64_t instance_norm_plus_scratch(const TensorView& x, bool backward) {
  return norm_scratch_size(image_shape(x), is_channels_last(x, "instance_norm_plus"), backward);
}

inline void check_norm_levels(const NormArguments& a, const char* op) {
  if (!a.level) return;
  require(a.level->dtype() == Dtype::kInt64 && a.level->same_device(a.x), op, "level must be int64 on x's device");
  require(a.level->dim() == 1 && a.level->size(0) == a.x.size(0), op, "level must have one entry for each sample");
  require(a.level->layout() == Layout::kContiguous, op, "level must be contiguous");
  if (a.level->is_cuda()) return;  // reading it here would wait for the GPU; a wrong level makes its sample NaN
  const int64_t levels = a.weight.size(0), *level = a.level->data<const int64_t>();
  for (int64_t i = 0; i < a.x.size(0); ++i) {
    if (level[i] >= 0 && level[i] < levels) continue;
    throw std::invalid_argument(std::string(op) + ": level must be in [0, " + std::to_string(levels) + "), got " +
                                std::to_string(level[i]));
  }
}

template <typename T>
NormPlan<Compute<T>> norm_plan(const NormArguments& a, bool backward, const char* op) {
  using A = Compute<T>;
  const Dtype statistics = std::is_same_v<A, double> ? Dtype::kFloat64 : Dtype::kFloat32;
  const ImageShape shape = image_shape(a.x);
  const bool channels_last = is_channels_last(a.x, op);
  for (const TensorView* tensor : {&a.weight, &a.stats, a.scratch}) {
    if (tensor == nullptr) continue;
    require(tensor->dtype() == statistics && tensor->same_device(a.x), op, "weight and statistics have a wrong dtype");
    require(tensor->layout() == Layout::kContiguous, op, "weight and statistics must be contiguous");
  }
  require(a.x.dim() == 4 && a.weight.dim() == 2, op, "x must have 4 dimensions and weight 2");
  const int64_t columns = a.weight.size(1);
  require(columns == 3 * shape.channels || columns == 2 * shape.channels, op, "weight must have 2 C or 3 C columns");
  require(a.stats.numel() == shape.samples * (2 * shape.channels + 2), op, "stats has a wrong size");
  require(a.scratch == nullptr || a.scratch->numel() >= norm_scratch_size(shape, channels_last, backward), op,
          "scratch is too small");
  check_norm_levels(a, op);
  require(a.level || a.weight.size(0) > 0 || shape.samples == 0, op, "weight must have a row");
  return {shape,
          channels_last,
          a.paper,
          a.elu,
          columns == 3 * shape.channels,
          static_cast<A>(a.eps),
          pixel_chunks(shape, channels_last),
          a.weight.size(0),
          a.weight.data<const A>(),
          a.level ? a.level->data<const int64_t>() : nullptr,
          a.stats.data<A>(),
          a.scratch != nullptr ? a.scratch->data<A>() : nullptr,
          nullptr};
}

// The data of an image that lies as x does; null for none.
template <typename T>
T* image_like(const TensorView& x, const OptionalTensor& image, const char* op) {
  if (!image) return nullptr;
  require_like(x, *image, op);
  require(x.dtype() == image->dtype() && x.layout() == image->layout(), op, "images must have x's dtype and layout");
  return image->data<T>();
}

struct NormImageArguments {
  const OptionalTensor &residual, &sum, &y;
  bool pool;
};

template <typename T>
InstanceNormPlus<T> norm_forward(const NormArguments& a, const NormImageArguments& images, const char* op) {
  using A = Compute<T>;
  InstanceNormPlus<T> p{norm_plan<T>(a, false, op),
                        a.x.data<const T>(),
                        image_like<const T>(a.x, images.residual, op),
                        image_like<T>(a.x, images.sum, op),
                        image_like<T>(a.x, images.y, op),
                        nullptr,
                        images.pool ? a.x.size(3) : 0};
  require(!images.pool || (!a.elu && p.y != p.normalised()), op,
          "elu must be off and y a tensor of its own where y is pooled");
  if (a.bias == nullptr || !*a.bias) return p;
  const TensorView& bias = **a.bias;
  require(bias.dtype() == a.weight.dtype() && bias.same_device(a.x), op, "bias must have weight's dtype and device");
  require(bias.dim() == 1 && bias.numel() == p.plan.shape.channels && bias.layout() == Layout::kContiguous, op,
          "bias must be contiguous, with one value for each channel");
  (p.residual != nullptr ? p.bias : p.plan.bias) = bias.data<const A>();
  return p;
}

void instance_norm_plus(const TensorView& x, const OptionalTensor& residual, const OptionalTensor& sum,
                        const OptionalTensor& y, const TensorView& weight, const OptionalTensor& level,
                        const TensorView& stats, const TensorView& scratch, bool paper, double eps, bool elu,
                        const OptionalTensor& bias, bool pool, int threads) {
  const char* op = "instance_norm_plus";
  const NormArguments arguments{x, weight, level, stats, &scratch, paper, elu, eps, &bias};
  require(y && residual.has_value() == sum.has_value(), op, "y is missing, or sum and residual do not go together");
  if (x.numel() == 0) return;
  on_float_type(x.dtype(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const InstanceNormPlus<T> p = norm_forward<T>(arguments, {residual, sum, y, pool}, op);
    on_device_of(
        x, op, [&] { instance_norm_plus_cpu(p, threads); },
        [&](void* stream) {
          if constexpr (std::is_same_v<T, double>)
            require(false, op, "float64 is for the CPU");
          else
            instance_norm_plus_cuda(p, stream);
        });
  });
}

inline int element_bytes(const TensorView& x) { return x.raw.dtype.bits / 8; }

NormCluster instance_norm_plus_cluster_plan(const TensorView& x, int64_t limit, int blocks) {
  const bool channels_last = x.layout() == Layout::kChannelsLast;
  if (blocks == 0) return norm_cluster(image_shape(x), channels_last, element_bytes(x), limit);
  return norm_cluster_of(image_shape(x), channels_last, element_bytes(x), limit, blocks);
}

#if defined(LV_WITH_CUDA) || defined(LV_EMULATE)

int64_t instance_norm_plus_cluster_limit(const TensorView& x) {
  int64_t limit = 0;
  on_device_of(x, "instance_norm_plus", [] {}, [&](void*) { limit = norm_cluster_limit(x.raw.device.id); });
  return limit;
}

int instance_norm_plus_clusters_at_once(const TensorView& x, int blocks) {
  const NormCluster plan = instance_norm_plus_cluster_plan(x, instance_norm_plus_cluster_limit(x), blocks);
  int clusters = 0;
  if (plan.blocks == 0) return clusters;
  on_device_of(
      x, "instance_norm_plus", [] {}, [&](void*) { clusters = norm_clusters_at_once(plan, element_bytes(x)); });
  return clusters;
}

template <typename T>
void run_norm_cluster(const InstanceNormPlus<T>& p, const NormCluster& plan, void* stream) {
  instance_norm_plus_cluster_cuda(p, plan, stream);
}

#else

int64_t instance_norm_plus_cluster_limit(const TensorView&) { return 0; }
int instance_norm_plus_clusters_at_once(const TensorView&, int) { return 0; }

template <typename T>
void run_norm_cluster(const InstanceNormPlus<T>&, const NormCluster&, void*) {}

#endif

void instance_norm_plus_cluster(const TensorView& x, const OptionalTensor& residual, const OptionalTensor& sum,
                                const OptionalTensor& y, const TensorView& weight, const OptionalTensor& level,
                                const TensorView& stats, bool paper, double eps, bool elu, const OptionalTensor& bias,
                                int blocks) {
  const char* op = "instance_norm_plus";
  const NormArguments arguments{x, weight, level, stats, nullptr, paper, elu, eps, &bias};
  require(y && residual.has_value() == sum.has_value(), op, "y is missing, or sum and residual do not go together");
  if (x.numel() == 0) return;
  const NormCluster plan = instance_norm_plus_cluster_plan(x, instance_norm_plus_cluster_limit(x), blocks);
  require(plan.blocks != 0, op, plan.why_not);
  on_float_type(x.dtype(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const InstanceNormPlus<T> p = norm_forward<T>(arguments, {residual, sum, y, false}, op);
    for (const void* image : {static_cast<const void*>(p.x), static_cast<const void*>(p.residual),
                              static_cast<const void*>(p.sum), static_cast<const void*>(p.y)})
      require(reinterpret_cast<uintptr_t>(image) % kNormVectorBytes == 0, op,
              "images must begin at a multiple of 16 bytes");
    on_device_of(
        x, op, [] {},
        [&](void* stream) {
          if constexpr (!std::is_same_v<T, double>) run_norm_cluster(p, plan, stream);
        });
  });
}

void instance_norm_plus_backward(const TensorView& x, const OptionalTensor& grad_y, const OptionalTensor& grad_sum,
                                 const OptionalTensor& grad_x, const OptionalTensor& grad_weight,
                                 const TensorView& weight, const OptionalTensor& level, const TensorView& stats,
                                 const TensorView& scratch, bool paper, double eps, bool elu, int threads) {
  const char* op = "instance_norm_plus_backward";
  const NormArguments arguments{x, weight, level, stats, &scratch, paper, elu, eps};
  require(grad_y.has_value(), op, "grad_y is missing");
  if (grad_weight) {
    require_like(weight, *grad_weight, op);
    require(grad_weight->dtype() == weight.dtype() && grad_weight->layout() == Layout::kContiguous, op,
            "grad_weight must have weight's dtype and be contiguous");
  }
  if (x.numel() == 0) return;
  on_float_type(x.dtype(), op, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const NormPlan<Compute<T>> plan = norm_plan<T>(arguments, true, op);
    Compute<T>* rows = plan.partials + norm_scratch_size(plan.shape, plan.channels_last, false);
    const InstanceNormPlusBackward<T> p{plan,
                                        x.data<const T>(),
                                        image_like<const T>(x, grad_y, op),
                                        image_like<const T>(x, grad_sum, op),
                                        image_like<T>(x, grad_x, op),
                                        grad_weight ? grad_weight->data<Compute<T>>() : nullptr,
                                        rows,
                                        rows + plan.shape.samples * 3 * plan.shape.channels};
    on_device_of(
        x, op, [&] { instance_norm_plus_backward_cpu(p, threads); },
        [&](void* stream) {
          if constexpr (std::is_same_v<T, double>)
            require(false, op, "float64 is for the CPU");
          else
            instance_norm_plus_backward_cuda(p, stream);
        });
  });
}

}  // namespace lv
