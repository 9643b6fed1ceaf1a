// discriminator_loss on CUDA: the torch boundary. Kernels: csrc/cuda/discriminator_loss*.cu.
#include "cuda/discriminator_loss.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

constexpr int64_t most_columns = int64_t(1) << 24;

struct Inputs {
  Tensor hidden, weight, labels;
  std::optional<Tensor> mask;
  DType type;
  int64_t rows;
  int columns;

  Inputs(const Tensor& hidden_, const Tensor& weight_, const Tensor& bias, const Tensor& labels_, const std::optional<Tensor>& mask_, const char* op)
      : hidden(dense(hidden_)), weight(dense(weight_)), labels(dense(labels_)), mask(dense_or_none(mask_)), type(dtype_of(hidden_, op, "hidden")) {
    ELECTRA_CHECK(hidden.dim() == 2, op, ": hidden must have shape [T, K], got ", shape_string(hidden));
    const int64_t n = hidden.size(1);
    ELECTRA_CHECK(n <= most_columns, op, ": hidden must have at most ", most_columns, " columns on CUDA, got ", n);
    rows = hidden.size(0);
    columns = int(n);
    ELECTRA_CHECK(weight.numel() == n && (weight.dim() == 1 || (weight.dim() == 2 && weight.size(0) == 1)), op, ": weight must have shape [", n, "] or [1, ", n,
                  "], got ", shape_string(weight));
    parameter_dtype_of(weight, type, op, "weight");
    parameter_dtype_of(bias, type, op, "bias");
    ELECTRA_CHECK(bias.numel() == 1, op, ": bias must have one element, got ", bias.numel());
    check_same_device(weight, hidden, op, "weight", "hidden");
    check_same_device(bias, hidden, op, "bias", "hidden");
    check_flags(labels, op, "labels");
    if (mask) check_flags(*mask, op, "mask");
  }
  const uint8_t* label_bytes() const { return static_cast<const uint8_t*>(labels.const_data_ptr()); }
  const uint8_t* mask_bytes() const { return static_cast<const uint8_t*>(data_or_null(mask)); }

 private:
  void check_flags(const Tensor& t, const char* op, const char* argument) const {
    ELECTRA_CHECK(t.scalar_type() == ScalarType::Bool && t.dim() == 1 && t.size(0) == rows, op, ": ", argument, " must be a bool tensor of shape [", rows,
                  "], got ", shape_string(t));
    check_same_device(t, hidden, op, argument, "hidden");
  }
};

std::tuple<Tensor, Tensor> discriminator_loss(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& labels,
                                              const std::optional<Tensor>& mask) {
  const char* op = "discriminator_loss";
  const DeviceScope device(hidden);
  const Inputs in(hidden, weight, bias, labels, mask, op);
  Tensor loss = torch::stable::new_empty(hidden, {}, ScalarType::Float), logits = torch::stable::new_empty(hidden, {in.rows}, ScalarType::Float);
  Tensor scratch = workspace(hidden, discriminator_loss_workspace(in.rows));
  const DiscriminatorLossForward call = {in.type, in.hidden.const_data_ptr(), parameter(in.weight, in.type, op, "weight"), parameter(bias, in.type, op, "bias"),
                                         in.label_bytes(), in.mask_bytes(), loss.mutable_data_ptr<float>(), logits.mutable_data_ptr<float>(),
                                         scratch.mutable_data_ptr(), in.rows, in.columns};
  check_launch(discriminator_loss_forward(call, device.stream()), op);
  return {loss, logits};
}

std::tuple<Tensor, Tensor, Tensor> discriminator_loss_backward(const Tensor& grad, const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                                                               const Tensor& labels, const std::optional<Tensor>& mask, const Tensor& logits_) {
  const char* op = "discriminator_loss_backward";
  const DeviceScope device(hidden);
  const Inputs in(hidden, weight, bias, labels, mask, op);
  ELECTRA_CHECK(grad.numel() == 1 && grad.scalar_type() == ScalarType::Float, op, ": grad must be float32 with one element, got ", grad.numel());
  check_same_device(grad, hidden, op, "grad", "hidden");
  ELECTRA_CHECK(logits_.numel() == in.rows && logits_.scalar_type() == ScalarType::Float && logits_.device() == hidden.device(), op,
                ": logits must be those that discriminator_loss returned");
  const Tensor logits = dense(logits_);
  Tensor dhidden = torch::stable::empty_like(in.hidden), dweight = torch::stable::new_empty(weight, weight.sizes());
  Tensor dbias = torch::stable::new_empty(bias, bias.sizes());
  Tensor scratch = workspace(hidden, discriminator_loss_backward_workspace(in.rows, in.columns));
  const DiscriminatorLossBackward call = {in.type, grad.const_data_ptr<float>(), in.hidden.const_data_ptr(), parameter(in.weight, in.type, op, "weight"),
                                          in.label_bytes(), in.mask_bytes(), logits.const_data_ptr<float>(), dhidden.mutable_data_ptr(),
                                          parameter_gradient(dweight, in.type, op, "weight"), parameter_gradient(dbias, in.type, op, "bias"),
                                          scratch.mutable_data_ptr(), in.rows, in.columns};
  check_launch(discriminator_loss_backward(call, device.stream()), op);
  return {dhidden, dweight, dbias};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("discriminator_loss", TORCH_BOX(&electra::cuda::bindings::discriminator_loss));
  m.impl("discriminator_loss_backward", TORCH_BOX(&electra::cuda::bindings::discriminator_loss_backward));
}
