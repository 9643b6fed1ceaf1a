// generator_head on CUDA: the torch boundary. Kernels: csrc/cuda/generator_head*.cu.
#include "cuda/generator_head.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

// Rows as tensor cores read them: of `type`, dense, a multiple of 8 features (zeros behind the last), 16-byte aligned.
Tensor operand(const Tensor& t, DType type, int64_t features) {
  Tensor rows = t.scalar_type() == scalar_type_of(type) ? t : torch::stable::to(t, scalar_type_of(type));
  if (features != t.size(1)) {
    const std::vector<int64_t> more = {0, features - t.size(1)};
    rows = torch::stable::pad(rows, more);
  }
  rows = dense(rows);
  return reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 ? rows : torch::stable::clone(rows);
}

// The arguments that both passes share. The values of targets are not looked at: they are in device memory.
struct Inputs {
  Tensor hidden, weight, bias, targets;
  GeneratorProblem problem{};
  int64_t features;      // of hidden as given

  Inputs(const Tensor& hidden_, const Tensor& weight_, const Tensor& bias_, const Tensor& targets_) {
    const char* op = "generator_head";
    ELECTRA_CHECK(hidden_.dim() == 2, op, ": hidden must have shape [slots, features], got ", shape_string(hidden_));
    const int64_t slots = hidden_.size(0);
    features = hidden_.size(1);
    ELECTRA_CHECK(slots <= generator_most_slots, op, ": hidden must have at most ", generator_most_slots, " rows, got ", slots);
    ELECTRA_CHECK(weight_.dim() == 2 && weight_.size(1) == features, op, ": weight must have shape [vocabulary, ", features, "], got ", shape_string(weight_));
    ELECTRA_CHECK(weight_.size(0) >= 1 && weight_.size(0) <= generator_most_columns, op, ": weight must have 1 to ", generator_most_columns, " rows, got ", weight_.size(0));
    check_shape(bias_, {weight_.size(0)}, op, "bias");
    ELECTRA_CHECK(targets_.dim() == 1 && targets_.size(0) == slots && targets_.scalar_type() == ScalarType::Long, op, ": targets must be int64 of shape [", slots, "], got ",
                  shape_string(targets_));
    check_same_device(weight_, hidden_, op, "weight", "hidden");
    check_same_device(bias_, hidden_, op, "bias", "hidden");
    check_same_device(targets_, hidden_, op, "targets", "hidden");
    problem.type = dtype_16_bit_of(hidden_, op, "hidden");
    parameter_dtype_of(weight_, problem.type, op, "weight");

    const int64_t padded = (features + 7) / 8 * 8;
    hidden = operand(hidden_, problem.type, padded);
    weight = operand(weight_, problem.type, padded);
    bias = dense(bias_);
    targets = dense(targets_);
    problem.hidden = hidden.const_data_ptr();
    problem.weight = weight.const_data_ptr();
    problem.bias = parameter(bias, problem.type, op, "bias");
    problem.targets = static_cast<const int64_t*>(targets.const_data_ptr());
    problem.slots = slots;
    problem.columns = weight.size(0);
    problem.features = int(padded);
    check_launch(generator_device(problem.device), op);
  }

  // A gradient without the features that were added.
  Tensor cut(const Tensor& t) const { return t.size(1) == features ? t : torch::stable::contiguous(torch::stable::narrow(const_cast<Tensor&>(t), 1, 0, features)); }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> generator_head(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets, double temperature,
                                                          bool disallow_correct, const Tensor& rng, int64_t site) {
  const DeviceScope device(hidden);
  const Inputs in(hidden, weight, bias, targets);
  ELECTRA_CHECK(temperature > 0.0, "generator_head: temperature must be greater than 0, got ", temperature);
  const int64_t slots = in.problem.slots;
  Tensor loss = torch::stable::new_empty(hidden, {slots}, ScalarType::Float), lse = torch::stable::new_empty(hidden, {slots}, ScalarType::Float);
  Tensor sampled = torch::stable::new_empty(targets, {slots}), predicted = torch::stable::new_empty(targets, {slots});
  Tensor scratch = workspace(hidden, slots ? generator_forward_workspace(in.problem) : 0);
  const GeneratorForward call = {in.problem, temperature, disallow_correct, rng_pointer(rng, hidden, "generator_head"), site,
                                 static_cast<float*>(loss.mutable_data_ptr()), static_cast<float*>(lse.mutable_data_ptr()),
                                 static_cast<int64_t*>(sampled.mutable_data_ptr()), static_cast<int64_t*>(predicted.mutable_data_ptr()), scratch.mutable_data_ptr()};
  if (slots) check_launch(generator_forward(call, device.stream()), "generator_head");
  return {loss, sampled, predicted, lse};
}

std::tuple<Tensor, Tensor, Tensor> generator_head_backward(const Tensor& grad_, const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets,
                                                           const Tensor& lse_) {
  const char* op = "generator_head_backward";
  const DeviceScope device(hidden);
  const Inputs in(hidden, weight, bias, targets);
  const int64_t slots = in.problem.slots, columns = in.problem.columns, features = in.problem.features;
  ELECTRA_CHECK(grad_.dim() == 1 && grad_.size(0) == slots && grad_.scalar_type() == ScalarType::Float, op, ": grad must be float32 of shape [", slots, "], got shape ",
                shape_string(grad_));
  check_same_device(grad_, hidden, op, "grad", "hidden");
  check_like(lse_, grad_, op, "lse", "grad");
  const Tensor grad = dense(grad_), lse = dense(lse_);
  if (slots == 0)
    return {torch::stable::new_zeros(hidden, {0, in.features}), torch::stable::new_zeros(weight, {columns, in.features}), torch::stable::new_zeros(bias, {columns})};

  Tensor dhidden = torch::stable::new_empty(hidden, {slots, features}), dweight = torch::stable::new_empty(weight, {columns, features}),
         dbias = torch::stable::new_empty(bias, {columns});
  GeneratorBackward call = {in.problem, static_cast<const float*>(lse.const_data_ptr()), static_cast<const float*>(grad.const_data_ptr()), dhidden.mutable_data_ptr(),
                            parameter_gradient(dweight, in.problem.type, op, "weight"), parameter_gradient(dbias, in.problem.type, op, "bias"), nullptr};
  Tensor scratch = workspace(hidden, generator_backward_workspace(in.problem, call.dweight.type));
  call.workspace = scratch.mutable_data_ptr();
  check_launch(generator_backward(call, device.stream()), op);
  return {in.cut(dhidden), in.cut(dweight), dbias};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("generator_head", TORCH_BOX(&electra::cuda::bindings::generator_head));
  m.impl("generator_head_backward", TORCH_BOX(&electra::cuda::bindings::generator_head_backward));
}
