#include "isa.h"

#include <algorithm>
#include <cstdlib>

namespace lv {
namespace {

Isa best() {
#if defined(LV_HAS_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return Isa::kV4;
  if (__builtin_cpu_supports("x86-64-v3")) return Isa::kV3;
#endif
  return Isa::kAny;
}

Isa asked() {
  const char* wish = std::getenv("LANGEVIN_ISA");
  if (wish == nullptr) return Isa::kV4;
  if (strcmp(wish, "any") == 0) return Isa::kAny;
  return strcmp(wish, "v3") == 0 ? Isa::kV3 : Isa::kV4;
}

}  // namespace

Isa isa() {
  static const Isa found = std::min(best(), asked());
  return found;
}

bool has_vnni() {
#if defined(LV_HAS_CLONES)
  return isa() == Isa::kV4 && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace lv
