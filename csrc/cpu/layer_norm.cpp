// layer_norm on the CPU: checks, allocation, parallel loop. Arithmetic: csrc/cpu/kernels/layer_norm.cpp.
#include "cpu/kernels/layer_norm.h"

#include "cpu/outputs.h"
#include "cpu/reduce.h"
#include "cpu/scratch.h"
#include "cpu/tensors.h"

namespace electra {
namespace {

void check_vector(const Tensor& t, int64_t n, const char* op, const char* argument) {
  ELECTRA_CHECK(t.dim() == 1 && t.size(0) == n, op, ": ", argument, " must have shape [", n, "], got ", shape_string(t));
}

int64_t columns(const Tensor& x, const char* op, const char* argument) {
  ELECTRA_CHECK(x.dim() >= 1, op, ": ", argument, " must have at least one dimension");
  const int64_t n = x.size(x.dim() - 1);
  ELECTRA_CHECK(n > 0, op, ": ", argument, " must have a last dimension of at least 1, got ", shape_string(x));
  return n;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm(const Tensor& x_, const std::optional<Tensor>& x_bias_, const std::optional<Tensor>& residual_,
                                                      const Tensor& weight_, const Tensor& bias_, double eps, double dropout_p,
                                                      const std::optional<Tensor>& rng, int64_t site) {
  const char* op = "layer_norm";
  const Tensor x = dense(x_);
  const DType type = dtype_of(x, op, "x");
  const int64_t n = columns(x, op, "x"), rows = x.numel() / n;
  check_vector(weight_, n, op, "weight");
  check_vector(bias_, n, op, "bias");
  if (x_bias_) check_vector(*x_bias_, n, op, "x_bias");
  if (residual_) check_like(*residual_, x, op, "residual", "x");
  const Tensor weight = parameter_row(weight_, type, op, "weight"), bias = parameter_row(bias_, type, op, "bias");
  const std::optional<Tensor> x_bias = parameter_row(x_bias_, type, op, "x_bias"), residual = dense_or_none(residual_);
  const Dropout dropout = dropout_of(dropout_p, rng, site, op);
  const bool sum_is_x = !x_bias && !residual && dropout_p == 0.0;

  Tensor y = empty_output(x), sum = sum_is_x ? torch::stable::new_empty(x, {0}) : empty_output(x);
  Tensor mean = torch::stable::new_empty(x, {rows}, accumulate_type_of(type)), rstd = torch::stable::new_empty(x, {rows}, accumulate_type_of(type));
  const LayerNormForward call = {type, x.const_data_ptr(), data_or_null(x_bias), data_or_null(residual), weight.const_data_ptr(), bias.const_data_ptr(), eps, dropout,
                                 y.mutable_data_ptr(), sum_is_x ? nullptr : sum.mutable_data_ptr(), mean.mutable_data_ptr(), rstd.mutable_data_ptr(), n,
                                 writes_past_caches(x.element_size() * (y.numel() + sum.numel()), x.element_size() * n, {y.const_data_ptr(), sum.const_data_ptr()})};
  const LayerNormKernels& kernels = pick_layer_norm_kernels();
  torch::stable::parallel_for(0, rows, rows_per_task(n), [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels.scratch(type, n));
    kernels.forward(call, begin, end, scratch.data());
  });
  return {y, sum, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layer_norm_backward(const Tensor& grad_, const Tensor& sum_, const Tensor& mean_, const Tensor& rstd_,
                                                                       const Tensor& weight_, const Tensor& bias_, const std::optional<Tensor>& x_bias_,
                                                                       double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  const char* op = "layer_norm_backward";
  const Tensor sum = dense(sum_), grad = dense(grad_), mean = dense(mean_), rstd = dense(rstd_);
  const DType type = dtype_of(sum, op, "sum");
  const int64_t n = columns(sum, op, "sum"), rows = sum.numel() / n;
  check_like(grad, sum, op, "grad", "sum");
  check_vector(weight_, n, op, "weight");
  check_vector(bias_, n, op, "bias");
  if (x_bias_) check_vector(*x_bias_, n, op, "x_bias");
  check_vector(mean, rows, op, "mean");
  check_vector(rstd, rows, op, "rstd");
  ELECTRA_CHECK(mean.scalar_type() == accumulate_type_of(type) && rstd.scalar_type() == accumulate_type_of(type), op,
                  ": mean and rstd must be those that layer_norm returned, in its accumulation dtype");
  const Tensor weight = parameter_row(weight_, type, op, "weight");
  const Dropout dropout = dropout_of(dropout_p, rng, site, op);

  Tensor dresidual = empty_output(sum), dx = dropout_p > 0.0 ? empty_output(sum) : torch::stable::new_empty(sum, {0});
  Tensor dx_bias = torch::stable::new_empty(x_bias_ ? *x_bias_ : sum, {x_bias_ ? n : 0});
  Tensor dweight = torch::stable::new_empty(weight_, {n}), dbias = torch::stable::new_empty(bias_, {n});
  const RowBlocks blocks(rows);
  const PartialSums weight_sums(sum, type, blocks, n), bias_sums(sum, type, blocks, n), x_bias_sums(sum, type, blocks, x_bias_ ? n : 0);
  const LayerNormBackward call = {type, grad.const_data_ptr(), sum.const_data_ptr(), mean.const_data_ptr(), rstd.const_data_ptr(), weight.const_data_ptr(), dropout,
                                  dropout_p > 0.0 ? dx.mutable_data_ptr() : nullptr, dresidual.mutable_data_ptr(), n,
                                  writes_past_caches(sum.element_size() * (dresidual.numel() + dx.numel()), sum.element_size() * n, {dresidual.const_data_ptr(), dx.const_data_ptr()})};
  const LayerNormKernels& kernels = pick_layer_norm_kernels();
  torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t first, int64_t last) {
    const Scratch scratch(kernels.scratch(type, n));
    for (int64_t b = first; b < last; ++b)
      kernels.backward(call, blocks.begin(b), blocks.end(b, rows), weight_sums.row(b), bias_sums.row(b), x_bias_sums.row(b), scratch.data());
  });
  weight_sums.sum_into(dweight, op);
  bias_sums.sum_into(dbias, op);
  if (x_bias_) x_bias_sums.sum_into(dx_bias, op);
  return {dx, dresidual, dx_bias, dweight, dbias};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("layer_norm", TORCH_BOX(&electra::layer_norm));
  m.impl("layer_norm_backward", TORCH_BOX(&electra::layer_norm_backward));
}
