// adam on CUDA: the torch boundary. Kernel: csrc/cuda/adam.cu.
#include "cuda/adam.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

void check_member(const Tensor& t, const Tensor& p, const Tensor& first, const char* list, size_t i) {
  ELECTRA_CHECK(t.device() == first.device(), "adam: ", list, "[", i, "] must be on the device of params[0]");
  ELECTRA_CHECK(t.is_contiguous(), "adam: ", list, "[", i, "] must be contiguous");
  ELECTRA_CHECK(same_shape(t, p), "adam: ", list, "[", i, "] must have the shape of its parameter, ", shape_string(p), ", got ", shape_string(t));
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Float, "adam: ", list, "[", i,
                "] must be float32 on CUDA; keep master weights in float32 when the model computes in less");
}

DeviceScalar device_scalar(const Tensor& t, const Tensor& first, const char* argument) {
  ELECTRA_CHECK(t.numel() == 1, "adam: ", argument, " must have one element, got ", t.numel());
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double, "adam: ", argument, " must be float32 or float64");
  check_same_device(t, first, "adam", argument, "params[0]");
  return {t.const_data_ptr(), t.scalar_type() == ScalarType::Double};
}

void adam_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& exp_avg, const std::vector<Tensor>& exp_avg_sq,
           const std::vector<double>& weight_decay, const Tensor& learning_rate, const Tensor& grad_scale, double beta1, double beta2, double eps) {
  const size_t count = params.size();
  ELECTRA_CHECK(grads.size() == count && exp_avg.size() == count && exp_avg_sq.size() == count && weight_decay.size() == count,
                "adam: params, grads, exp_avg, exp_avg_sq and weight_decay must have the same length, got ", count, ", ", grads.size(), ", ", exp_avg.size(),
                ", ", exp_avg_sq.size(), ", ", weight_decay.size());
  if (count == 0) return;
  const Tensor& first = params[0];
  std::vector<AdamTensor> tensors;
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    check_member(params[i], params[i], first, "params", i);
    check_member(grads[i], params[i], first, "grads", i);
    check_member(exp_avg[i], params[i], first, "exp_avg", i);
    check_member(exp_avg_sq[i], params[i], first, "exp_avg_sq", i);
    const auto floats = [](const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); };
    tensors.push_back({floats(params[i]), static_cast<const float*>(grads[i].const_data_ptr()), floats(exp_avg[i]), floats(exp_avg_sq[i]), params[i].numel(),
                       float(weight_decay[i])});
  }
  const AdamStep step = {device_scalar(learning_rate, first, "learning_rate"), device_scalar(grad_scale, first, "grad_scale"), beta1, beta2, eps};
  const DeviceScope device(first);
  check_launch(adam_update(tensors, step, device.stream()), "adam");
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) { m.impl("adam_", TORCH_BOX(&electra::cuda::bindings::adam_)); }
