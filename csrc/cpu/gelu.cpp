// gelu on the CPU: checks, allocation, parallel loop. Arithmetic: csrc/cpu/kernels/gelu.cpp.
#include "cpu/kernels/gelu.h"

#include "cpu/reduce.h"
#include "cpu/tensors.h"

namespace electra {
namespace {

void check_bias(const Tensor& x, const std::optional<Tensor>& bias) {
  STD_TORCH_CHECK(x.dim() >= 1, "gelu: x must have at least one dimension");
  if (bias)
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == x.size(x.dim() - 1), "gelu: bias must have shape [", x.size(x.dim() - 1), "], got ", bias->numel(), " elements");
}

Tensor gelu(const Tensor& x_, const std::optional<Tensor>& bias_) {
  check_bias(x_, bias_);
  const Tensor x = torch::stable::contiguous(x_);
  const std::optional<Tensor> bias = contiguous_or_none(bias_);
  const DType type = dtype_of(x, "gelu", "x"), param = bias ? param_dtype_of(*bias, type, "gelu", "bias") : type;
  Tensor y = torch::stable::empty_like(x);
  const int64_t n = x.size(x.dim() - 1), rows = n ? x.numel() / n : 0;
  const GeluKernels& kernels = pick_gelu_kernels();
  const void *xp = x.const_data_ptr(), *bp = data_or_null(bias);
  void* yp = y.mutable_data_ptr();
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, n)),
                              [&](int64_t begin, int64_t end) { kernels.forward(type, param, xp, bp, yp, begin, end, n); });
  return y;
}

std::tuple<Tensor, Tensor> gelu_backward(const Tensor& grad_, const Tensor& x_, const std::optional<Tensor>& bias_) {
  check_bias(x_, bias_);
  const Tensor x = torch::stable::contiguous(x_), grad = torch::stable::contiguous(grad_);
  STD_TORCH_CHECK(grad.numel() == x.numel() && grad.scalar_type() == x.scalar_type(), "gelu_backward: grad must have the shape and dtype of x");
  const std::optional<Tensor> bias = contiguous_or_none(bias_);
  const DType type = dtype_of(x, "gelu", "x"), param = bias ? param_dtype_of(*bias, type, "gelu", "bias") : type;
  const int64_t n = x.size(x.dim() - 1), rows = n ? x.numel() / n : 0;
  const RowBlocks blocks(rows);
  Tensor dx = torch::stable::empty_like(x);
  Tensor dbias = torch::stable::new_empty(bias ? *bias : x, {bias ? n : 0});
  const ScalarType acc = accumulate_type_of(type);
  const size_t acc_size = acc == ScalarType::Double ? 8 : 4;
  Tensor partial = torch::stable::new_empty(x, {bias ? blocks.count : 0, n}, acc);
  const GeluKernels& kernels = pick_gelu_kernels();
  const void *gp = grad.const_data_ptr(), *xp = x.const_data_ptr(), *bp = data_or_null(bias);
  void* dxp = dx.mutable_data_ptr();
  char* pp = bias ? static_cast<char*>(partial.mutable_data_ptr()) : nullptr;
  torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b)
      kernels.backward(type, param, gp, xp, bp, dxp, pp ? pp + b * n * acc_size : nullptr, blocks.begin(b), blocks.end(b, rows), n);
  });
  if (bias) sum_partials(partial, dbias, "gelu_backward");
  return {dx, dbias};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("gelu", TORCH_BOX(&electra::gelu));
  m.impl("gelu_backward", TORCH_BOX(&electra::gelu_backward));
}
