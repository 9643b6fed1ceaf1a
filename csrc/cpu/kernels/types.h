// Element types of the native kernels and their conversion to the type that is accumulated in. Vectorises under `#pragma omp simd`.
// Everything lives in the instruction set's own namespace: see csrc/cpu/capability.h.
#pragma once
#include <stdint.h>
#include <string.h>

#include "cpu/kernels/dtype.h"

namespace electra {
namespace ELECTRA_ISA {

struct bf16 { uint16_t bits; };

template <class T> struct Accumulate { using type = float; };
template <> struct Accumulate<double> { using type = double; };
template <class T> using acc_t = typename Accumulate<T>::type;   // what a T is summed in

static inline float load(float x) { return x; }
static inline double load(double x) { return x; }
static inline float load(bf16 x) {
  const uint32_t u = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline void store(float& y, float x) { y = x; }
static inline void store(double& y, double x) { y = x; }
// Round to nearest even; NaN stays NaN.
static inline void store(bf16& y, float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  y.bits = uint16_t(x == x ? rounded : ((u >> 16) | 0x40u));
}

}  // namespace ELECTRA_ISA
}  // namespace electra

// Calls the instance of a template for an element type known at run time.
#define ELECTRA_DISPATCH(type, function, ...)                  \
  switch (type) {                                              \
    case DType::f32: function<float>(__VA_ARGS__); break;      \
    case DType::bf16: function<bf16>(__VA_ARGS__); break;      \
    case DType::f64: function<double>(__VA_ARGS__); break;     \
  }
