// What lets one .cu file be compiled by nvcc for a GPU and by g++ for the emulator of tests/cuda (-DELECTRA_EMULATION): the launch and the two ways to
// get shared memory. Whatever needs PTX has a thin header of its own (mma.h, copy.h, …) with both forms.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef ELECTRA_EMULATION
#include "emulation/launch.h"   // (the language itself comes before anything else: g++ -include emulation/device.h)
#else
#include <cuda_runtime.h>
#endif

// Start `kernel` (in parentheses if it has commas) on `stream`; an expression of type cudaError_t. Shared memory above 48 KiB is asked for here.
//   ELECTRA_LAUNCH((my_kernel<T, 8>), blocks, threads, shared_bytes, stream, argument, …)
#define ELECTRA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) ::electra::cuda::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#ifdef ELECTRA_EMULATION

#define ELECTRA_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::electra::emulation::dynamic_shared())

#else

// Dynamic shared memory as `type* name`, 1024-byte aligned (what 128-byte-swizzled TMA tiles need; enough for everything else).
#define ELECTRA_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(1024) unsigned char electra_shared[];     \
  type* name = reinterpret_cast<type*>(electra_shared)

namespace electra::cuda {

constexpr size_t default_shared_limit = 48 * 1024;   // more needs an opt-in per kernel and device

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  if (shared_bytes > default_shared_limit) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Arguments&&>(arguments)...);
  return cudaGetLastError();
}

}  // namespace electra::cuda

#endif
