#include "rows.h"

#include "../common.h"

namespace lv {

template <typename Half>
LV_CLONES void widen(const Rows<const Half>& rows, float* __restrict buffer) {
  for (int64_t row = 0; row < rows.count; ++row, buffer += rows.width) {
    const Half* __restrict from = rows.data + row * rows.stride;
    for (int64_t j = 0; j < rows.width; ++j) buffer[j] = load(from[j]);
  }
}

template <typename Half>
LV_CLONES void narrow(const float* __restrict buffer, const Rows<Half>& rows) {
  for (int64_t row = 0; row < rows.count; ++row, buffer += rows.width) {
    Half* __restrict to = rows.data + row * rows.stride;
    for (int64_t j = 0; j < rows.width; ++j) to[j] = store<Half>(buffer[j]);
  }
}

template <typename A>
LV_CLONES void add_rows(const Rows<const A>& a, const Rows<const A>& b, const Rows<A>& out) {
  for (int64_t row = 0; row < a.count; ++row) {
    const A* __restrict left = a.data + row * a.stride, * __restrict right = b.data + row * b.stride;
    A* __restrict sum = out.data + row * out.stride;
    for (int64_t j = 0; j < a.width; ++j) sum[j] = left[j] + right[j];
  }
}

template void widen(const Rows<const bfloat16>&, float*);
template void widen(const Rows<const float16>&, float*);
template void narrow(const float*, const Rows<bfloat16>&);
template void narrow(const float*, const Rows<float16>&);
template void add_rows(const Rows<const float>&, const Rows<const float>&, const Rows<float>&);
template void add_rows(const Rows<const double>&, const Rows<const double>&, const Rows<double>&);

}  // namespace lv
