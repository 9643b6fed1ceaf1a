// discriminator_loss on the CPU: checks, allocation, parallel loop. Arithmetic: csrc/cpu/kernels/discriminator_loss.cpp.
#include "cpu/kernels/discriminator_loss.h"

#include "cpu/reduce.h"
#include "cpu/tensors.h"

namespace electra {
namespace {

struct Inputs {
  Tensor hidden, weight, labels;
  std::optional<Tensor> mask;
  DType type;
  int64_t rows, n;

  Inputs(const Tensor& hidden_, const Tensor& weight_, const Tensor& bias, const Tensor& labels_, const std::optional<Tensor>& mask_, const char* op)
      : hidden(dense(hidden_)), weight(parameter_row(weight_, dtype_of(hidden_, op, "hidden"), op, "weight")), labels(dense(labels_)), mask(dense_or_none(mask_)),
        type(dtype_of(hidden_, op, "hidden")) {
    ELECTRA_CHECK(hidden.dim() == 2, op, ": hidden must have shape [T, K], got ", shape_string(hidden));
    rows = hidden.size(0);
    n = hidden.size(1);
    ELECTRA_CHECK(weight.numel() == n && (weight.dim() == 1 || (weight.dim() == 2 && weight.size(0) == 1)), op, ": weight must have shape [", n, "] or [1, ", n,
                  "], got ", shape_string(weight));
    param_dtype_of(bias, type, op, "bias");
    ELECTRA_CHECK(bias.numel() == 1, op, ": bias must have one element, got ", bias.numel());
    check_flags(labels, op, "labels");
    if (mask) check_flags(*mask, op, "mask");
  }
  const uint8_t* label_bytes() const { return static_cast<const uint8_t*>(labels.const_data_ptr()); }
  const uint8_t* mask_bytes() const { return static_cast<const uint8_t*>(data_or_null(mask)); }

 private:
  void check_flags(const Tensor& t, const char* op, const char* argument) const {
    ELECTRA_CHECK(t.scalar_type() == ScalarType::Bool && t.dim() == 1 && t.size(0) == rows, op, ": ", argument, " must be a bool tensor of shape [", rows, "], got ",
                  shape_string(t));
  }
};

std::tuple<Tensor, Tensor> discriminator_loss(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& labels,
                                              const std::optional<Tensor>& mask) {
  const Inputs in(hidden, weight, bias, labels, mask, "discriminator_loss");
  const ScalarType acc = accumulate_type_of(in.type);
  Tensor loss = torch::stable::new_empty(hidden, {}, acc), logits = torch::stable::new_empty(hidden, {in.rows}, acc);
  const RowBlocks blocks(in.rows);
  std::vector<double> partial(size_t(blocks.count));
  const DiscriminatorLossKernels& kernels = pick_discriminator_loss_kernels();
  const void *hp = in.hidden.const_data_ptr(), *wp = in.weight.const_data_ptr();
  void* lp = logits.mutable_data_ptr();
  const double b = scalar_value(bias, "discriminator_loss", "bias");
  torch::stable::parallel_for(0, blocks.count, rows_per_task(blocks.size * in.n), [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k)
      partial[k] = kernels.forward(in.type, hp, wp, b, in.label_bytes(), in.mask_bytes(), lp, blocks.begin(k), blocks.end(k, in.rows), in.n);
  });
  double total = 0;
  for (const double p : partial) total += p;
  if (acc == ScalarType::Double) *static_cast<double*>(loss.mutable_data_ptr()) = total;
  else *static_cast<float*>(loss.mutable_data_ptr()) = float(total);
  return {loss, logits};
}

std::tuple<Tensor, Tensor, Tensor> discriminator_loss_backward(const Tensor& grad, const Tensor& hidden, const Tensor& weight, const Tensor& bias,
                                                               const Tensor& labels, const std::optional<Tensor>& mask, const Tensor& logits_) {
  const char* op = "discriminator_loss_backward";
  const Inputs in(hidden, weight, bias, labels, mask, op);
  const Tensor logits = dense(logits_);
  ELECTRA_CHECK(logits.numel() == in.rows && logits.scalar_type() == accumulate_type_of(in.type), op, ": logits must be those that discriminator_loss returned");
  Tensor dhidden = torch::stable::empty_like(in.hidden), dweight = torch::stable::new_empty(weight, weight.sizes()), dbias = torch::stable::new_empty(bias, bias.sizes());
  const RowBlocks blocks(in.rows);
  const PartialSums weight_sums(in.hidden, in.type, blocks, in.n), bias_sums(in.hidden, in.type, blocks, 1);
  const DiscriminatorLossKernels& kernels = pick_discriminator_loss_kernels();
  const void *hp = in.hidden.const_data_ptr(), *wp = in.weight.const_data_ptr(), *lp = logits.const_data_ptr();
  void* dp = dhidden.mutable_data_ptr();
  const double g = scalar_value(grad, op, "grad");
  torch::stable::parallel_for(0, blocks.count, rows_per_task(blocks.size * in.n), [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k)
      kernels.backward(in.type, g, hp, wp, in.label_bytes(), in.mask_bytes(), lp, dp, weight_sums.row(k), bias_sums.row(k), blocks.begin(k), blocks.end(k, in.rows),
                       in.n);
  });
  if (in.n) weight_sums.sum_into(dweight, op);
  bias_sums.sum_into(dbias, op);
  return {dhidden, dweight, dbias};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("discriminator_loss", TORCH_BOX(&electra::discriminator_loss));
  m.impl("discriminator_loss_backward", TORCH_BOX(&electra::discriminator_loss_backward));
}
