// Arithmetic of adam: one pass, four tensors read and three written. See csrc/cpu/kernels/adam.h.
#include "cpu/kernels/adam.h"

#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

template <class A>
static void update(const AdamStep& step, double decay_, A* __restrict p, const A* __restrict g, A* __restrict m, A* __restrict v, int64_t count) {
  const A rate = A(step.learning_rate), scale = A(step.grad_scale), decay = A(decay_), eps = A(step.eps);
  const A keep1 = A(step.beta1), add1 = A(1.0 - step.beta1), keep2 = A(step.beta2), add2 = A(1.0 - step.beta2);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const A gradient = g[i] * scale, first = keep1 * m[i] + add1 * gradient, second = keep2 * v[i] + add2 * (gradient * gradient);
    m[i] = first;
    v[i] = second;
    p[i] -= rate * (first / (square_root(second) + eps) + decay * p[i]);
  }
}

const AdamKernels adam_kernels = {update<float>, update<double>};

}  // namespace ELECTRA_ISA
}  // namespace electra
