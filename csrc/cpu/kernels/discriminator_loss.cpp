// Arithmetic of discriminator_loss. The dot products stream `hidden`; the losses, a few operations a row, follow in a loop of their own that vectorises.
// See csrc/cpu/kernels/discriminator_loss.h.
#include "cpu/kernels/discriminator_loss.h"

#include "cpu/kernels/math.h"
#include "cpu/kernels/types.h"

namespace electra {
namespace ELECTRA_ISA {

// log(1 + t) for t in [0, 1], within 2 ulp: 2 atanh(s), s = t / (2 + t) <= 1/3, with atanh(s) / s a polynomial of degree 4 in s², a minimax fit on [0, 1/9]
// (Lawson's iteration in double precision; relative error 4e-9).
static inline float log1p_unit(float t) {
  const float s = t / (2.f + t), w = s * s;
  float p = 0.140891671f;
  p = p * w + 0.139803007f;
  p = p * w + 0.200124547f;
  p = p * w + 0.333331585f;
  p = p * w + 1.f;
  return 2.f * s * p;
}
static inline double log1p_unit(double t) { return log1p(t); }

template <class A> static inline A magnitude(A x) { return x < A(0) ? -x : x; }

template <class T>
static double forward(const void* hidden_, const void* weight_, double bias, const uint8_t* labels, const uint8_t* mask, void* logits_, int64_t begin, int64_t end,
                      int64_t n) {
  using A = acc_t<T>;
  const T* hidden = static_cast<const T*>(hidden_);
  const A* weight = static_cast<const A*>(weight_);
  A* logits = static_cast<A*>(logits_);
  for (int64_t r = begin; r < end; ++r) {
    const T* h = hidden + r * n;
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n; ++i) dot += load(h[i]) * weight[i];
    logits[r] = dot + A(bias);
  }
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t r = begin; r < end; ++r) {
    const A l = logits[r];
    const A loss = (l > A(0) ? l : A(0)) - (labels[r] ? l : A(0)) + log1p_unit(exp_nonpositive(-magnitude(l)));
    total += mask && !mask[r] ? 0.0 : double(loss);
  }
  return total;
}

template <class T>
static void backward(double grad_, const void* hidden_, const void* weight_, const uint8_t* labels, const uint8_t* mask, const void* logits_, void* dhidden_,
                     void* dweight_, void* dbias_, int64_t begin, int64_t end, int64_t n) {
  using A = acc_t<T>;
  const T* hidden = static_cast<const T*>(hidden_);
  const A *weight = static_cast<const A*>(weight_), *logits = static_cast<const A*>(logits_);
  A* __restrict dweight = static_cast<A*>(dweight_);
  const A grad = A(grad_);
  A dbias = 0;
  for (int64_t i = 0; i < n; ++i) dweight[i] = 0;
  for (int64_t r = begin; r < end; ++r) {
    const A l = logits[r], e = exp_nonpositive(-magnitude(l)), sigmoid = (l < A(0) ? e : A(1)) / (A(1) + e);
    const A d = mask && !mask[r] ? A(0) : grad * (sigmoid - A(labels[r] ? 1 : 0));
    dbias += d;
    const T* h = hidden + r * n;
    T* __restrict dh = static_cast<T*>(dhidden_) + r * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      store(dh[i], d * weight[i]);
      dweight[i] += d * load(h[i]);
    }
  }
  *static_cast<A*>(dbias_) = dbias;
}

static double forward_any(DType type, const void* hidden, const void* weight, double bias, const uint8_t* labels, const uint8_t* mask, void* logits, int64_t begin,
                          int64_t end, int64_t n) {
  switch (type) {
    case DType::f32: return forward<float>(hidden, weight, bias, labels, mask, logits, begin, end, n);
    case DType::bf16: return forward<bf16>(hidden, weight, bias, labels, mask, logits, begin, end, n);
    default: return forward<double>(hidden, weight, bias, labels, mask, logits, begin, end, n);
  }
}

static void backward_any(DType type, double grad, const void* hidden, const void* weight, const uint8_t* labels, const uint8_t* mask, const void* logits,
                         void* dhidden, void* dweight, void* dbias, int64_t begin, int64_t end, int64_t n) {
  ELECTRA_DISPATCH(type, backward, grad, hidden, weight, labels, mask, logits, dhidden, dweight, dbias, begin, end, n);
}

const DiscriminatorLossKernels discriminator_loss_kernels = {forward_any, backward_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
