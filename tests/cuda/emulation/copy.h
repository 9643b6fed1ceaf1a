// csrc/cuda/copy.h in the emulator.
#pragma once
#include "emulation/runtime.h"

namespace electra::cuda {

inline void copy_async_16(void* shared, const void* global, bool valid) { emulation::copy_async(shared, global, 16, valid); }
inline void copy_async_4(void* shared, const void* global, bool valid) { emulation::copy_async(shared, global, 4, valid); }
inline void copy_async_commit() { emulation::copy_async_commit(); }
template <int N> inline void copy_async_wait() { emulation::copy_async_wait(N); }

}  // namespace electra::cuda
