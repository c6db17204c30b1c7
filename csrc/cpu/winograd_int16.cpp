// The choice among the loops of the form with 16-bit factors.
#include "../winograd.h"
#include "isa.h"

namespace lv {

#if defined(LV_HAS_CLONES)
namespace int16_v3 {
void winograd(const WinogradInt16& p, int threads);
}
namespace int16_vnni {
void winograd(const WinogradInt16& p, int threads);
}

const char* why_no_winograd_int16_cpu() { return isa() == Isa::kAny ? "this CPU has no AVX2" : ""; }

const char* why_winograd_int16_is_slow_cpu() {
  if (has_vnni()) return "";
  if (isa() == Isa::kV4) return "with AVX-512 and without VNNI float32 has as many products a second";
  const bool one_unit = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2") || __builtin_cpu_is("haswell") ||
                        __builtin_cpu_is("broadwell");
  return one_unit ? "this CPU has one unit for integer products, and two for those of float32" : "";
}

void winograd_int16_cpu(const WinogradInt16& p, int threads) {
  has_vnni() ? int16_vnni::winograd(p, threads) : int16_v3::winograd(p, threads);
}
#else
const char* why_no_winograd_int16_cpu() { return "the native core was not compiled for x86-64 by GCC 12 or newer"; }
const char* why_winograd_int16_is_slow_cpu() { return ""; }
void winograd_int16_cpu(const WinogradInt16&, int) {}
#endif

}  // namespace lv
