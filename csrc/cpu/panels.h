// Factors of products as panels: allocation and the order of the work. Arithmetic: csrc/cpu/kernels/panels.cpp.
#pragma once
#include "cpu/kernels/panels.h"
#include "cpu/tensors.h"
#include "cpu/work_items.h"

namespace electra {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t panels_for(int64_t columns) { return divide_up(columns, pick_panel_kernels().panel_columns); }

// Room for panels of `columns` columns of so much depth.
inline Tensor room_for_panels(const Tensor& like, DType type, int64_t columns, int64_t depth) {
  return torch::stable::new_empty(like, {panels_for(columns) * pick_panel_kernels().panel_bytes(type, depth)}, ScalarType::Byte);
}

// A parameter [out, in], rounded to the activations' type.
struct Weight {
  Tensor data;
  DType type, gradient;   // of the activations; of the parameter
  int64_t out, in;

  Weight(const Tensor& weight, DType type, const char* op, const char* name) : type(type), gradient(param_dtype_of(weight, type, op, name)) {
    data = dense(gradient == type ? weight : torch::stable::to(weight, scalar_type_of(type)));
    out = weight.size(0);
    in = weight.size(1);
  }

  // Wᵀ, of depth `in`: for x Wᵀ. W, of depth `out`: for g W.
  Tensor outputs() const { return packed(out, in, pick_panel_kernels().pack_outputs); }
  Tensor columns() const { return packed(in, out, pick_panel_kernels().pack_columns); }

 private:
  template <class Pack> Tensor packed(int64_t columns, int64_t depth, const Pack& pack) const {
    Tensor panels = room_for_panels(data, type, columns, depth);
    const void* from = data.const_data_ptr();
    void* words = panels.mutable_data_ptr();
    for_each_item(panels_for(columns), 64, [&](int64_t p, void*) { pack(type, from, out, in, p, words); });
    return panels;
  }
};

// dW [out, in] = gᵀ x, of both factors' panels over the tokens.
inline Tensor weight_gradient(const Tensor& like, const Weight& weight, const Tensor& grad, const Tensor& x, int64_t tokens) {
  constexpr int64_t panels_at_once = 4;   // of dW's columns: each word of the gradient serves so many, and their sums still fit the second-level cache
  const PanelKernels& kernels = pick_panel_kernels();
  Tensor dweight = torch::stable::new_empty(like, {weight.out, weight.in});
  const int64_t panels = panels_for(weight.in), groups = divide_up(panels, panels_at_once);
  const void *g = grad.const_data_ptr(), *rows = x.const_data_ptr();
  void* to = dweight.mutable_data_ptr();
  for_each_item(panels_for(weight.out) * groups, kernels.weight_bytes(panels_at_once), [&](int64_t i, void* memory) {
    const int64_t first = i % groups * panels_at_once;
    kernels.weight(weight.type, g, rows, tokens, weight.out, weight.in, i / groups, first, std::min(panels, first + panels_at_once), weight.gradient, to, memory);
  });
  return dweight;
}

// Σ g over the tokens, of its panels, in the dtype of `like`.
inline Tensor bias_gradient(const Tensor& like, DType type, const Tensor& grad, int64_t tokens, int64_t out) {
  const PanelKernels& kernels = pick_panel_kernels();
  Tensor sums = torch::stable::new_empty(like, {out}, ScalarType::Float);
  const void* g = grad.const_data_ptr();
  float* to = static_cast<float*>(sums.mutable_data_ptr());
  for_each_item(panels_for(out), 64, [&](int64_t p, void*) { kernels.bias(type, g, tokens, out, p, to); });
  return like.scalar_type() == ScalarType::Float ? sums : torch::stable::to(sums, like.scalar_type());
}

}  // namespace electra
