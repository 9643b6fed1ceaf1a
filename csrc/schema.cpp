// The operators' schemas, on torch's stable ABI. Fakes and autograd: electra_fast/ops/X.py. Semantics: docs/design.md.
#include <torch/csrc/stable/library.h>

#ifndef ELECTRA_NAMESPACE
#define ELECTRA_NAMESPACE electra_fast   // tests register the same schemas for the emulated kernels under another name
#endif
#define ELECTRA_SCHEMAS(name, m) STABLE_TORCH_LIBRARY(name, m)   // one step more, so that the name is expanded

ELECTRA_SCHEMAS(ELECTRA_NAMESPACE, m) {
  m.def("attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k, float scale, bool causal, "
        "float dropout_p, Tensor? rng, int site) -> (Tensor, Tensor)");
  m.def("attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, "
        "int max_seqlen_k, float scale, bool causal, float dropout_p, Tensor? rng, int site) -> (Tensor, Tensor, Tensor)");
  m.def("layer_norm(Tensor x, Tensor? x_bias, Tensor? residual, Tensor weight, Tensor bias, float eps, float dropout_p, Tensor? rng, int site) "
        "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("layer_norm_backward(Tensor grad, Tensor sum, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, Tensor? x_bias, float dropout_p, Tensor? rng, int site) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("gelu(Tensor x, Tensor? bias) -> Tensor");
  m.def("gelu_backward(Tensor grad, Tensor x, Tensor? bias) -> (Tensor, Tensor)");
  m.def("embedding(Tensor input_ids, Tensor position_ids, Tensor token_type_ids, Tensor word, Tensor position, Tensor token_type, Tensor weight, Tensor bias, "
        "float eps, float dropout_p, Tensor? rng, int site, int padding_idx, ScalarType out_dtype) -> (Tensor, Tensor, Tensor)");
  m.def("embedding_backward(Tensor grad, Tensor input_ids, Tensor position_ids, Tensor token_type_ids, Tensor word, Tensor position, Tensor token_type, "
        "Tensor weight, Tensor bias, Tensor mean, Tensor rstd, float dropout_p, Tensor? rng, int site, int padding_idx) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("mask_tokens(Tensor input_ids, Tensor cu_seqlens, Tensor special_ids, int mask_id, float probability, int max_predictions, int max_per_sequence, "
        "float replace_probability, bool with_replacement, Tensor rng, int site) -> (Tensor, Tensor, Tensor)");
  m.def("generator_head(Tensor hidden, Tensor weight, Tensor bias, Tensor targets, float temperature, bool disallow_correct, Tensor rng, int site) "
        "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("generator_head_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor bias, Tensor targets, Tensor lse) -> (Tensor, Tensor, Tensor)");
  m.def("replace_tokens(Tensor input_ids, Tensor positions, Tensor targets, Tensor sampled) -> (Tensor, Tensor)");
  m.def("discriminator_loss(Tensor hidden, Tensor weight, Tensor bias, Tensor labels, Tensor? mask) -> (Tensor, Tensor)");
  m.def("discriminator_loss_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor bias, Tensor labels, Tensor? mask, Tensor logits) -> (Tensor, Tensor, Tensor)");
  m.def("feed_forward(Tensor x, Tensor w1, Tensor b1, Tensor w2) -> (Tensor, Tensor)");
  m.def("feed_forward_backward(Tensor grad, Tensor x, Tensor u, Tensor w1, Tensor b1, Tensor w2) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pack_linear(Tensor weight, Tensor? bias, ScalarType dtype) -> Tensor");
  m.def("encoder(Tensor x, Tensor cu_seqlens, int max_seqlen, Tensor? projection, Tensor[] parameters, int hidden_size, int heads, int intermediate_size, float eps) -> Tensor");
  m.def("adam_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, Tensor(c!)[] exp_avg_sq, float[] weight_decay, Tensor learning_rate, Tensor grad_scale, "
        "float beta1, float beta2, float eps) -> ()");
}
