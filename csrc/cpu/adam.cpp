// adam on the CPU: the parameters laid end to end are cut into equal chunks, so that threads share the work evenly however the sizes are spread.
// Arithmetic: csrc/cpu/kernels/adam.cpp.
#include "cpu/kernels/adam.h"

#include "cpu/tensors.h"

namespace electra {
namespace {

constexpr int64_t chunk = 16384;   // elements; their four fp32 streams fill a quarter of a typical L2

struct Span {
  int64_t begin, count;   // of all elements end to end
  char *p, *m, *v;
  const char* g;
  double decay;
};

void check_member(const Tensor& t, const Tensor& p, const char* list, size_t i) {
  ELECTRA_CHECK(t.is_cpu(), "adam: ", list, "[", i, "] must be on the CPU like the others");
  ELECTRA_CHECK(t.is_contiguous(), "adam: ", list, "[", i, "] must be contiguous");
  ELECTRA_CHECK(same_shape(t, p), "adam: ", list, "[", i, "] must have the shape of its parameter, ", shape_string(p), ", got ", shape_string(t));
  ELECTRA_CHECK(t.scalar_type() == p.scalar_type(), "adam: ", list, "[", i, "] must have the dtype of its parameter");
}

void adam_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& exp_avg, const std::vector<Tensor>& exp_avg_sq,
           const std::vector<double>& weight_decay, const Tensor& learning_rate, const Tensor& grad_scale, double beta1, double beta2, double eps) {
  const size_t count = params.size();
  ELECTRA_CHECK(grads.size() == count && exp_avg.size() == count && exp_avg_sq.size() == count && weight_decay.size() == count,
                "adam: params, grads, exp_avg, exp_avg_sq and weight_decay must have the same length, got ", count, ", ", grads.size(), ", ", exp_avg.size(), ", ",
                exp_avg_sq.size(), ", ", weight_decay.size());
  if (count == 0) return;
  const ScalarType type = params[0].scalar_type();
  ELECTRA_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                "adam: params[0] must be float32 or float64; keep master weights in float32 when the model computes in less");
  const AdamStep step = {scalar_value(learning_rate, "adam", "learning_rate"), scalar_value(grad_scale, "adam", "grad_scale"), beta1, beta2, eps};

  if (step.grad_scale != step.grad_scale) return;   // NaN: nothing is updated

  const int64_t size = type == ScalarType::Float ? 4 : 8;
  std::vector<Span> spans;
  int64_t total = 0;
  for (size_t i = 0; i < count; ++i) {
    ELECTRA_CHECK(params[i].scalar_type() == type, "adam: params[", i, "] must have the dtype of params[0]");
    check_member(params[i], params[i], "params", i);
    check_member(grads[i], params[i], "grads", i);
    check_member(exp_avg[i], params[i], "exp_avg", i);
    check_member(exp_avg_sq[i], params[i], "exp_avg_sq", i);
    const int64_t n = params[i].numel();
    if (n == 0) continue;
    const auto bytes = [](const Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); };
    spans.push_back({total, n, bytes(params[i]), bytes(exp_avg[i]), bytes(exp_avg_sq[i]), static_cast<const char*>(grads[i].const_data_ptr()), weight_decay[i]});
    total += n;
  }
  const AdamKernels& kernels = pick_adam_kernels();
  torch::stable::parallel_for(0, (total + chunk - 1) / chunk, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * chunk, end = std::min(last * chunk, total);
    size_t i = size_t(std::upper_bound(spans.begin(), spans.end(), begin, [](int64_t x, const Span& s) { return x < s.begin; }) - spans.begin()) - 1;
    for (int64_t at = begin; at < end; ++i) {
      const Span& s = spans[i];
      const int64_t offset = (at - s.begin) * size, n = std::min(end, s.begin + s.count) - at;
      if (type == ScalarType::Float)
        kernels.update_f32(step, s.decay, reinterpret_cast<float*>(s.p + offset), reinterpret_cast<const float*>(s.g + offset), reinterpret_cast<float*>(s.m + offset),
                           reinterpret_cast<float*>(s.v + offset), n);
      else
        kernels.update_f64(step, s.decay, reinterpret_cast<double*>(s.p + offset), reinterpret_cast<const double*>(s.g + offset),
                           reinterpret_cast<double*>(s.m + offset), reinterpret_cast<double*>(s.v + offset), n);
      at += n;
    }
  });
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) { m.impl("adam_", TORCH_BOX(&electra::adam_)); }
