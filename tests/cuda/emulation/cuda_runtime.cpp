// The functions of the CUDA runtime that launchers call. The linker binds them inside this library (-Bsymbolic): a real libcudart in the process is not asked.
#include <cuda_runtime_api.h>

#include <cstring>

#include "emulation/machine.h"

using electra::emulation::machine;

extern "C" {

cudaError_t cudaGetLastError() { return machine.error.empty() ? cudaSuccess : cudaErrorLaunchFailure; }
cudaError_t cudaPeekAtLastError() { return cudaGetLastError(); }
const char* cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : error == cudaErrorInvalidValue ? "cudaErrorInvalidValue" : "cudaError"; }
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = machine.multiprocessors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = machine.compute_capability / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = machine.compute_capability % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = machine.compute_capability >= 90 ? 227 << 10 : machine.compute_capability == 80 ? 163 << 10 : 99 << 10; return cudaSuccess;
    default: return cudaErrorInvalidValue;   // unknown to the emulator: a launcher must not go on with what it did not get
  }
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

}
