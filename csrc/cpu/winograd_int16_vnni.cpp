// The loops for AVX512-VNNI. The pragmas stand behind what other files include too, which must stay what it is there.
#include "../winograd.h"

#if defined(LV_HAS_CLONES)
#pragma GCC target("arch=x86-64-v4,avx512vnni")
#pragma GCC optimize("fp-contract=fast")
#define LV_ISA int16_vnni
#define LV_LANES 16
#define LV_WIDTH 4
#include "winograd_int16_loops.h"
#endif
