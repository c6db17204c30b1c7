// The second pass of instance_norm_plus on the CPU where the mean over 5x5 pixels follows.
#pragma once

#include "norm_blocks.h"

namespace lv {

// Bands of rows of the image.
template <typename A>
Strips pool_strips(const NormPlan<A>& p, int64_t width);

template <typename T>
void strip_pool(const InstanceNormPlus<T>& p, int64_t sample, const Strip& s);

}  // namespace lv
