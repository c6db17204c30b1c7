// Several neighbouring elements moved by one access of up to 16 bytes.
#pragma once

#include "../half.h"

#if defined(LV_EMULATE)
#include "emulate.h"
#define LV_CHECK_ALIGNED(pointer, bytes) ::lv::emulate::check_aligned(pointer, bytes)
#else
#define LV_CHECK_ALIGNED(pointer, bytes)
#endif

namespace lv {

template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes) Vector {
  T lane[kLanes];

  static LV_HD Vector read(const T* from) {
    LV_CHECK_ALIGNED(from, sizeof(Vector));
    return *reinterpret_cast<const Vector*>(from);
  }
  // To global memory.
  LV_HD void write(T* to) const {
    LV_CHECK_ALIGNED(to, sizeof(Vector));
#if defined(__CUDA_ARCH__)  // in so many words: else the compiler may write lane by lane
    if constexpr (sizeof(Vector) == 4 * sizeof(uint32_t)) {
      uint32_t word[4];
      memcpy(word, this, sizeof(Vector));
      asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                   "r"(word[3])
                   : "memory");
      return;
    }
    if constexpr (sizeof(Vector) == 2 * sizeof(uint32_t)) {
      uint32_t word[2];
      memcpy(word, this, sizeof(Vector));
      asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(word[0]), "r"(word[1]) : "memory");
      return;
    }
#endif
    *reinterpret_cast<Vector*>(to) = *this;
  }
};

template <typename T, int kLanes>
bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (sizeof(T) * kLanes) == 0;
}

}  // namespace lv
