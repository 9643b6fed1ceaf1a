// Arithmetic of gelu: y = z Φ(z), dx = grad (Φ(z) + z φ(z)), z = x + bias. See csrc/cpu/kernels/gelu.h.
#include "cpu/kernels/gelu.h"

#include "cpu/kernels/normal_cdf.h"
#include "cpu/kernels/types.h"

namespace electra {
namespace ELECTRA_ISA {

template <class T>
static void forward(const void* x_, const void* bias_, void* y_, int64_t begin, int64_t end, int64_t n) {
  using A = acc_t<T>;
  const T* x = static_cast<const T*>(x_);
  T* __restrict y = static_cast<T*>(y_);
  const A* bias = static_cast<const A*>(bias_);
  if (!bias) {
#pragma omp simd
    for (int64_t i = begin * n; i < end * n; ++i) {
      A density;
      const A z = load(x[i]);
      store(y[i], z * normal_cdf_(z, density));
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    const T* xr = x + row * n;
    T* __restrict yr = y + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      A density;
      const A z = load(xr[i]) + bias[i];
      store(yr[i], z * normal_cdf_(z, density));
    }
  }
}

template <class T>
static void backward(const void* grad_, const void* x_, const void* bias_, void* dx_, void* dbias_, int64_t begin, int64_t end, int64_t n) {
  using A = acc_t<T>;
  const T *grad = static_cast<const T*>(grad_), *x = static_cast<const T*>(x_);
  T* __restrict dx = static_cast<T*>(dx_);
  const A* bias = static_cast<const A*>(bias_);
  A* __restrict dbias = static_cast<A*>(dbias_);
  if (!bias) {
#pragma omp simd
    for (int64_t i = begin * n; i < end * n; ++i) {
      A density;
      const A z = load(x[i]), cdf = normal_cdf_(z, density);
      store(dx[i], load(grad[i]) * (cdf + z * density));
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) dbias[i] = 0;
  for (int64_t row = begin; row < end; ++row) {
    const T *gr = grad + row * n, *xr = x + row * n;
    T* __restrict dr = dx + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      A density;
      const A z = load(xr[i]) + bias[i], cdf = normal_cdf_(z, density), d = load(gr[i]) * (cdf + z * density);
      store(dr[i], d);
      dbias[i] += d;
    }
  }
}

static void forward_any(DType type, const void* x, const void* bias, void* y, int64_t begin, int64_t end, int64_t n) {
  ELECTRA_DISPATCH(type, forward, x, bias, y, begin, end, n);
}

static void backward_any(DType type, const void* grad, const void* x, const void* bias, void* dx, void* dbias, int64_t begin, int64_t end, int64_t n) {
  ELECTRA_DISPATCH(type, backward, grad, x, bias, dx, dbias, begin, end, n);
}

const GeluKernels gelu_kernels = {forward_any, backward_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
