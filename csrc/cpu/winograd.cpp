// The loops for any CPU, and the choice among them.
#define LV_ISA any
#define LV_WIDTH 1
#include "winograd_kernels.h"

namespace lv {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
namespace v3 {
void winograd(const Winograd& p, int threads);
}
namespace v4 {
void winograd(const Winograd& p, int threads);
}

void winograd_cpu(const Winograd& p, int threads) {
  if (__builtin_cpu_supports("x86-64-v4")) return v4::winograd(p, threads);
  if (__builtin_cpu_supports("x86-64-v3")) return v3::winograd(p, threads);
  any::winograd(p, threads);
}
#else
void winograd_cpu(const Winograd& p, int threads) { any::winograd(p, threads); }
#endif

}  // namespace lv
