// The loops for x86-64-v4. The pragmas stand behind what other files include too, which must stay what it is there.
#include "../winograd.h"

#if defined(LV_HAS_CLONES)
#pragma GCC target("arch=x86-64-v4")
#pragma GCC optimize("fp-contract=fast")
#define LV_ISA v4
#define LV_LANES 16
#define LV_WIDTH 4
#include "winograd_gradients.h"
#endif
