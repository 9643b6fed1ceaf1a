// generator_head on the CPU: checks, the used slots end to end, splits of the vocabulary. Arithmetic: csrc/cpu/kernels/generator_head.cpp.
#include "cpu/kernels/generator_head.h"

#include <cstring>

#include "cpu/tensors.h"
#include "cpu/work_items.h"

namespace electra {
namespace {

constexpr int64_t unused = -100;
constexpr int64_t most_splits = 32;                      // of the vocabulary; fixed by the shape, so that sums are the same for any number of threads
constexpr int64_t hidden_cache_bytes = 512 << 10;        // of one task's hidden rows in forward: they are read once for every 64 columns
constexpr int64_t partial_bytes = int64_t(64) << 20;     // of dhidden's partials in backward: bounds the slots of a pass
constexpr int64_t wave_splits = 4;                       // for each thread: dhidden's partials are summed up after so many splits, and their memory serves again

int64_t size_of(DType d) { return d == DType::f64 ? 8 : d == DType::f32 ? 4 : 2; }
int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// The used slots' hidden rows, end to end, and the arguments both passes share.
struct Inputs {
  Tensor hidden, weight, bias;
  std::vector<int64_t> slot, targets;   // of the used slots
  GeneratorProblem problem{};

  Inputs(const Tensor& hidden_, const Tensor& weight_, const Tensor& bias_, const Tensor& targets_) : hidden(dense(hidden_)), weight(dense(weight_)), bias(bias_) {
    const char* op = "generator_head";
    ELECTRA_CHECK(hidden.dim() == 2, op, ": hidden must have shape [slots, features], got ", shape_string(hidden));
    ELECTRA_CHECK(weight.dim() == 2 && weight.size(1) == hidden.size(1), op, ": weight must have shape [vocabulary, ", hidden.size(1), "], got ", shape_string(weight));
    ELECTRA_CHECK(weight.size(0) >= 1 && weight.size(0) <= INT32_MAX, op, ": weight must have 1 to 2^31 - 1 rows, got ", weight.size(0));
    ELECTRA_CHECK(bias.dim() == 1 && bias.size(0) == weight.size(0), op, ": bias must have shape [", weight.size(0), "], got ", shape_string(bias));
    ELECTRA_CHECK(targets_.dim() == 1 && targets_.size(0) == hidden.size(0) && targets_.scalar_type() == ScalarType::Long, op, ": targets must be int64 of shape [",
                  hidden.size(0), "], got ", shape_string(targets_));
    problem.type = dtype_of(hidden, op, "hidden");
    problem.weight_type = param_dtype_of(weight, problem.type, op, "weight");
    bias = parameter_row(bias_, problem.type, op, "bias");
    problem.columns = weight.size(0);
    problem.features = hidden.size(1);

    const Tensor dense_targets = dense(targets_);
    const int64_t* t = static_cast<const int64_t*>(dense_targets.const_data_ptr());
    const int64_t all = hidden.size(0);
    for (int64_t i = 0; i < all; ++i) {
      if (t[i] == unused) continue;
      ELECTRA_CHECK(t[i] >= 0 && t[i] < problem.columns, op, ": targets must be in [0, ", problem.columns, ") or ", unused, ", got ", t[i], " in slot ", i);
      slot.push_back(i);
      targets.push_back(t[i]);
    }
    problem.slots = int64_t(slot.size());
    if (problem.slots < all) {
      Tensor used = torch::stable::new_empty(hidden, {problem.slots, problem.features});
      gather(hidden, used);
      hidden = used;
    }
    problem.hidden = hidden.const_data_ptr();
    problem.weight = weight.const_data_ptr();
    problem.bias = bias.const_data_ptr();
    problem.targets = targets.data();
    const int64_t calls = blocks_of(problem.columns, columns_per_call), per_split = blocks_of(calls, most_splits);
    problem.split_columns = per_split * columns_per_call;
    problem.splits = blocks_of(problem.columns, problem.split_columns);
  }

  int64_t row_bytes() const { return problem.features * size_of(problem.type); }

  void gather(const Tensor& all, Tensor& used) const {
    for (size_t i = 0; i < slot.size(); ++i)
      std::memcpy(static_cast<char*>(used.mutable_data_ptr()) + i * row_bytes(), static_cast<const char*>(all.const_data_ptr()) + slot[i] * row_bytes(), row_bytes());
  }
  void scatter(const Tensor& used, Tensor& all) const {
    for (size_t i = 0; i < slot.size(); ++i)
      std::memcpy(static_cast<char*>(all.mutable_data_ptr()) + slot[i] * row_bytes(), static_cast<const char*>(used.const_data_ptr()) + i * row_bytes(), row_bytes());
  }
};

// A [slots] tensor's values at the used slots.
Tensor used_values(const Tensor& t, const std::vector<int64_t>& slot) {
  const int64_t size = t.scalar_type() == ScalarType::Double ? 8 : 4;
  Tensor used = torch::stable::new_empty(t, {int64_t(slot.size())});
  for (size_t i = 0; i < slot.size(); ++i)
    std::memcpy(static_cast<char*>(used.mutable_data_ptr()) + i * size, static_cast<const char*>(t.const_data_ptr()) + slot[i] * size, size);
  return used;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> generator_head(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets, double temperature,
                                                          bool disallow_correct, const Tensor& rng, int64_t site) {
  const Inputs in(hidden, weight, bias, targets);
  ELECTRA_CHECK(temperature > 0.0, "generator_head: temperature must be greater than 0, got ", temperature);
  const int64_t all = hidden.size(0), n = in.problem.slots;
  const ScalarType acc = accumulate_type_of(in.problem.type);
  Tensor loss = torch::stable::new_zeros(hidden, {all}, acc), lse = torch::stable::new_zeros(hidden, {all}, acc);
  Tensor sampled = torch::stable::new_zeros(targets, {all}), predicted = torch::stable::new_zeros(targets, {all});
  if (n == 0) return {loss, sampled, predicted, lse};

  GeneratorForward f{};
  f.problem = in.problem;
  f.temperature = temperature;
  f.disallow_correct = disallow_correct;
  f.stream = stream_of(rng, site, "generator_head");
  f.slot = in.slot.data();
  const int64_t per_split = in.problem.splits * n;
  Tensor values = torch::stable::new_empty(hidden, {3 * per_split + n}, acc), indices = torch::stable::new_empty(hidden, {2 * per_split}, ScalarType::Int);
  char* v = static_cast<char*>(values.mutable_data_ptr());
  const int64_t array = per_split * size_of(acc == ScalarType::Double ? DType::f64 : DType::f32);
  int32_t* i = static_cast<int32_t*>(indices.mutable_data_ptr());
  f.partials = {v, v + array, v + 2 * array, v + 3 * array, i, i + per_split};
  f.loss = loss.mutable_data_ptr();
  f.lse = lse.mutable_data_ptr();
  f.sampled = static_cast<int64_t*>(sampled.mutable_data_ptr());
  f.predicted = static_cast<int64_t*>(predicted.mutable_data_ptr());

  // Slots go in parts that fit the cache, and in enough of them to occupy the threads; results do not depend on the parts.
  const GeneratorHeadKernels& kernels = pick_generator_head_kernels();
  const int64_t blocks = blocks_of(n, slot_block), cached = std::max<int64_t>(1, hidden_cache_bytes / kernels.transposed_bytes(in.problem));
  const int64_t wanted = blocks_of(4 * int64_t(torch::stable::get_num_threads()), in.problem.splits);
  const int64_t part = std::min(cached, blocks_of(blocks, std::min(wanted, blocks))) * slot_block, parts = blocks_of(n, part);
  for_each_item(parts * in.problem.splits, kernels.forward_bytes(in.problem, part), [&](int64_t item, void* memory) {
    const int64_t begin = item % parts * part;
    kernels.forward(f, item / parts, begin, std::min(n, begin + part), memory);
  });
  torch::stable::parallel_for(0, n, 256, [&](int64_t begin, int64_t end) { kernels.combine(f, begin, end); });
  return {loss, sampled, predicted, lse};
}

std::tuple<Tensor, Tensor, Tensor> generator_head_backward(const Tensor& grad, const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& targets,
                                                           const Tensor& lse) {
  const Inputs in(hidden, weight, bias, targets);
  const GeneratorProblem& p = in.problem;
  const ScalarType acc = accumulate_type_of(p.type);
  const int64_t n = p.slots;
  ELECTRA_CHECK(grad.dim() == 1 && grad.size(0) == hidden.size(0) && grad.scalar_type() == acc, "generator_head_backward: grad must have the shape [", hidden.size(0),
                "] and dtype of loss, got shape ", shape_string(grad));
  check_like(lse, grad, "generator_head_backward", "lse", "grad");
  if (n == 0) return {torch::stable::new_zeros(hidden, {hidden.size(0), p.features}), torch::stable::new_zeros(weight, {p.columns, p.features}), torch::stable::new_zeros(bias, {p.columns})};

  const GeneratorHeadKernels& kernels = pick_generator_head_kernels();
  const int64_t waves = blocks_of(p.splits, wave_splits * int64_t(torch::stable::get_num_threads())), wave = blocks_of(p.splits, waves);
  const int64_t width = kernels.hidden_width(p), slot_bytes = (wave + 1) * width * size_of(acc == ScalarType::Double ? DType::f64 : DType::f32);
  const int64_t pass = std::min(n, std::max<int64_t>(slot_block, partial_bytes / slot_bytes / slot_block * slot_block)), blocks = blocks_of(pass, slot_block);
  const Tensor used_lse = used_values(dense(lse), in.slot), used_grad = used_values(dense(grad), in.slot);
  Tensor dhidden = torch::stable::new_empty(hidden, {n, p.features}), dweight = torch::stable::new_empty(weight, {p.columns, p.features}),
         dbias = torch::stable::new_empty(in.bias, {p.columns});
  Tensor partials = torch::stable::new_empty(hidden, {(wave + 1) * pass * width}, acc);
  Tensor transposed = torch::stable::new_empty(hidden, {blocks * kernels.transposed_bytes(p)}, ScalarType::Byte);
  Tensor depth = torch::stable::new_empty(hidden, {blocks * kernels.depth_bytes(p)}, ScalarType::Byte);
  // Between passes dweight is summed in its own memory where that has the precision.
  const bool one_pass = pass == n, own = weight.scalar_type() == acc;
  Tensor sum = one_pass || own ? dweight : torch::stable::new_empty(weight, {p.columns, p.features}, acc);

  GeneratorBackward b{};
  b.problem = p;
  b.lse = used_lse.const_data_ptr();
  b.grad = used_grad.const_data_ptr();
  b.hidden_transposed = transposed.mutable_data_ptr();
  b.hidden_depth = depth.mutable_data_ptr();
  b.dhidden_partials = partials.mutable_data_ptr();
  b.dweight_sum = sum.mutable_data_ptr();
  b.dbias_sum = b.dbias = dbias.mutable_data_ptr();
  b.dweight = dweight.mutable_data_ptr();
  b.dhidden = dhidden.mutable_data_ptr();
  for (b.first = 0; b.first < n; b.first += pass) {
    b.count = std::min(pass, n - b.first);
    torch::stable::parallel_for(0, blocks_of(b.count, slot_block), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernels.pack_hidden(b, i);
    });
    for (b.first_split = 0; b.first_split < p.splits; b.first_split += wave) {
      b.wave = std::min(wave, p.splits - b.first_split);
      for_each_item(b.wave, kernels.backward_bytes(p), [&](int64_t i, void* memory) { kernels.backward(b, b.first_split + i, memory); });
      torch::stable::parallel_for(0, b.count, 16, [&](int64_t begin, int64_t end) { kernels.sum_dhidden(b, begin, end); });
    }
  }

  Tensor dhidden_all = dhidden;
  if (n < hidden.size(0)) {
    dhidden_all = torch::stable::new_zeros(hidden, {hidden.size(0), p.features});
    in.scatter(dhidden, dhidden_all);
  }
  return {dhidden_all, dweight, bias.scalar_type() == acc ? dbias : torch::stable::to(dbias, bias.scalar_type())};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("generator_head", TORCH_BOX(&electra::generator_head));
  m.impl("generator_head_backward", TORCH_BOX(&electra::generator_head_backward));
}
