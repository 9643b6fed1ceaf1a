// layer_norm on CUDA: the torch boundary. Kernels: csrc/cuda/layer_norm_*.cu.
#include "cuda/layer_norm.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

int columns(const Tensor& x, const char* op, const char* argument) {
  ELECTRA_CHECK(x.dim() >= 1, op, ": ", argument, " must have at least one dimension");
  const int64_t n = x.size(x.dim() - 1);
  ELECTRA_CHECK(n > 0, op, ": ", argument, " must have a last dimension of at least 1, got ", shape_string(x));
  ELECTRA_CHECK(n <= layer_norm_most_columns, op, ": ", argument, " must have a last dimension of at most ", layer_norm_most_columns, " on CUDA, got ", n,
                "; the reference backend takes any");
  return int(n);
}

void check_parameter(const Tensor& t, const Tensor& x, int n, const char* op, const char* argument, const char* like) {
  check_shape(t, {n}, op, argument);
  check_same_device(t, x, op, argument, like);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm(const Tensor& x_, const std::optional<Tensor>& x_bias_, const std::optional<Tensor>& residual_,
                                                      const Tensor& weight_, const Tensor& bias_, double eps, double dropout_p,
                                                      const std::optional<Tensor>& rng, int64_t site) {
  const char* op = "layer_norm";
  const DType type = dtype_of(x_, op, "x");
  const int n = columns(x_, op, "x");
  check_parameter(weight_, x_, n, op, "weight", "x");
  check_parameter(bias_, x_, n, op, "bias", "x");
  if (x_bias_) check_parameter(*x_bias_, x_, n, op, "x_bias", "x");
  if (residual_) check_like(*residual_, x_, op, "residual", "x");
  const DeviceScope device(x_);
  const Tensor x = dense(x_), weight = dense(weight_), bias = dense(bias_);
  const std::optional<Tensor> x_bias = dense_or_none(x_bias_), residual = dense_or_none(residual_);
  const bool sum_is_x = !x_bias && !residual && dropout_p == 0.0;
  const int64_t rows = x.numel() / n;

  Tensor y = torch::stable::empty_like(x);
  Tensor sum = sum_is_x ? torch::stable::new_empty(x, {0}) : torch::stable::empty_like(x);
  Tensor mean = torch::stable::new_empty(x, {rows}, ScalarType::Float), rstd = torch::stable::new_empty(x, {rows}, ScalarType::Float);
  const LayerNormForward call = {type, x.const_data_ptr(), parameter(x_bias, type, op, "x_bias"), data_or_null(residual), parameter(weight, type, op, "weight"),
                                 parameter(bias, type, op, "bias"), float(eps), dropout_of(dropout_p, rng, site, x, op), y.mutable_data_ptr(),
                                 sum_is_x ? nullptr : sum.mutable_data_ptr(), mean.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>(), rows, n};
  check_launch(layer_norm_forward(call, device.stream()), op);
  return {y, sum, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> layer_norm_backward(const Tensor& grad_, const Tensor& sum_, const Tensor& mean_, const Tensor& rstd_,
                                                                       const Tensor& weight_, const Tensor& bias_, const std::optional<Tensor>& x_bias_,
                                                                       double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  const char* op = "layer_norm_backward";
  const DType type = dtype_of(sum_, op, "sum");
  const int n = columns(sum_, op, "sum");
  const int64_t rows = sum_.numel() / n;
  check_like(grad_, sum_, op, "grad", "sum");
  check_parameter(weight_, sum_, n, op, "weight", "sum");
  check_parameter(bias_, sum_, n, op, "bias", "sum");
  if (x_bias_) check_parameter(*x_bias_, sum_, n, op, "x_bias", "sum");
  for (const Tensor* t : {&mean_, &rstd_})
    ELECTRA_CHECK(t->dim() == 1 && t->size(0) == rows && t->scalar_type() == ScalarType::Float && t->device() == sum_.device(), op,
                  ": mean and rstd must be those that layer_norm returned, float32 of shape [", rows, "]");
  const DeviceScope device(sum_);
  const Tensor sum = dense(sum_), grad = dense(grad_), mean = dense(mean_), rstd = dense(rstd_), weight = dense(weight_);

  Tensor dresidual = torch::stable::empty_like(sum);
  Tensor dx = dropout_p > 0.0 ? torch::stable::empty_like(sum) : torch::stable::new_empty(sum, {0});
  Tensor dx_bias = torch::stable::new_empty(x_bias_ ? *x_bias_ : sum, {x_bias_ ? n : 0});
  Tensor dweight = torch::stable::new_empty(weight_, {n}), dbias = torch::stable::new_empty(bias_, {n});
  Tensor scratch = workspace(sum, layer_norm_backward_workspace(rows, n, x_bias_.has_value()));
  const LayerNormBackward call = {type, grad.const_data_ptr(), sum.const_data_ptr(), mean.const_data_ptr<float>(), rstd.const_data_ptr<float>(),
                                  parameter(weight, type, op, "weight"), dropout_of(dropout_p, rng, site, sum, op),
                                  dropout_p > 0.0 ? dx.mutable_data_ptr() : nullptr, dresidual.mutable_data_ptr(),
                                  x_bias_ ? parameter_gradient(dx_bias, type, op, "x_bias") : ParameterGradient{},
                                  parameter_gradient(dweight, type, op, "weight"), parameter_gradient(dbias, type, op, "bias"),
                                  scratch.mutable_data_ptr(), rows, n};
  check_launch(layer_norm_backward(call, device.stream()), op);
  return {dx, dresidual, dx_bias, dweight, dbias};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("layer_norm", TORCH_BOX(&electra::cuda::bindings::layer_norm));
  m.impl("layer_norm_backward", TORCH_BOX(&electra::cuda::bindings::layer_norm_backward));
}
