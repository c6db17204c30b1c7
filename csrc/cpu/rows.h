// Rows of neighbouring elements in the type that is computed with: where they lie, or converted in a buffer. The
// arithmetic is then compiled for float and double only.
#pragma once

#include <type_traits>

#include "../half.h"

namespace lv {

template <typename T>
struct Rows {
  T* data;
  int64_t count, width, stride;
};

// buffer <- rows, packed; `half` is bfloat16 or float16.
template <typename Half>
void widen(const Rows<const Half>& rows, float* buffer);
template <typename Half>
void narrow(const float* buffer, const Rows<Half>& rows);

template <typename T>
Rows<const Compute<T>> readable(const Rows<const T>& rows, Compute<T>* buffer) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    return rows;
  } else {
    widen(rows, buffer);
    return {buffer, rows.count, rows.width, rows.width};
  }
}

// Where to write what `written` then puts into `rows`.
template <typename T>
Rows<Compute<T>> writable(const Rows<T>& rows, Compute<T>* buffer) {
  if constexpr (std::is_same_v<T, Compute<T>>)
    return rows;
  else
    return {buffer, rows.count, rows.width, rows.width};
}

template <typename T>
void written(const Rows<T>& rows, const Compute<T>* buffer) {
  if constexpr (!std::is_same_v<T, Compute<T>>) narrow(buffer, rows);
}

// rows <- buffer, packed, past the caches: what fills them many times over is not there for its next reader anyway, and
// an ordinary store would read the memory first. To be followed by `end_stream` before another thread may read.
template <typename A>
void stream(const A* buffer, const Rows<A>& rows);
void end_stream();

// out <- a + b.
template <typename A>
void add_rows(const Rows<const A>& a, const Rows<const A>& b, const Rows<A>& out);

}  // namespace lv
