// adam: m <- β1 m + (1-β1) g c; v <- β2 v + (1-β2) (g c)²; p <- p - lr (m / (√v + eps) + decay p).
#pragma once
#include <stdint.h>

#include "cpu/capability.h"

namespace electra {

struct AdamStep {
  double learning_rate, grad_scale, beta1, beta2, eps;
};

// `count` elements of four tensors of one type.
struct AdamKernels {
  void (*update_f32)(const AdamStep& step, double decay, float* p, const float* g, float* m, float* v, int64_t count);
  void (*update_f64)(const AdamStep& step, double decay, double* p, const double* g, double* m, double* v, int64_t count);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(AdamKernels, adam_kernels)
