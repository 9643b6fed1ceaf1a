// feed_forward on the CPU: checks, allocation, the order of the work. Arithmetic: csrc/cpu/kernels/feed_forward.cpp.
#include "cpu/kernels/feed_forward.h"

#include "cpu/panels.h"

namespace electra {
namespace {

struct Inputs {
  Tensor x;
  Weight first, second;
  std::optional<Tensor> bias;
  FeedForward c{};

  Inputs(const Tensor& x_, const Tensor& w1, const Tensor& b1, const Tensor& w2)
      : x(checked(x_, w1, b1, w2)), first(w1, dtype_of(x, "feed_forward", "x"), "feed_forward", "w1"), second(w2, first.type, "feed_forward", "w2") {
    ELECTRA_CHECK(first.type != DType::f64, "feed_forward: x must be float32 or bfloat16");
    bias = parameter_row(b1, first.type, "feed_forward", "b1");
    c.type = first.type;
    c.tokens = x.size(0);
    c.in = first.in;
    c.middle = first.out;
    c.out = second.out;
    c.x = x.const_data_ptr();
    c.bias = static_cast<const float*>(bias->const_data_ptr());
  }

  Tensor rows(int64_t columns) const { return torch::stable::new_empty(x, {c.tokens, columns}); }
  Tensor panels(int64_t columns) const { return room_for_panels(x, c.type, columns, c.tokens); }

 private:
  static Tensor checked(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2) {
    ELECTRA_CHECK(x.dim() == 2 && w1.dim() == 2 && b1.dim() == 1 && w2.dim() == 2 && x.size(1) == w1.size(1) && b1.size(0) == w1.size(0) && w2.size(1) == w1.size(0),
                  "feed_forward: x must have shape [tokens, in], w1 [middle, in], b1 [middle] and w2 [out, middle], got ", shape_string(x), ", ", shape_string(w1), ", ",
                  shape_string(b1), " and ", shape_string(w2));
    return dense(x);
  }
};

// work(c, begin, end, memory) over all tokens, in blocks of the same even size for all threads.
template <class Work> void in_blocks(const FeedForward& c, const Work& work) {
  if (c.tokens == 0) return;
  const FeedForwardKernels& kernels = pick_feed_forward_kernels();
  const int64_t threads = torch::stable::get_num_threads(), rounds = divide_up(c.tokens, threads * kernels.most_rows(c));
  const int64_t size = divide_up(divide_up(c.tokens, threads * rounds), 2) * 2;
  for_each_item(divide_up(c.tokens, size), kernels.bytes(c, size), [&](int64_t i, void* memory) { work(c, i * size, std::min(c.tokens, (i + 1) * size), memory); });
}

std::tuple<Tensor, Tensor> feed_forward(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2) {
  Inputs in(x, w1, b1, w2);
  const Tensor first = in.first.outputs(), second = in.second.outputs();
  Tensor u = in.rows(in.c.middle), y = in.rows(in.c.out);
  in.c.first = first.const_data_ptr();
  in.c.second = second.const_data_ptr();
  in.c.u = u.mutable_data_ptr();
  in.c.y = y.mutable_data_ptr();
  in_blocks(in.c, pick_feed_forward_kernels().forward);
  return {y, u};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> feed_forward_backward(const Tensor& grad_, const Tensor& x, const Tensor& u_, const Tensor& w1, const Tensor& b1, const Tensor& w2) {
  Inputs in(x, w1, b1, w2);
  const Tensor grad = dense(grad_), u = dense(u_);
  const auto is_rows = [&](const Tensor& t, int64_t columns) { return t.dim() == 2 && t.size(0) == in.c.tokens && t.size(1) == columns && t.scalar_type() == in.x.scalar_type(); };
  ELECTRA_CHECK(is_rows(grad, in.c.out) && is_rows(u, in.c.middle), "feed_forward_backward: grad must have shape [", in.c.tokens, ", ", in.c.out, "], u [", in.c.tokens, ", ",
                in.c.middle, "], and both the dtype of x, got ", shape_string(grad), " and ", shape_string(u));
  const Tensor first = in.first.columns(), second = in.second.columns();
  Tensor dx = in.rows(in.c.in), x_panels = in.panels(in.c.in), dy_panels = in.panels(in.c.out), gelu_panels = in.panels(in.c.middle), du_panels = in.panels(in.c.middle);
  in.c.first_columns = first.const_data_ptr();
  in.c.second_columns = second.const_data_ptr();
  in.c.saved = u.const_data_ptr();
  in.c.dy = grad.const_data_ptr();
  in.c.dx = dx.mutable_data_ptr();
  in.c.x_panels = x_panels.mutable_data_ptr();
  in.c.dy_panels = dy_panels.mutable_data_ptr();
  in.c.gelu_panels = gelu_panels.mutable_data_ptr();
  in.c.du_panels = du_panels.mutable_data_ptr();
  in_blocks(in.c, pick_feed_forward_kernels().backward);
  Tensor dw1 = weight_gradient(w1, in.first, du_panels, x_panels, in.c.tokens), dw2 = weight_gradient(w2, in.second, dy_panels, gelu_panels, in.c.tokens);
  return {dx, dw1, bias_gradient(b1, in.c.type, du_panels, in.c.tokens, in.c.middle), dw2};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("feed_forward", TORCH_BOX(&electra::feed_forward));
  m.impl("feed_forward_backward", TORCH_BOX(&electra::feed_forward_backward));
}
