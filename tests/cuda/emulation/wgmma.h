// csrc/cuda/wgmma.h in the emulator.
#pragma once
#include "emulation/hopper.h"

namespace electra::cuda {

inline Operand wgmma_operand(const void* shared, Swizzle swizzle, uint32_t leading, uint32_t stride) {
  return {emulation::operand_descriptor(shared, int(swizzle), leading, stride)};
}
inline Operand operator+(Operand operand, uint32_t bytes) { return {operand.descriptor + (bytes >> 4)}; }

inline void wgmma_fence() { emulation::wgmma_fence(); }
inline void wgmma_commit() { emulation::wgmma_commit(); }
template <int N> inline void wgmma_wait() { emulation::wgmma_wait(N); }
template <int R> inline void wgmma_hold(float (&)[R]) {}
template <int N> inline void wgmma_hold(uint32_t (&)[N][4]) {}
template <int N> inline void release_registers() {}
template <int N> inline void acquire_registers() {}

template <int N, class T, Major a_major = Major::k, Major b_major = Major::k>
inline void wgmma(float (&d)[N / 2], Operand a, Operand b, bool accumulate) {
  emulation::wgmma(d, {N, std::is_same_v<T, __half>, false, a_major == Major::mn, b_major == Major::mn, accumulate, {}, a.descriptor, b.descriptor});
}

template <int N, class T, Major b_major = Major::k>
inline void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], Operand b, bool accumulate) {
  emulation::wgmma(d, {N, std::is_same_v<T, __half>, true, false, b_major == Major::mn, accumulate, {a[0], a[1], a[2], a[3]}, 0, b.descriptor});
}

}  // namespace electra::cuda
