// attention on the CPU: checks, allocation, list of work items. Arithmetic: csrc/cpu/kernels/attention.cpp.
#include "cpu/kernels/attention.h"

#include <cstring>

#include "cpu/tensors.h"
#include "cpu/work_items.h"

namespace electra {
namespace {

// The longest sequence of checked cu_seqlens, which must not exceed the bound that was given.
int64_t longest_within(const Tensor& cu_seqlens, int64_t bound, const char* bound_name) {
  const int32_t* c = static_cast<const int32_t*>(cu_seqlens.const_data_ptr());
  int64_t longest = 0;
  for (int64_t b = 0; b + 1 < cu_seqlens.size(0); ++b) longest = std::max<int64_t>(longest, c[b + 1] - c[b]);
  ELECTRA_CHECK(longest <= bound, "attention: ", bound_name, " must be at least ", longest, ", the length of a sequence, got ", bound);
  return longest;
}

Tensor rows_contiguous(const Tensor& t) { return t.stride(2) == 1 || t.size(2) == 1 ? t : torch::stable::contiguous(t); }

Strided strided(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1)}; }

// Everything both passes read, checked.
struct Inputs {
  Tensor q, k, v, cu_seqlens_q, cu_seqlens_k;
  AttentionProblem problem{};
  int64_t batch, longest_k;

  Inputs(const Tensor& q_, const Tensor& k_, const Tensor& v_, const Tensor& cu_seqlens_q_, const Tensor& cu_seqlens_k_, int64_t max_seqlen_q, int64_t max_seqlen_k,
         double scale, bool causal, double dropout_p, const std::optional<Tensor>& rng, int64_t site)
      : q(q_), k(k_), v(v_), cu_seqlens_q(cu_seqlens_q_), cu_seqlens_k(cu_seqlens_k_) {
    ELECTRA_CHECK(q.dim() == 3, "attention: q must have shape [tokens, heads, dim], got ", shape_string(q));
    ELECTRA_CHECK(k.dim() == 3 && k.size(1) == q.size(1) && k.size(2) == q.size(2), "attention: k must have shape [tokens, ", q.size(1), ", ", q.size(2), "] like q, got ",
                  shape_string(k));
    ELECTRA_CHECK(k.scalar_type() == q.scalar_type(), "attention: k must have the dtype of q");
    check_like(v, k, "attention", "v", "k");
    ELECTRA_CHECK(q.size(2) >= 1, "attention: the head dimension of q must be at least 1, got ", q.size(2));
    q = rows_contiguous(q);
    k = rows_contiguous(k);
    v = rows_contiguous(v);
    const Dropout dropout = dropout_of(dropout_p, rng, site, "attention");
    ELECTRA_CHECK(cu_seqlens_k.numel() == cu_seqlens_q.numel(), "attention: cu_seqlens_k must have as many entries as cu_seqlens_q, ", cu_seqlens_q.numel(), ", got ",
                  cu_seqlens_k.numel());
    cu_seqlens_q = checked_cu_seqlens(cu_seqlens_q, q.size(0), "attention", "cu_seqlens_q");
    cu_seqlens_k = checked_cu_seqlens(cu_seqlens_k, k.size(0), "attention", "cu_seqlens_k");
    longest_within(cu_seqlens_q, max_seqlen_q, "max_seqlen_q");
    longest_k = longest_within(cu_seqlens_k, max_seqlen_k, "max_seqlen_k");
    batch = cu_seqlens_q.size(0) - 1;
    problem.type = dtype_of(q, "attention", "q");
    problem.q = strided(q);
    problem.k = strided(k);
    problem.v = strided(v);
    problem.heads = q.size(1);
    problem.dim = q.size(2);
    problem.rows_q = q.size(0);
    problem.cu_seqlens_q = static_cast<const int32_t*>(cu_seqlens_q.const_data_ptr());
    problem.cu_seqlens_k = static_cast<const int32_t*>(cu_seqlens_k.const_data_ptr());
    problem.scale = scale;
    problem.causal = causal;
    problem.threshold = dropout.threshold;
    problem.stream = dropout.stream;
  }

  int64_t queries(int64_t b) const { return problem.cu_seqlens_q[b + 1] - problem.cu_seqlens_q[b]; }
  int64_t keys(int64_t b) const { return problem.cu_seqlens_k[b + 1] - problem.cu_seqlens_k[b]; }
};

// Zeros the rows behind the last sequence.
void clear_padding(Tensor& t, int64_t used) {
  if (used == t.size(0)) return;   // an empty tensor has no address
  const int64_t row_bytes = t.size(1) * t.size(2) * (t.scalar_type() == ScalarType::Double ? 8 : t.scalar_type() == ScalarType::Float ? 4 : 2);
  std::memset(static_cast<char*>(t.mutable_data_ptr()) + used * row_bytes, 0, (t.size(0) - used) * row_bytes);
}

struct Item { int64_t sequence, head, begin, end, cost; };

// The costliest first, so that no thread ends with a long one.
void order(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.cost > b.cost; });
}

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens_q, const Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                                     int64_t max_seqlen_k, double scale, bool causal, double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  Inputs in(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, causal, dropout_p, rng, site);
  AttentionProblem& p = in.problem;
  Tensor out = torch::stable::new_empty(q, {p.rows_q, p.heads, p.dim});
  Tensor lse = torch::stable::new_empty(q, {p.heads, p.rows_q}, accumulate_type_of(p.type));
  p.out = out.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  const int64_t used = p.cu_seqlens_q[in.batch];
  clear_padding(out, used);
  for (int64_t h = 0; h < p.heads; ++h)
    for (int64_t i = used; i < p.rows_q; ++i) {
      if (p.type == DType::f64) static_cast<double*>(p.lse)[h * p.rows_q + i] = -INFINITY;
      else static_cast<float*>(p.lse)[h * p.rows_q + i] = -INFINITY;
    }
  std::vector<Item> items;
  for (int64_t b = 0; b < in.batch; ++b)
    for (int64_t begin = 0; begin < in.queries(b); begin += attention_chunk)
      for (int64_t h = 0; h < p.heads; ++h) {
        const int64_t end = std::min(in.queries(b), begin + attention_chunk);
        items.push_back({b, h, begin, end, (end - begin) * in.keys(b)});
      }
  order(items);
  const AttentionKernels& kernels = pick_attention_kernels();
  for_each_item(int64_t(items.size()), kernels.forward_bytes(p.type, p.dim), [&](int64_t i, void* memory) {
    const Item& t = items[i];
    kernels.forward(p, t.sequence, t.head, t.begin, t.end, memory);
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& grad_, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out_, const Tensor& lse_,
                                                      const Tensor& cu_seqlens_q, const Tensor& cu_seqlens_k, int64_t max_seqlen_q, int64_t max_seqlen_k, double scale,
                                                      bool causal, double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  Inputs in(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, causal, dropout_p, rng, site);
  AttentionProblem& p = in.problem;
  check_like(grad_, q, "attention_backward", "grad", "q");
  check_like(out_, q, "attention_backward", "out", "q");
  ELECTRA_CHECK(lse_.dim() == 2 && lse_.size(0) == p.heads && lse_.size(1) == p.rows_q && lse_.scalar_type() == accumulate_type_of(p.type),
                "attention_backward: lse must be the second output of attention, [", p.heads, ", ", p.rows_q, "], got ", shape_string(lse_));
  const Tensor grad = rows_contiguous(grad_), out = dense(out_), lse = dense(lse_);
  Tensor dq = torch::stable::new_empty(q, {p.rows_q, p.heads, p.dim}), dk = torch::stable::new_empty(q, {k.size(0), p.heads, p.dim}),
         dv = torch::stable::new_empty(q, {k.size(0), p.heads, p.dim});
  p.grad = strided(grad);
  p.out = const_cast<void*>(out.const_data_ptr());
  p.lse = const_cast<void*>(lse.const_data_ptr());
  p.dq = dq.mutable_data_ptr();
  p.dk = dk.mutable_data_ptr();
  p.dv = dv.mutable_data_ptr();
  clear_padding(dq, p.cu_seqlens_q[in.batch]);
  clear_padding(dk, p.cu_seqlens_k[in.batch]);
  clear_padding(dv, p.cu_seqlens_k[in.batch]);
  std::vector<Item> items;
  for (int64_t b = 0; b < in.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) items.push_back({b, h, 0, in.queries(b), in.queries(b) * in.keys(b)});
  order(items);
  const AttentionKernels& kernels = pick_attention_kernels();
  for_each_item(int64_t(items.size()), kernels.backward_bytes(p.type, p.dim, in.longest_k), [&](int64_t i, void* memory) {
    kernels.backward(p, items[i].sequence, items[i].head, memory);
  });
  return {dq, dk, dv};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("attention", TORCH_BOX(&electra::attention));
  m.impl("attention_backward", TORCH_BOX(&electra::attention_backward));
}
