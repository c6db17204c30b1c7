// Which copy of a loop serves this CPU, for loops that are written once for each width of vectors; others are
// LV_CLONES.
#pragma once

#include "../common.h"

namespace lv {

enum class Isa { kAny, kV3, kV4 };  // x86-64-v3 has AVX2 and FMA, x86-64-v4 AVX-512

// The best that the CPU has, or what the environment variable LANGEVIN_ISA=any|v3 limits it to, for comparisons.
Isa isa();
bool has_vnni();  // AVX512-VNNI, within that limit

}  // namespace lv
