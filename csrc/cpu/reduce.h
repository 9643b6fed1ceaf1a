// The last step of a reduction over row blocks: partial sums [blocks, n], added in the order of the blocks, stored in the parameter's dtype.
#pragma once
#include <cstring>

#include "cpu/tensors.h"

namespace electra {

// Columns [begin, end). Column tiles stay in L1 while the blocks stream by.
template <class A>
inline void sum_partials_as(const A* partial, int64_t blocks, int64_t n, DType out_type, void* out, int64_t begin, int64_t end) {
  constexpr int64_t tile = 256;
  for (int64_t i0 = begin; i0 < end; i0 += tile) {
    const int64_t m = std::min(tile, end - i0);
    A s[tile] = {};
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t i = 0; i < m; ++i) s[i] += partial[b * n + i0 + i];
    if (out_type == DType::f32) {
      for (int64_t i = 0; i < m; ++i) static_cast<float*>(out)[i0 + i] = float(s[i]);
    } else if (out_type == DType::f64) {
      for (int64_t i = 0; i < m; ++i) static_cast<double*>(out)[i0 + i] = double(s[i]);
    } else {
      for (int64_t i = 0; i < m; ++i) {
        const float f = float(s[i]);
        uint32_t u;
        std::memcpy(&u, &f, 4);
        static_cast<uint16_t*>(out)[i0 + i] = uint16_t(f == f ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : (u >> 16) | 0x40u);
      }
    }
  }
}

// `partial` [blocks, n] in the accumulation type; `out` [n].
inline void sum_partials(const Tensor& partial, Tensor& out, const char* op) {
  const int64_t blocks = partial.size(0), n = partial.size(1);
  const DType type = dtype_of(out, op, "gradient");
  const bool f64 = partial.scalar_type() == ScalarType::Double;
  const void* p = partial.const_data_ptr();
  void* o = out.mutable_data_ptr();
  torch::stable::parallel_for(0, n, std::max<int64_t>(256, 32768 / std::max<int64_t>(1, blocks)), [&](int64_t begin, int64_t end) {
    if (f64) sum_partials_as(static_cast<const double*>(p), blocks, n, type, o, begin, end);
    else sum_partials_as(static_cast<const float*>(p), blocks, n, type, o, begin, end);
  });
}

// Scratch for a gradient [n] that is reduced over row blocks. A kernel writes (not adds to) row(b); row(b) is null where the gradient is not wanted (n = 0).
class PartialSums {
 public:
  PartialSums(const Tensor& like, DType activation, const RowBlocks& blocks, int64_t n)
      : partial_(torch::stable::new_empty(like, {n ? blocks.count : 0, n}, accumulate_type_of(activation))),
        data_(n ? static_cast<char*>(partial_.mutable_data_ptr()) : nullptr), bytes_per_row_(n * (activation == DType::f64 ? 8 : 4)) {}
  void* row(int64_t block) const { return data_ ? data_ + block * bytes_per_row_ : nullptr; }
  void sum_into(Tensor& out, const char* op) const { sum_partials(partial_, out, op); }

 private:
  Tensor partial_;
  char* data_;
  int64_t bytes_per_row_;
};

}  // namespace electra
