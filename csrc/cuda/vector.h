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
  LV_HD void write(T* to) const {
    LV_CHECK_ALIGNED(to, sizeof(Vector));
    *reinterpret_cast<Vector*>(to) = *this;
  }
};

template <typename T, int kLanes>
bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (sizeof(T) * kLanes) == 0;
}

}  // namespace lv
