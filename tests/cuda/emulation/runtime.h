// The CUDA emulator's runtime, as the emulated device headers see it.
//
// A kernel file is compiled by g++ with -DELECTRA_EMULATION and run on the CPU: every CUDA thread is a fiber (a stack of its own, switched by hand), which
// runs until it waits for others. Which fiber runs next is the schedule; several are tried, since a kernel must not depend on it.
//
// Kernel files are compiled with -fsanitize=thread, but the runtime of that sanitizer is ours (memory.cpp): g++ then calls us at every access to memory, and we
// check that it stays inside a tensor or shared memory, that it is aligned, and that no two threads touch the same shared memory without a barrier between.
// The functions here are compiled without it; device headers pass values in registers, so that the emulator itself is not checked.
//
// A fault ends the launch with a message (fail); launch() then returns an error and the torch boundary raises it.
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>
#include <vector_functions.h>

namespace electra::emulation {

// Ends the launch. printf-like; where in the grid and in the source is added.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// --- the running thread. `const`: the same at every call by the same fiber, so that g++ need not call again.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
dim3 block_size() __attribute__((const));
dim3 grid_size() __attribute__((const));
int lane() __attribute__((const));
unsigned char* dynamic_shared() __attribute__((const));

// --- barriers of the block. Threads that have ended count as arrived.
struct Votes { int count, all, any; };
Votes block_barrier(bool predicate);
void named_barrier_sync(int id, int threads);
void named_barrier_arrive(int id, int threads);

// --- the warp. All take the mask of the lanes that take part, and wait for those of them that have not ended.
void warp_barrier(unsigned mask);                                                      // __syncwarp: orders memory as well
uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, const char* what);    // poison where the source takes no part
unsigned warp_ballot(unsigned mask, bool predicate, const char* what);
uint64_t warp_combine(unsigned mask, uint64_t value, uint64_t (*combine)(uint64_t, uint64_t), const char* what);   // over the lanes, in their order

// --- tensor cores, for the whole warp. Fragments as in csrc/cuda/mma.h.
struct Fragment { float v[4]; };
struct Matrices { uint32_t v[4]; };
Fragment warp_mma_bf16(Fragment d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
Fragment warp_mma_f16(Fragment d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
Matrices warp_ldmatrix(const void* shared, int matrices, bool transposed);

// --- asynchronous copies of the running thread: the target holds poison from the call on and the data from the wait on.
void copy_async(void* shared, const void* global, int bytes, bool valid);
void copy_async_commit();
void copy_async_wait(int groups_left);

// --- memory that the emulator reads or writes in the running thread's name: the check that instrumented code gets from g++.
void check_read(const void* p, size_t bytes, size_t alignment);
void check_write(const void* p, size_t bytes, size_t alignment);
void check_atomic(const void* p, size_t bytes);   // like a write, but never a race

// --- a launch.
struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  void (*body)(void*);   // runs the kernel with its arguments, once on every fiber
  void* arguments;
  unsigned cluster = 1;  // neighbouring blocks that run together
};
cudaError_t run(const Launch& launch);

// The message of the fault since the last call, empty if there was none.
const char* take_error();

}  // namespace electra::emulation
