// attention on CUDA: the torch boundary. Kernels: csrc/cuda/attention*.cu.
#include "cuda/attention.h"

#include <algorithm>
#include <limits>

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

constexpr int64_t vector = attention_dim_step;   // elements that the kernels read at once: 16 bytes

// [tokens, heads, dim] as the kernels read it: a whole number of vectors along a contiguous last dimension, each at a multiple of 16 bytes. A copy where it is not so;
// columns of zeros behind the last change no score and no gradient.
Tensor aligned_rows(const Tensor& t) {
  const int64_t missing = (vector - t.size(2) % vector) % vector;
  if (missing > 0) {
    const int64_t columns[2] = {0, missing};
    return torch::stable::pad(t, columns);
  }
  const bool fits = t.stride(2) == 1 && t.stride(0) % vector == 0 && t.stride(1) % vector == 0 && reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
  if (fits) return t;
  // A dense tensor may begin inside an allocation: then only a copy is aligned.
  return t.is_contiguous() ? torch::stable::clone(t) : torch::stable::contiguous(t);
}

// The first `width` columns of a result.
Tensor first_columns(Tensor& t, int64_t width) {
  return t.size(2) == width ? t : torch::stable::contiguous(torch::stable::narrow(t, 2, 0, width));
}

AttentionRows rows_of(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1)}; }

// Everything both passes read, checked, but for what only the device knows: that cu_seqlens rise, end within the tokens and keep to the bounds.
struct Inputs {
  Tensor q, k, v, cu_seqlens_q, cu_seqlens_k;

  Inputs(const Tensor& q_, const Tensor& k_, const Tensor& v_, const Tensor& cu_seqlens_q_, const Tensor& cu_seqlens_k_)
      : q(q_), k(k_), v(v_), cu_seqlens_q(cu_seqlens_q_), cu_seqlens_k(cu_seqlens_k_) {
    ELECTRA_CHECK(q.dim() == 3, "attention: q must have shape [tokens, heads, dim], got ", shape_string(q));
    ELECTRA_CHECK(k.dim() == 3 && k.size(1) == q.size(1) && k.size(2) == q.size(2), "attention: k must have shape [tokens, ", q.size(1), ", ", q.size(2),
                  "] like q, got ", shape_string(k));
    ELECTRA_CHECK(k.scalar_type() == q.scalar_type(), "attention: k must have the dtype of q");
    check_same_device(k, q, "attention", "k", "q");
    check_like(v, k, "attention", "v", "k");
    ELECTRA_CHECK(q.size(2) >= 1 && q.size(2) <= attention_max_dim, "attention: the head dimension must be 1 to ", attention_max_dim, " on CUDA, got ", q.size(2));
    constexpr int64_t most_rows = std::numeric_limits<int32_t>::max();
    ELECTRA_CHECK(q.size(0) <= most_rows && k.size(0) <= most_rows, "attention: at most ", most_rows, " tokens, got ", q.size(0), " and ", k.size(0));
    ELECTRA_CHECK(q.size(1) <= 65535, "attention: at most 65535 heads, got ", q.size(1));
    dtype_16_bit_of(q, "attention", "q");
    q = aligned_rows(q);
    k = aligned_rows(k);
    v = aligned_rows(v);
    cu_seqlens_q = checked_cu_seqlens(cu_seqlens_q, q, "attention", "cu_seqlens_q");
    cu_seqlens_k = checked_cu_seqlens(cu_seqlens_k, q, "attention", "cu_seqlens_k");
    ELECTRA_CHECK(cu_seqlens_k.numel() == cu_seqlens_q.numel(), "attention: cu_seqlens_k must have as many entries as cu_seqlens_q, ", cu_seqlens_q.numel(), ", got ",
                  cu_seqlens_k.numel());
  }

  void fill(AttentionProblem& p, int64_t max_seqlen_q, int64_t max_seqlen_k, double scale, bool causal, const Dropout& dropout) const {
    ELECTRA_CHECK(max_seqlen_q >= 0 && max_seqlen_k >= 0, "attention: max_seqlen_q and max_seqlen_k must be at least 0, got ", max_seqlen_q, ", ", max_seqlen_k);
    p.type = dtype_of(q, "attention", "q");
    p.q = rows_of(q);
    p.k = rows_of(k);
    p.v = rows_of(v);
    p.cu_seqlens_q = static_cast<const int32_t*>(cu_seqlens_q.const_data_ptr());
    p.cu_seqlens_k = static_cast<const int32_t*>(cu_seqlens_k.const_data_ptr());
    p.rows_q = q.size(0);
    p.rows_k = k.size(0);
    p.max_seqlen_q = std::min(max_seqlen_q, p.rows_q);
    p.max_seqlen_k = std::min(max_seqlen_k, p.rows_k);
    p.batch = int(cu_seqlens_q.numel() - 1);
    p.heads = int(q.size(1));
    p.dim = int(q.size(2));
    p.scale = float(scale);
    p.causal = causal;
    p.dropout = dropout;
  }
};

// What no class of kernels can do on this device is a matter of shared memory alone.
void check_attention(cudaError_t error, const char* op, int64_t dim) {
  ELECTRA_CHECK(error != cudaErrorInvalidConfiguration, op, ": head dimension ", dim, " needs more shared memory than a block has on this GPU; use the triton or reference backend");
  check_launch(error, op);
}

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_seqlens_q, const Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                                     int64_t max_seqlen_k, double scale, bool causal, double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  const DeviceScope device(q);
  const Inputs in(q, k, v, cu_seqlens_q, cu_seqlens_k);
  AttentionForward call;
  in.fill(call, max_seqlen_q, max_seqlen_k, scale, causal, dropout_of(dropout_p, rng, site, q, "attention"));
  Tensor out = torch::stable::new_empty(q, {call.rows_q, call.heads, call.dim});
  Tensor lse = torch::stable::new_empty(q, {call.heads, call.rows_q}, ScalarType::Float);
  call.out = out.mutable_data_ptr();
  call.lse = static_cast<float*>(lse.mutable_data_ptr());
  check_attention(attention_forward(call, device.stream()), "attention", call.dim);
  return {first_columns(out, q.size(2)), lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(const Tensor& grad_, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out_, const Tensor& lse_,
                                                      const Tensor& cu_seqlens_q, const Tensor& cu_seqlens_k, int64_t max_seqlen_q, int64_t max_seqlen_k, double scale,
                                                      bool causal, double dropout_p, const std::optional<Tensor>& rng, int64_t site) {
  const DeviceScope device(q);
  const Inputs in(q, k, v, cu_seqlens_q, cu_seqlens_k);
  check_like(grad_, q, "attention_backward", "grad", "q");
  check_like(out_, q, "attention_backward", "out", "q");
  ELECTRA_CHECK(lse_.dim() == 2 && lse_.size(0) == q.size(1) && lse_.size(1) == q.size(0) && lse_.scalar_type() == ScalarType::Float,
                "attention_backward: lse must be the second output of attention, float32 [", q.size(1), ", ", q.size(0), "], got ", shape_string(lse_));
  check_same_device(lse_, q, "attention_backward", "lse", "q");
  AttentionBackward call;
  in.fill(call, max_seqlen_q, max_seqlen_k, scale, causal, dropout_of(dropout_p, rng, site, q, "attention_backward"));
  const Tensor grad = aligned_rows(grad_), out = aligned_rows(dense(out_)), lse = dense(lse_);
  Tensor dq = torch::stable::new_empty(q, {call.rows_q, call.heads, call.dim}), dk = torch::stable::new_empty(q, {call.rows_k, call.heads, call.dim}),
         dv = torch::stable::new_empty(q, {call.rows_k, call.heads, call.dim});
  const Tensor delta = workspace(q, 4 * attention_workspace(call));
  call.grad = rows_of(grad);
  call.out = out.const_data_ptr();
  call.lse = static_cast<const float*>(lse.const_data_ptr());
  call.dq = dq.mutable_data_ptr();
  call.dk = dk.mutable_data_ptr();
  call.dv = dv.mutable_data_ptr();
  call.delta = static_cast<float*>(delta.mutable_data_ptr());
  check_attention(attention_backward(call, device.stream()), "attention_backward", call.dim);
  return {first_columns(dq, q.size(2)), first_columns(dk, q.size(2)), first_columns(dv, q.size(2))};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("attention", TORCH_BOX(&electra::cuda::bindings::attention));
  m.impl("attention_backward", TORCH_BOX(&electra::cuda::bindings::attention_backward));
}
