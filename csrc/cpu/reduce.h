// The last step of a reduction over row blocks: partial sums [blocks, n], added in the order of the blocks, stored in the parameter's dtype.
#pragma once
#include <cstring>

#include "cpu/tensors.h"

namespace electra {

template <class A>
inline void sum_partials_as(const A* partial, int64_t blocks, int64_t n, DType out_type, void* out) {
  for (int64_t i = 0; i < n; ++i) {
    A s = 0;
    for (int64_t b = 0; b < blocks; ++b) s += partial[b * n + i];
    if (out_type == DType::f32) {
      static_cast<float*>(out)[i] = float(s);
    } else if (out_type == DType::f64) {
      static_cast<double*>(out)[i] = double(s);
    } else {
      const float f = float(s);
      uint32_t u;
      std::memcpy(&u, &f, 4);
      static_cast<uint16_t*>(out)[i] = uint16_t(f == f ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : (u >> 16) | 0x40u);
    }
  }
}

// `partial` [blocks, n] in the accumulation type; `out` [n].
inline void sum_partials(const Tensor& partial, Tensor& out, const char* op) {
  const int64_t blocks = partial.size(0), n = partial.size(1);
  const DType type = dtype_of(out, op, "gradient");
  if (partial.scalar_type() == ScalarType::Double)
    sum_partials_as(static_cast<const double*>(partial.const_data_ptr()), blocks, n, type, out.mutable_data_ptr());
  else
    sum_partials_as(static_cast<const float*>(partial.const_data_ptr()), blocks, n, type, out.mutable_data_ptr());
}

}  // namespace electra
