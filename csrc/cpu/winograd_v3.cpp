// The loops for x86-64-v3. The pragmas stand behind what other files include too, which must stay what it is there.
#include "../winograd.h"

#if defined(LV_HAS_CLONES)
#pragma GCC target("arch=x86-64-v3")
#pragma GCC optimize("fp-contract=fast")
#define LV_ISA v3
#define LV_LANES 8
#define LV_WIDTH 2
#include "winograd_gradients.h"
#endif
