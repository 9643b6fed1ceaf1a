// The torch boundary of the CUDA ops, on torch's stable ABI: what every op checks, allocates and launches on the same way. Host compiler only.
//
// Compiled twice: for CUDA (`_C_cuda.so`, namespace electra_fast, key CUDA), and with -DELECTRA_EMULATION for the tests, where the kernels run on the CPU
// (namespace electra_fast_emulated, same schemas, key CPU).
#pragma once
#ifndef USE_CUDA
#define USE_CUDA   // declares the CUDA shims; they live in libtorch_cuda.so
#endif
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "common/philox.h"
#include "cuda/dropout.h"
#include "cuda/dtype.h"

#ifdef ELECTRA_EMULATION
#include "emulation/boundary.h"
#define ELECTRA_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(electra_fast_emulated, CPU, m)
#else
#define ELECTRA_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(electra_fast, CUDA, m)
#endif

namespace electra::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws what Python sees as a RuntimeError with this message alone (STD_TORCH_CHECK would put the C++ function, file and line before it).
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}
#define ELECTRA_CHECK(condition, ...) do { if (!(condition)) ::electra::cuda::fail(__VA_ARGS__); } while (0)

// While it lives, the device of `t` is the current one; `stream` is the current stream there.
class DeviceScope {
 public:
#ifdef ELECTRA_EMULATION
  explicit DeviceScope(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
#else
  explicit DeviceScope(const Tensor& t) : index_(t.get_device_index()), guard_(index_) {}
  cudaStream_t stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    return static_cast<cudaStream_t>(stream);
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
#endif
};

inline void check_launch(cudaError_t error, const char* op) {
#ifdef ELECTRA_EMULATION
  const std::string fault = emulation::take_error();
  ELECTRA_CHECK(fault.empty(), op, ": ", fault);
#endif
  ELECTRA_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

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

// Activations of the memory-bound ops.
inline DType dtype_of(const Tensor& t, const char* op, const char* argument) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Half: return DType::f16;
    default: fail(op, ": ", argument, " must be float32, bfloat16 or float16 on CUDA");
  }
}

// Activations of the ops on tensor cores.
inline DType dtype_16_bit_of(const Tensor& t, const char* op, const char* argument) {
  ELECTRA_CHECK(t.scalar_type() == ScalarType::BFloat16 || t.scalar_type() == ScalarType::Half, op, ": ", argument, " must be bfloat16 or float16 on CUDA");
  return dtype_of(t, op, argument);
}

// A parameter is in the activations' dtype or in float32.
inline DType parameter_dtype_of(const Tensor& t, DType activation, const char* op, const char* argument) {
  const DType type = dtype_of(t, op, argument);
  ELECTRA_CHECK(type == activation || type == DType::f32, op, ": ", argument, " must be float32 or of the dtype of the activations");
  return type;
}

inline ScalarType scalar_type_of(DType type) {
  return type == DType::f32 ? ScalarType::Float : type == DType::bf16 ? ScalarType::BFloat16 : ScalarType::Half;
}

inline void check_same_device(const Tensor& t, const Tensor& like, const char* op, const char* argument, const char* like_argument) {
  ELECTRA_CHECK(t.device() == like.device(), op, ": ", argument, " must be on the device of ", like_argument);
}

inline void check_shape(const Tensor& t, std::initializer_list<int64_t> shape, const char* op, const char* argument) {
  bool same = t.dim() == int64_t(shape.size());
  std::string wanted = "[";
  int64_t i = 0;
  for (const int64_t n : shape) {
    same = same && t.size(i) == n;
    wanted += (i++ ? ", " : "") + std::to_string(n);
  }
  ELECTRA_CHECK(same, op, ": ", argument, " must have shape ", wanted, "], got ", shape_string(t));
}

inline void check_like(const Tensor& t, const Tensor& like, const char* op, const char* argument, const char* like_argument) {
  ELECTRA_CHECK(same_shape(t, like), op, ": ", argument, " must have the shape of ", like_argument, ", ", shape_string(like), ", got ", shape_string(t));
  ELECTRA_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", argument, " must have the dtype of ", like_argument);
  check_same_device(t, like, op, argument, like_argument);
}

// Contiguous, without a trip through the dispatcher where it is so already.
inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

inline std::optional<Tensor> dense_or_none(const std::optional<Tensor>& t) { return t ? std::optional<Tensor>(dense(*t)) : std::nullopt; }

inline const void* data_or_null(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }

// What a kernel reads of a dense parameter, in either of its dtypes. `t` must outlive the launch.
inline Parameter parameter(const Tensor& t, DType activation, const char* op, const char* argument) {
  return {t.const_data_ptr(), parameter_dtype_of(t, activation, op, argument)};
}

inline Parameter parameter(const std::optional<Tensor>& t, DType activation, const char* op, const char* argument) {
  return t ? parameter(*t, activation, op, argument) : Parameter{};
}

inline ParameterGradient parameter_gradient(Tensor& t, DType activation, const char* op, const char* argument) {
  return {t.mutable_data_ptr(), parameter_dtype_of(t, activation, op, argument)};
}

// Bytes of scratch on the device of `like`, freed (in stream order, by torch's allocator) when the tensor goes. Its content is undefined.
inline Tensor workspace(const Tensor& like, int64_t bytes) { return torch::stable::new_empty(like, {bytes}, ScalarType::Byte); }

// (seed, step) in device memory: read by the kernels, never here.
inline const int64_t* rng_pointer(const Tensor& rng, const Tensor& like, const char* op) {
  ELECTRA_CHECK(rng.scalar_type() == ScalarType::Long && rng.numel() == 2 && rng.is_contiguous(), op, ": rng must be an int64 tensor (seed, step)");
  ELECTRA_CHECK(rng.device() == like.device(), op, ": rng must be on the device of the activations");
  return static_cast<const int64_t*>(rng.const_data_ptr());
}

inline Dropout dropout_of(double p, const std::optional<Tensor>& rng, int64_t site, const Tensor& like, const char* op) {
  ELECTRA_CHECK(p >= 0.0 && p < 1.0, op, ": dropout_p must be in [0, 1), got ", p);
  if (p == 0.0) return {};
  ELECTRA_CHECK(rng.has_value(), op, ": dropout_p > 0 needs rng");
  const int threshold = dropout_threshold(p);
  return {rng_pointer(*rng, like, op), site, threshold, 256.f / float(threshold)};
}

// cu_seqlens as far as the host can check it: dense int32 [B+1] on the device of the activations.
inline Tensor checked_cu_seqlens(const Tensor& t, const Tensor& like, const char* op, const char* argument) {
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Int && t.dim() == 1 && t.size(0) >= 1, op, ": ", argument, " must be int32 of shape [B+1], got ", shape_string(t));
  ELECTRA_CHECK(t.device() == like.device(), op, ": ", argument, " must be on the device of the activations");
  return dense(t);
}

}  // namespace electra::cuda
