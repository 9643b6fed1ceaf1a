// gelu on the CPU: checks, allocation, parallel loop. Arithmetic: csrc/cpu/kernels/gelu.cpp.
#include "cpu/kernels/gelu.h"

#include "cpu/reduce.h"
#include "cpu/tensors.h"

namespace electra {
namespace {

void check_bias(const Tensor& x, const std::optional<Tensor>& bias) {
  ELECTRA_CHECK(x.dim() >= 1, "gelu: x must have at least one dimension");
  const int64_t n = x.size(x.dim() - 1);
  if (bias) ELECTRA_CHECK(bias->dim() == 1 && bias->size(0) == n, "gelu: bias must have shape [", n, "], got ", shape_string(*bias));
}

Tensor gelu(const Tensor& x_, const std::optional<Tensor>& bias_) {
  check_bias(x_, bias_);
  const Tensor x = dense(x_);
  const DType type = dtype_of(x, "gelu", "x");
  const std::optional<Tensor> bias = parameter_row(bias_, type, "gelu", "bias");
  Tensor y = torch::stable::empty_like(x);
  const int64_t n = x.size(x.dim() - 1), rows = n ? x.numel() / n : 0;
  const GeluKernels& kernels = pick_gelu_kernels();
  const void *xp = x.const_data_ptr(), *bp = data_or_null(bias);
  void* yp = y.mutable_data_ptr();
  torch::stable::parallel_for(0, rows, rows_per_task(n), [&](int64_t begin, int64_t end) { kernels.forward(type, xp, bp, yp, begin, end, n); });
  return y;
}

std::tuple<Tensor, Tensor> gelu_backward(const Tensor& grad_, const Tensor& x_, const std::optional<Tensor>& bias_) {
  check_bias(x_, bias_);
  const Tensor x = dense(x_), grad = dense(grad_);
  check_like(grad, x, "gelu_backward", "grad", "x");
  const DType type = dtype_of(x, "gelu", "x");
  const std::optional<Tensor> bias = parameter_row(bias_, type, "gelu", "bias");
  const int64_t n = x.size(x.dim() - 1), rows = n ? x.numel() / n : 0;
  const RowBlocks blocks(rows);
  Tensor dx = torch::stable::empty_like(x);
  Tensor dbias = torch::stable::new_empty(bias_ ? *bias_ : x, {bias ? n : 0});
  PartialSums partial(x, type, blocks, bias ? n : 0);
  const GeluKernels& kernels = pick_gelu_kernels();
  const void *gp = grad.const_data_ptr(), *xp = x.const_data_ptr(), *bp = data_or_null(bias);
  void* dxp = dx.mutable_data_ptr();
  torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) kernels.backward(type, gp, xp, bp, dxp, partial.row(b), blocks.begin(b), blocks.end(b, rows), n);
  });
  if (bias) partial.sum_into(dbias, "gelu_backward");
  return {dx, dbias};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("gelu", TORCH_BOX(&electra::gelu));
  m.impl("gelu_backward", TORCH_BOX(&electra::gelu_backward));
}
