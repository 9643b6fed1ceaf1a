#include "cpu/capability.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace electra {

const char* capability_name(Capability c) {
  switch (c) {
    case Capability::avx512_bf16: return "avx512_bf16";
    case Capability::avx512: return "avx512";
    case Capability::avx2: return "avx2";
    default: return "baseline";
  }
}

Capability hardware_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) return Capability::avx512_bf16;
  if (avx512) return Capability::avx512;
  if (avx2) return Capability::avx2;
#endif
  return Capability::baseline;
}

Capability capability() {
  static const Capability chosen = [] {
    const Capability best = hardware_capability();
    const char* wanted = std::getenv("ELECTRA_CPU_CAPABILITY");
    if (!wanted) return best;
    for (int c = int(Capability::baseline); c <= int(best); ++c)
      if (!std::strcmp(wanted, capability_name(Capability(c)))) return Capability(c);
    std::fprintf(stderr, "electra_fast: ELECTRA_CPU_CAPABILITY=%s is not a capability of this machine and build (up to %s): using %s\n", wanted, capability_name(best),
                 capability_name(best));
    return best;
  }();
  return chosen;
}

}  // namespace electra
