// gelu on CUDA: the torch boundary. Kernels: csrc/cuda/gelu.cu.
#include "cuda/gelu.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

int64_t columns(const Tensor& x, const std::optional<Tensor>& bias) {
  ELECTRA_CHECK(x.dim() >= 1, "gelu: x must have at least one dimension");
  const int64_t n = x.size(x.dim() - 1);
  if (bias) {
    check_shape(*bias, {n}, "gelu", "bias");
    check_same_device(*bias, x, "gelu", "bias", "x");
  }
  return n;
}

Tensor gelu(const Tensor& x_, const std::optional<Tensor>& bias_) {
  const int64_t n = columns(x_, bias_);
  const DeviceScope device(x_);
  const Tensor x = dense(x_);
  const std::optional<Tensor> bias = dense_or_none(bias_);
  const DType type = dtype_of(x, "gelu", "x");
  Tensor y = torch::stable::empty_like(x);
  const GeluForward call = {type, x.const_data_ptr(), parameter(bias, type, "gelu", "bias"), y.mutable_data_ptr(), n ? x.numel() / n : 0, n};
  check_launch(gelu_forward(call, device.stream()), "gelu");
  return y;
}

std::tuple<Tensor, Tensor> gelu_backward(const Tensor& grad_, const Tensor& x_, const std::optional<Tensor>& bias_) {
  const int64_t n = columns(x_, bias_);
  check_like(grad_, x_, "gelu_backward", "grad", "x");
  const DeviceScope device(x_);
  const Tensor x = dense(x_), grad = dense(grad_);
  const std::optional<Tensor> bias = dense_or_none(bias_);
  const DType type = dtype_of(x, "gelu", "x");
  const int64_t rows = n ? x.numel() / n : 0;
  Tensor dx = torch::stable::empty_like(x);
  Tensor dbias = torch::stable::new_empty(bias ? *bias : x, {bias ? n : 0});
  Tensor scratch = workspace(x, bias ? gelu_backward_workspace(rows, n) : 0);
  const GeluBackward call = {type, grad.const_data_ptr(), x.const_data_ptr(), parameter(bias, type, "gelu", "bias"), dx.mutable_data_ptr(),
                             bias ? parameter_gradient(dbias, type, "gelu_backward", "bias") : ParameterGradient{}, scratch.mutable_data_ptr(), rows, n};
  check_launch(gelu_backward(call, device.stream()), "gelu_backward");
  return {dx, dbias};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("gelu", TORCH_BOX(&electra::cuda::bindings::gelu));
  m.impl("gelu_backward", TORCH_BOX(&electra::cuda::bindings::gelu_backward));
}
