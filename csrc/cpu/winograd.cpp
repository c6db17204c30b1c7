// The loops for any CPU, and the choice among them.
#define LV_ISA any
#define LV_LANES 4
#define LV_WIDTH 2
#include "isa.h"
#include "winograd_gradients.h"

namespace lv {

#if defined(LV_HAS_CLONES)
#define LV_DECLARE(isa)                                                                         \
  namespace isa {                                                                               \
  void winograd(const Winograd& p, int threads);                                                \
  void winograd_weight(const WinogradWeight& p, int threads);                                   \
  void winograd_weight_gradient(const Winograd& p, const float* grad_y, float* g, int threads); \
  }
LV_DECLARE(v3)
LV_DECLARE(v4)
#define LV_CALL(call)                     \
  if (isa() == Isa::kV4) return v4::call; \
  if (isa() == Isa::kV3) return v3::call; \
  any::call
#else
#define LV_CALL(call) any::call
#endif

void winograd_cpu(const Winograd& p, int threads) { LV_CALL(winograd(p, threads)); }

void winograd_weight_cpu(const WinogradWeight& p, int threads) { LV_CALL(winograd_weight(p, threads)); }

void winograd_weight_gradient_cpu(const Winograd& p, const float* grad_y, float* grad_weight, int threads) {
  LV_CALL(winograd_weight_gradient(p, grad_y, grad_weight, threads));
}

}  // namespace lv
