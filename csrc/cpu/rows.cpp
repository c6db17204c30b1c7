#include "rows.h"

#include <algorithm>
#include <cstring>

#include "../common.h"
#include "isa.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace lv {
namespace {

constexpr size_t kLine = 64;

// `lines` cache lines past the caches.
#if defined(__SSE2__)
void stream_lines(const char* from, char* to, size_t lines) {
  for (size_t i = 0; i < lines * kLine; i += sizeof(__m128i))
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
}
#if defined(LV_HAS_CLONES)
typedef long long Line __attribute__((vector_size(kLine)));
__attribute__((target("avx512f"))) void stream_whole_lines(const char* from, char* to, size_t lines) {
  for (size_t i = 0; i < lines * kLine; i += kLine) {
    Line line;
    memcpy(&line, from + i, kLine);
    __builtin_ia32_movntdq512(reinterpret_cast<Line*>(to + i), line);
  }
}
#endif
#endif

void stream_bytes(const char* from, char* to, size_t count) {
#if defined(__SSE2__)
  const size_t head = std::min(count, (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine);
  memcpy(to, from, head), from += head, to += head, count -= head;
  const size_t lines = count / kLine;
#if defined(LV_HAS_CLONES)
  isa() == Isa::kV4 ? stream_whole_lines(from, to, lines) : stream_lines(from, to, lines);
#else
  stream_lines(from, to, lines);
#endif
  from += lines * kLine, to += lines * kLine, count %= kLine;
#endif
  memcpy(to, from, count);
}

}  // namespace

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
void stream(const A* buffer, const Rows<A>& rows) {
  const bool together = rows.stride == rows.width;
  const int64_t pieces = together ? 1 : rows.count, length = together ? rows.count * rows.width : rows.width;
  for (int64_t i = 0; i < pieces; ++i)
    stream_bytes(reinterpret_cast<const char*>(buffer + i * length),
                 reinterpret_cast<char*>(rows.data + i * rows.stride), static_cast<size_t>(length) * sizeof(A));
}

void end_stream() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
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
template void stream(const float*, const Rows<float>&);
template void stream(const double*, const Rows<double>&);
template void add_rows(const Rows<const float>&, const Rows<const float>&, const Rows<float>&);
template void add_rows(const Rows<const double>&, const Rows<const double>&, const Rows<double>&);

}  // namespace lv
