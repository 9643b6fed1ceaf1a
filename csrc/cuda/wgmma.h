// Hopper's tensor cores (wgmma, sm_90a): D [64 x N] (+)= A [64 x 16] · B [16 x N] by the 128 threads of a warpgroup, asynchronously. A from registers or shared
// memory, B from shared memory, 16-bit types, accumulated in float.
//
// Fragments: thread 32*w + 4*g + t of the group holds, as i, j and e run over 0, 1; 0 … N/8-1; 0, 1,
//   d[4*j + 2*i + e] = D[16*w + 8*i + g][8*j + 2*t + e]          and of A in registers         a[i + 2*k] = A[16*w + 8*i + g][8*k + 2*t, 8*k + 2*t + 1], k in 0, 1.
//
//   wgmma_fence();                                     // registers and shared memory are ready
//   for (k …) wgmma<64, T>(d, a(k), b(k), k > 0);
//   wgmma_commit();
//   wgmma_wait<0>();                                   // from here on d may be read, and what was multiplied overwritten
//   wgmma_hold(d);                                     // keeps the compiler from moving that before the wait
//
// Shared memory written by ordinary stores or cp.async needs fence_async_proxy (mbarrier.h) before; written by TMA it does not.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "cuda/portable.h"
#include "cuda/swizzle.h"

namespace electra::cuda {

// Which index of an operand is contiguous in shared memory: k, or the other one (A's row, B's column).
enum class Major { k, mn };

// An operand in shared memory: 8 x 16-byte pieces in the canonical layouts of PTX ISA, "Matrix-Descriptor Format" ("Strides"). In bytes, for a row of `swizzle`
// bytes (16 for none):
//   Major::k   rows of k at that pitch; 8 rows to the next 8: `stride`; without swizzle from one 16-byte column of pieces to the next: `leading` (else unused).
//              The next 16 k of a swizzled row are 32 bytes on: add them to the address.
//   Major::mn  rows of m or n at that pitch, 8 k after each other; to the next 8 k: `stride`; to the next row length of m or n: `leading`.
//              Without swizzle the two change places.
// The layout repeats every 8 rows, and starts at a multiple of their bytes.
struct Operand {
  uint64_t descriptor;
};

}  // namespace electra::cuda

#ifdef ELECTRA_EMULATION
#include "emulation/wgmma.h"
#else
#include "cuda/wgmma_instructions.h"

namespace electra::cuda {

__device__ __forceinline__ Operand wgmma_operand(const void* shared, Swizzle swizzle, uint32_t leading, uint32_t stride) {
  constexpr uint64_t modes[] = {0, 3, 2, 1};   // of the swizzles, bits 62 and 63
  const uint64_t address = uint32_t(__cvta_generic_to_shared(shared));
  return {(address & 0x3ffff) >> 4 | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 | modes[int(swizzle)] << 62};
}

// The same layout `bytes` further on.
__device__ __forceinline__ Operand operator+(Operand operand, uint32_t bytes) { return {operand.descriptor + (bytes >> 4)}; }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory"); }

template <int R> __device__ __forceinline__ void wgmma_hold(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i]) :: "memory");
}

// The same for operands in registers, before wgmma_fence: nothing that makes them may move behind it.
template <int N> __device__ __forceinline__ void wgmma_hold(uint32_t (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < 4 * N; ++i) asm volatile("" : "+r"(a[i / 4][i % 4]) :: "memory");
}

// Registers of a warpgroup's threads (a multiple of 8 from 24 to 240): producers give them up, consumers take them. The whole warpgroup calls.
template <int N> __device__ __forceinline__ void release_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(N)); }
template <int N> __device__ __forceinline__ void acquire_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(N)); }

// d (+)= A · B, both in shared memory. N: see the table at the end of wgmma_instructions.h. Not accumulating: d is overwritten, and need not be set.
template <int N, class T, Major a_major = Major::k, Major b_major = Major::k>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], Operand a, Operand b, bool accumulate) {
  WgmmaInstruction<N>::template run<T, a_major, b_major>(d, a.descriptor, b.descriptor, accumulate);
}

// A from registers, which must not change before the wait.
template <int N, class T, Major b_major = Major::k>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], Operand b, bool accumulate) {
  WgmmaInstruction<N>::template run<T, b_major>(d, a, b.descriptor, accumulate);
}

}  // namespace electra::cuda

#endif
