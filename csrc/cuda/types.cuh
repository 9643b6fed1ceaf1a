// Element types on the device: 16-byte vectors that are loaded and stored as float, and the choice of a type by DType.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/dtype.h"
#include "cuda/portable.h"

namespace electra::cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

// Rounds to nearest even.
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }

// Two 16-bit values in a register, `low` in the low half: what mma operands are made of.
template <class T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

template <class T> __device__ __forceinline__ float2 unpack(uint32_t both);
template <> __device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t both) { return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&both)); }
template <> __device__ __forceinline__ float2 unpack<__half>(uint32_t both) { return __half22float2(*reinterpret_cast<const __half2*>(&both)); }

// N neighbouring values, aligned as one access (at most 16 bytes).
template <class T, int N> struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "an access is 1, 2, 4, 8 or 16 bytes");
  T v[N];
};

// Values in 16 bytes: 8 of 16 bits, 4 of float.
template <class T> inline constexpr int values_per_16_bytes = 16 / int(sizeof(T));

// The values of 16 bytes as float, and back. They are moved as four words: a struct of 16-bit values the compiler may take apart, into four accesses.
template <class T> __device__ __forceinline__ void widen(const uint4& words, float* out) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      out[i] = __uint_as_float(word[i]);
    } else {
      const float2 pair = unpack<T>(word[i]);
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
}

template <class T> __device__ __forceinline__ uint4 narrow(const float* in) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) word[i] = __float_as_uint(in[i]);
    else word[i] = pack<T>(in[2 * i], in[2 * i + 1]);
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}

// 16 bytes in one access. (In the emulator they stay one, too: g++ would take a uint4 apart, and a misaligned one would pass for four aligned words.)
#ifdef ELECTRA_EMULATION
typedef uint32_t Words __attribute__((vector_size(16), may_alias));
inline uint4 load_words(const void* p) {
  Words words = *static_cast<const Words*>(p);
  asm("" : "+x"(words));
  return make_uint4(words[0], words[1], words[2], words[3]);
}
inline void store_words(void* p, const uint4& value) {
  Words words = {value.x, value.y, value.z, value.w};
  asm("" : "+x"(words));
  *static_cast<Words*>(p) = words;
}
#else
__device__ __forceinline__ uint4 load_words(const void* p) { return *static_cast<const uint4*>(p); }
__device__ __forceinline__ void store_words(void* p, const uint4& value) { *static_cast<uint4*>(p) = value; }
#endif

// N values from p, which is aligned to min(16, N * sizeof(T)) bytes; N = 8 of float are two accesses.
template <int N, class T> __device__ __forceinline__ void load_vector(const T* p, float (&out)[N]) {
  constexpr int whole = values_per_16_bytes<T>;
  if constexpr (N >= whole) {
#pragma unroll
    for (int i = 0; i < N; i += whole) widen<T>(load_words(p + i), out + i);
  } else {
    const Vector<T, N> part = *reinterpret_cast<const Vector<T, N>*>(p);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = to_float(part.v[j]);
  }
}

template <int N, class T> __device__ __forceinline__ void store_vector(T* p, const float (&in)[N]) {
  constexpr int whole = values_per_16_bytes<T>;
  if constexpr (N >= whole) {
#pragma unroll
    for (int i = 0; i < N; i += whole) store_words(p + i, narrow<T>(in + i));
  } else {
    Vector<T, N> part;
#pragma unroll
    for (int j = 0; j < N; ++j) part.v[j] = from_float<T>(in[j]);
    *reinterpret_cast<Vector<T, N>*>(p) = part;
  }
}

// Whether every row of n elements that starts at p may be read in accesses of N values.
template <class T> inline bool vectors_fit(const void* p, int64_t n, int values) {
  const uint64_t bytes = sizeof(T) * values < 16 ? sizeof(T) * values : 16;
  return n % values == 0 && reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// The same for a parameter in either of its dtypes; none (null) fits.
template <class T> inline bool parameter_fits(const Parameter& parameter, int64_t n, int values) {
  return parameter.type == DType::f32 ? vectors_fit<float>(parameter.data, n, values) : vectors_fit<T>(parameter.data, n, values);
}

// Values i … i+N-1 of a parameter, whichever of its two dtypes it has: T, the activations', or float.
template <class T, int N> __device__ __forceinline__ void load_parameter(const Parameter& parameter, int64_t i, float (&out)[N]) {
  if (parameter.type == DType::f32) load_vector<N>(static_cast<const float*>(parameter.data) + i, out);
  else load_vector<N>(static_cast<const T*>(parameter.data) + i, out);
}

template <class T, int N> __device__ __forceinline__ void store_parameter(const ParameterGradient& gradient, int64_t i, const float (&in)[N]) {
  if (gradient.type == DType::f32) store_vector<N>(static_cast<float*>(gradient.data) + i, in);
  else store_vector<N>(static_cast<T*>(gradient.data) + i, in);
}

template <class T> struct TypeTag { using type = T; };

// Call f(TypeTag<T>{}) for the element type of `type`:
//   return dispatch(call.type, [&](auto tag) { using T = typename decltype(tag)::type; return forward<T>(call, stream); });
template <class F> auto dispatch(DType type, F&& f) {
  switch (type) {
    case DType::f32: return f(TypeTag<float>{});
    case DType::bf16: return f(TypeTag<__nv_bfloat16>{});
    default: return f(TypeTag<__half>{});
  }
}

// The same for what tensor cores multiply: 16-bit types only.
template <class F> auto dispatch_16_bit(DType type, F&& f) {
  if (type == DType::bf16) return f(TypeTag<__nv_bfloat16>{});
  return f(TypeTag<__half>{});
}

}  // namespace electra::cuda
