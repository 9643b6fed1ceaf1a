// The CUDA language and its intrinsics for g++: keywords, built-in variables, barriers, warp collectives, atomics, arithmetic.
#pragma once
#include <math.h>
#include <string.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
// Shared memory is thread-local: one area of the library that the emulator finds, poisons and checks; blocks run one after another on one thread of the system.
#define __shared__ static thread_local
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "emulation/runtime.h"

#define threadIdx (::electra::emulation::thread_index())
#define blockIdx (::electra::emulation::block_index())
#define blockDim (::electra::emulation::block_size())
#define gridDim (::electra::emulation::grid_size())

// --- barriers and fences. (Blocks run one after another, so a fence has nothing to do.)
inline void __syncthreads() { electra::emulation::block_barrier(false); }
inline int __syncthreads_or(int predicate) { return electra::emulation::block_barrier(predicate).any; }
inline int __syncthreads_and(int predicate) { return electra::emulation::block_barrier(predicate).all; }
inline int __syncthreads_count(int predicate) { return electra::emulation::block_barrier(predicate).count; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { electra::emulation::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() { electra::emulation::fail("__trap"); }

namespace electra::emulation {

// Values of 2, 4 or 8 bytes travel in a register.
template <class T> inline uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "what a shuffle moves");
  if constexpr (std::is_integral_v<T>) return uint64_t(value);
  else return uint64_t(__builtin_bit_cast(std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>, value));
}
template <class T> inline T from_bits(uint64_t bits) {
  if constexpr (std::is_integral_v<T>) return T(bits);
  else return __builtin_bit_cast(T, std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>(bits));
}

// The lane a shuffle reads from: inside the segment of `width` lanes, or the caller's own.
template <class T> inline T shuffle(unsigned mask, T value, int source, int width, const char* what) {
  const int base = lane() & ~(width - 1);
  const bool inside = source >= base && source < base + width;
  return from_bits<T>(warp_shuffle(mask, to_bits(value), inside ? source : lane(), what));
}

}  // namespace electra::emulation

// --- warp collectives
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return electra::emulation::shuffle(mask, value, (electra::emulation::lane() & ~(width - 1)) + (source & (width - 1)), width, "__shfl_sync");
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return electra::emulation::shuffle(mask, value, electra::emulation::lane() ^ bits, width, "__shfl_xor_sync");
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return electra::emulation::shuffle(mask, value, electra::emulation::lane() - int(delta), width, "__shfl_up_sync");
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return electra::emulation::shuffle(mask, value, electra::emulation::lane() + int(delta), width, "__shfl_down_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return electra::emulation::warp_ballot(mask, predicate, "__ballot_sync"); }
inline int __any_sync(unsigned mask, int predicate) { return electra::emulation::warp_ballot(mask, predicate, "__any_sync") != 0; }
inline int __all_sync(unsigned mask, int predicate) { return electra::emulation::warp_ballot(mask, !predicate, "__all_sync") == 0; }
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return unsigned(electra::emulation::warp_combine(mask, value, [](uint64_t a, uint64_t b) { return uint64_t(uint32_t(a + b)); }, "__reduce_add_sync"));
}
inline int __reduce_add_sync(unsigned mask, int value) { return int(__reduce_add_sync(mask, unsigned(value))); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return unsigned(electra::emulation::warp_combine(mask, value, [](uint64_t a, uint64_t b) { return a > b ? a : b; }, "__reduce_max_sync"));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return unsigned(electra::emulation::warp_combine(mask, value, [](uint64_t a, uint64_t b) { return a < b ? a : b; }, "__reduce_min_sync"));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return unsigned(electra::emulation::warp_combine(mask, value, [](uint64_t a, uint64_t b) { return a | b; }, "__reduce_or_sync"));
}

// --- atomics: on integers only, since the order in which floats are added is not fixed on a GPU.
namespace electra::emulation {
template <class T, class F> __attribute__((no_sanitize("thread"))) inline T atomic(T* p, F update) {
  static_assert(std::is_integral_v<T>, "float atomics are not deterministic");
  check_atomic(p, sizeof(T));
  const T old = *p;
  *p = update(old);
  return old;
}
}  // namespace electra::emulation
template <class T> inline T atomicAdd(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return T(old + value); }); }
template <class T> inline T atomicSub(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return T(old - value); }); }
template <class T> inline T atomicMax(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return old > value ? old : value; }); }
template <class T> inline T atomicMin(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return old < value ? old : value; }); }
template <class T> inline T atomicOr(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return T(old | value); }); }
template <class T> inline T atomicAnd(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T old) { return T(old & value); }); }
template <class T> inline T atomicExch(T* p, std::type_identity_t<T> value) { return electra::emulation::atomic(p, [=](T) { return value; }); }
template <class T> inline T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return electra::emulation::atomic(p, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) { return electra::emulation::atomic(p, [=](unsigned old) { return old >= limit ? 0u : old + 1u; }); }

// --- loads and stores with a cache hint
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, std::type_identity_t<T> value) { *p = value; }
template <class T> inline void __stcg(T* p, std::type_identity_t<T> value) { *p = value; }

// --- bits
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> 4 * i;
    unsigned byte = unsigned(bytes >> 8 * (s & 7)) & 255u;
    if (s & 8) byte = byte & 128u ? 255u : 0u;   // spreads the sign
    result |= byte << 8 * i;
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) { return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) { return unsigned((uint64_t(high) << 32 | low) >> (shift & 31)); }
// Byte by byte: 255 where a < b, unsigned.
inline unsigned __vcmpltu4(unsigned a, unsigned b) {
  unsigned result = 0;
  for (int i = 0; i < 32; i += 8) result |= (a >> i & 255u) < (b >> i & 255u) ? 255u << i : 0u;
  return result;
}

// --- arithmetic. The approximate functions of a GPU are exact here: a test must leave them their documented error.
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.f / sqrtf(x); }
inline float __saturatef(float x) { return x > 0.f ? x < 1.f ? x : 1.f : 0.f; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.707106781f); }
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline double __ll2double_rn(long long x) { return double(x); }
using std::max;
using std::min;
