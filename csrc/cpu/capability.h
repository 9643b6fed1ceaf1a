// Which instruction set the native CPU kernels run with. Every file of csrc/cpu/kernels is compiled once per capability, in namespace electra::<capability>,
// and exports one constant table of function pointers; ELECTRA_DECLARE_KERNELS declares those tables and the function that picks one at run time.
#pragma once

namespace electra {

enum class Capability { baseline, avx2, avx512, avx512_bf16 };

// The best capability of this machine, lowered by ELECTRA_CPU_CAPABILITY (baseline, avx2, avx512, avx512_bf16) when set. Decided once.
Capability capability();
// The best capability of this machine, whatever the environment says.
Capability hardware_capability();
const char* capability_name(Capability);

}  // namespace electra

#if defined(__x86_64__)
#define ELECTRA_DECLARE_KERNELS(Table, name)                  \
  namespace electra {                                         \
  namespace baseline { extern const Table name; }             \
  namespace avx2 { extern const Table name; }                 \
  namespace avx512 { extern const Table name; }               \
  namespace avx512_bf16 { extern const Table name; }          \
  static inline const Table& pick_##name() {                  \
    switch (capability()) {                                   \
      case Capability::avx512_bf16: return avx512_bf16::name; \
      case Capability::avx512: return avx512::name;           \
      case Capability::avx2: return avx2::name;               \
      default: return baseline::name;                         \
    }                                                         \
  }                                                           \
  }
#else
#define ELECTRA_DECLARE_KERNELS(Table, name)           \
  namespace electra {                                  \
  namespace baseline { extern const Table name; }      \
  static inline const Table& pick_##name() { return baseline::name; } \
  }
#endif
