// The wgmma instruction for every N in use. Inline assembly wants every register spelled out, so this is a table; wgmma.h is what kernels include.
#pragma once
#include <cuda_bf16.h>

#include <type_traits>

#include "cuda/portable.h"

namespace electra::cuda {

enum class Major;
template <int N> struct WgmmaInstruction;

// The names of the first 4, 8, … accumulator registers in the instruction, and the registers themselves.
#define ELECTRA_NAMES_4 "%0, %1, %2, %3"
#define ELECTRA_NAMES_8 ELECTRA_NAMES_4 ", %4, %5, %6, %7"
#define ELECTRA_NAMES_16 ELECTRA_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ELECTRA_NAMES_32 ELECTRA_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ELECTRA_NAMES_48 ELECTRA_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define ELECTRA_NAMES_64 ELECTRA_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ELECTRA_NAMES_80 ELECTRA_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define ELECTRA_NAMES_96 ELECTRA_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define ELECTRA_NAMES_128 ELECTRA_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define ELECTRA_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ELECTRA_EIGHT(i) ELECTRA_FOUR(i), ELECTRA_FOUR(i + 4)
#define ELECTRA_SIXTEEN(i) ELECTRA_EIGHT(i), ELECTRA_EIGHT(i + 8)
#define ELECTRA_REGISTERS_4 ELECTRA_FOUR(0)
#define ELECTRA_REGISTERS_8 ELECTRA_REGISTERS_4, ELECTRA_FOUR(4)
#define ELECTRA_REGISTERS_16 ELECTRA_REGISTERS_8, ELECTRA_EIGHT(8)
#define ELECTRA_REGISTERS_32 ELECTRA_REGISTERS_16, ELECTRA_SIXTEEN(16)
#define ELECTRA_REGISTERS_48 ELECTRA_REGISTERS_32, ELECTRA_SIXTEEN(32)
#define ELECTRA_REGISTERS_64 ELECTRA_REGISTERS_48, ELECTRA_SIXTEEN(48)
#define ELECTRA_REGISTERS_80 ELECTRA_REGISTERS_64, ELECTRA_SIXTEEN(64)
#define ELECTRA_REGISTERS_96 ELECTRA_REGISTERS_80, ELECTRA_SIXTEEN(80)
#define ELECTRA_REGISTERS_128 ELECTRA_REGISTERS_96, ELECTRA_SIXTEEN(96), ELECTRA_SIXTEEN(112)

// R = N/2 registers; the operands after them are numbered n0 = R, n1 = R + 1, …: A's and B's descriptor, whether to add, their major modes; or, with A in
// registers, those four, B's descriptor, whether to add, B's major mode.
#define ELECTRA_WGMMA_SHARED(type, N, R, n0, n1, n2, n3, n4)                                                                      \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #n2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type  \
               " {" ELECTRA_NAMES_##R "}, %" #n0 ", %" #n1 ", add, 1, 1, %" #n3 ", %" #n4 ";\n}"                                  \
               : ELECTRA_REGISTERS_##R                                                                                            \
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(a_major)), "n"(int(b_major)) : "memory")

#define ELECTRA_WGMMA_REGISTERS(type, N, R, n0, n1, n2, n3, n4, n5, n6)                                                           \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #n5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type  \
               " {" ELECTRA_NAMES_##R "}, {%" #n0 ", %" #n1 ", %" #n2 ", %" #n3 "}, %" #n4 ", add, 1, 1, %" #n6 ";\n}"             \
               : ELECTRA_REGISTERS_##R                                                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(b_major)) : "memory")

#define ELECTRA_WGMMA(N, R, n0, n1, n2, n3, n4, n5, n6)                                                                                        \
  template <> struct WgmmaInstruction<N> {                                                                                                     \
    template <class T, Major a_major, Major b_major>                                                                                           \
    __device__ __forceinline__ static void run(float (&d)[R], uint64_t a, uint64_t b, bool accumulate) {                                       \
      if constexpr (std::is_same_v<T, __nv_bfloat16>) ELECTRA_WGMMA_SHARED("bf16", N, R, n0, n1, n2, n3, n4);                                   \
      else ELECTRA_WGMMA_SHARED("f16", N, R, n0, n1, n2, n3, n4);                                                                               \
    }                                                                                                                                          \
    template <class T, Major b_major>                                                                                                          \
    __device__ __forceinline__ static void run(float (&d)[R], const uint32_t (&a)[4], uint64_t b, bool accumulate) {                           \
      if constexpr (std::is_same_v<T, __nv_bfloat16>) ELECTRA_WGMMA_REGISTERS("bf16", N, R, n0, n1, n2, n3, n4, n5, n6);                        \
      else ELECTRA_WGMMA_REGISTERS("f16", N, R, n0, n1, n2, n3, n4, n5, n6);                                                                    \
    }                                                                                                                                          \
  };

ELECTRA_WGMMA(8, 4, 4, 5, 6, 7, 8, 9, 10)
ELECTRA_WGMMA(16, 8, 8, 9, 10, 11, 12, 13, 14)
ELECTRA_WGMMA(32, 16, 16, 17, 18, 19, 20, 21, 22)
ELECTRA_WGMMA(64, 32, 32, 33, 34, 35, 36, 37, 38)
ELECTRA_WGMMA(96, 48, 48, 49, 50, 51, 52, 53, 54)
ELECTRA_WGMMA(128, 64, 64, 65, 66, 67, 68, 69, 70)
ELECTRA_WGMMA(160, 80, 80, 81, 82, 83, 84, 85, 86)
ELECTRA_WGMMA(192, 96, 96, 97, 98, 99, 100, 101, 102)
ELECTRA_WGMMA(256, 128, 128, 129, 130, 131, 132, 133, 134)

}  // namespace electra::cuda
