// The choice among the loops of the form with 16-bit factors.
#include "../winograd.h"

namespace lv {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
namespace int16_v3 {
void winograd(const WinogradInt16& p, int threads);
}
namespace int16_vnni {
void winograd(const WinogradInt16& p, int threads);
}

namespace {

bool has_vnni() { return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni"); }

}  // namespace

const char* why_no_winograd_int16_cpu() { return __builtin_cpu_supports("x86-64-v3") ? "" : "this CPU has no AVX2"; }

void winograd_int16_cpu(const WinogradInt16& p, int threads) {
  has_vnni() ? int16_vnni::winograd(p, threads) : int16_v3::winograd(p, threads);
}
#else
const char* why_no_winograd_int16_cpu() { return "the native core was not compiled for x86-64 by GCC 12 or newer"; }
void winograd_int16_cpu(const WinogradInt16&, int) {}
#endif

}  // namespace lv
