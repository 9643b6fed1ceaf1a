// csrc/cuda/mma.h in the emulator.
#pragma once
#include "emulation/runtime.h"

namespace electra::cuda {

template <class T> inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const emulation::Fragment in = {{d[0], d[1], d[2], d[3]}};
  const emulation::Fragment out = std::is_same_v<T, __half> ? emulation::warp_mma_f16(in, a[0], a[1], a[2], a[3], b0, b1)
                                                            : emulation::warp_mma_bf16(in, a[0], a[1], a[2], a[3], b0, b1);
  for (int i = 0; i < 4; ++i) d[i] = out.v[i];
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared) {
  const emulation::Matrices m = emulation::warp_ldmatrix(shared, 4, false);
  for (int i = 0; i < 4; ++i) r[i] = m.v[i];
}

inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared) {
  const emulation::Matrices m = emulation::warp_ldmatrix(shared, 4, true);
  for (int i = 0; i < 4; ++i) r[i] = m.v[i];
}

inline void ldmatrix_x2(uint32_t (&r)[2], const void* shared) {
  const emulation::Matrices m = emulation::warp_ldmatrix(shared, 2, false);
  for (int i = 0; i < 2; ++i) r[i] = m.v[i];
}

inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* shared) {
  const emulation::Matrices m = emulation::warp_ldmatrix(shared, 2, true);
  for (int i = 0; i < 2; ++i) r[i] = m.v[i];
}

}  // namespace electra::cuda
