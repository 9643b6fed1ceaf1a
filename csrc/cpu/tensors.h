// The torch boundary of the native ops: what every op checks and allocates the same way. Only torch's stable ABI is used.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "common/philox.h"
#include "cpu/kernels/dtype.h"

namespace electra {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws what Python sees as a RuntimeError with this message alone (STD_TORCH_CHECK would put the C++ function, file and line before it).
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}
#define ELECTRA_CHECK(condition, ...) do { if (!(condition)) ::electra::fail(__VA_ARGS__); } while (0)

inline DType dtype_of(const Tensor& t, const char* op, const char* argument) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Double: return DType::f64;
    default: fail(op, ": ", argument, " must be float32, bfloat16 or float64 on the CPU");
  }
}

// A parameter is in the activations' dtype or in float32.
inline DType param_dtype_of(const Tensor& t, DType activation, const char* op, const char* argument) {
  const DType d = dtype_of(t, op, argument);
  ELECTRA_CHECK(d == activation || d == DType::f32, op, ": ", argument, " must be float32 or of the dtype of the activations");
  return d;
}

inline ScalarType scalar_type_of(DType d) {
  return d == DType::f32 ? ScalarType::Float : d == DType::bf16 ? ScalarType::BFloat16 : ScalarType::Double;
}

// What a dtype is accumulated in.
inline ScalarType accumulate_type_of(DType d) { return d == DType::f64 ? ScalarType::Double : ScalarType::Float; }

inline const void* data_or_null(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }

inline std::string shape_string(const Tensor& t) {
  std::string s = "[";
  for (int64_t i = 0; i < t.dim(); ++i) s += (i ? ", " : "") + std::to_string(t.size(i));
  return s + "]";
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t i = 0; i < a.dim(); ++i)
    if (a.size(i) != b.size(i)) return false;
  return true;
}

inline void check_like(const Tensor& t, const Tensor& like, const char* op, const char* argument, const char* like_argument) {
  ELECTRA_CHECK(same_shape(t, like), op, ": ", argument, " must have the shape of ", like_argument, ", ", shape_string(like), ", got ", shape_string(t));
  ELECTRA_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", argument, " must have the dtype of ", like_argument);
}

// Contiguous, without a trip through the dispatcher where it is so already.
inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

inline std::optional<Tensor> dense_or_none(const std::optional<Tensor>& t) { return t ? std::optional<Tensor>(dense(*t)) : std::nullopt; }

// A parameter vector as the kernels read it: contiguous, in the accumulation type. Free in float32.
inline Tensor parameter_row(const Tensor& t, DType activation, const char* op, const char* argument) {
  const DType d = param_dtype_of(t, activation, op, argument);
  if (scalar_type_of(d) == accumulate_type_of(activation)) return dense(t);
  return torch::stable::to(dense(t), accumulate_type_of(activation));
}

inline std::optional<Tensor> parameter_row(const std::optional<Tensor>& t, DType activation, const char* op, const char* argument) {
  return t ? std::optional<Tensor>(parameter_row(*t, activation, op, argument)) : std::nullopt;
}

// cu_seqlens of sequences packed into `total` rows: dense int32 [B+1], from 0, never falling, ending at or below total.
inline Tensor checked_cu_seqlens(const Tensor& t_, int64_t total, const char* op, const char* argument) {
  ELECTRA_CHECK(t_.scalar_type() == ScalarType::Int && t_.dim() == 1 && t_.size(0) >= 1, op, ": ", argument, " must be int32 of shape [B+1], got ", shape_string(t_));
  const Tensor t = dense(t_);
  const int32_t* c = static_cast<const int32_t*>(t.const_data_ptr());
  const int64_t last = t.size(0) - 1;
  bool rises = c[0] == 0 && c[last] <= total;
  for (int64_t b = 0; b < last; ++b) rises &= c[b] <= c[b + 1];
  ELECTRA_CHECK(rises, op, ": ", argument, " must start at 0, never fall and end at or below ", total, " tokens; it starts at ", c[0], " and ends at ", c[last]);
  return t;
}

// The value of a tensor of one element.
inline double scalar_value(const Tensor& t, const char* op, const char* argument) {
  ELECTRA_CHECK(t.numel() == 1, op, ": ", argument, " must have one element, got ", t.numel());
  switch (dtype_of(t, op, argument)) {
    case DType::f32: return *static_cast<const float*>(t.const_data_ptr());
    case DType::f64: return *static_cast<const double*>(t.const_data_ptr());
    default: break;
  }
  const uint32_t bits = uint32_t(*static_cast<const uint16_t*>(t.const_data_ptr())) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Rows of an element-wise or row-wise op that make a task worth a thread's while.
inline int64_t rows_per_task(int64_t n, int64_t elements = 8192) { return std::max<int64_t>(1, elements / std::max<int64_t>(1, n)); }

inline PhiloxStream stream_of(const Tensor& rng, int64_t site, const char* op) {
  ELECTRA_CHECK(rng.scalar_type() == ScalarType::Long && rng.numel() == 2 && rng.is_contiguous(), op, ": rng must be an int64 tensor (seed, step)");
  const int64_t* r = static_cast<const int64_t*>(rng.const_data_ptr());
  return philox_stream(r[0], r[1], site);
}

inline Dropout dropout_of(double p, const std::optional<Tensor>& rng, int64_t site, const char* op) {
  ELECTRA_CHECK(p >= 0.0 && p < 1.0, op, ": dropout_p must be in [0, 1), got ", p);
  if (p == 0.0) return {};
  ELECTRA_CHECK(rng.has_value(), op, ": dropout_p > 0 needs rng");
  return {dropout_threshold(p), stream_of(*rng, site, op)};
}

// Reductions over rows: a number of blocks that depends on the shape alone, so that the order of summation, and with it every bit of the result, is the
// same for any number of threads. Block b covers rows [b * size, min(rows, (b+1) * size)).
struct RowBlocks {
  int64_t count, size;
  explicit RowBlocks(int64_t rows, int64_t at_least = 32, int64_t at_most = 64) {
    const int64_t wanted = (rows + at_least - 1) / at_least;
    count = wanted < 1 ? 1 : wanted > at_most ? at_most : wanted;
    size = (rows + count - 1) / count;
    if (size < 1) size = 1;
    count = rows > 0 ? (rows + size - 1) / size : 1;
  }
  int64_t begin(int64_t b) const { return b * size; }
  int64_t end(int64_t b, int64_t rows) const { const int64_t e = (b + 1) * size; return e < rows ? e : rows; }
};

}  // namespace electra
