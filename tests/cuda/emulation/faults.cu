// Small kernels for the tests of the emulator itself (tests/cuda/test_emulation.py): each is right when `fault` is 0 and has one deliberate fault otherwise.
#include "cuda/barrier.h"
#include "cuda/copy.h"
#include "cuda/mma.h"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

#include <string>

namespace electra::cuda {
namespace {

struct Call {
  int fault;
  const float* in;   // [n]
  float* out;        // [n]
  int n;
  int* counter;      // [1], 0
};

// out = in backwards, block by block of 64. Faults: 1 no barrier, 2 one too many written, 3 an index outside the static array.
__global__ void reverse(Call c) {
  __shared__ float values[64];
  ELECTRA_DYNAMIC_SHARED(float, dynamic);
  const int i = threadIdx.x, base = blockIdx.x * 64;
  values[c.fault == 3 ? i + 1 : i] = c.in[base + i];
  dynamic[c.fault == 2 ? i + 1 : i] = 1.f;
  if (c.fault != 1) __syncthreads();
  c.out[base + i] = values[63 - i] * dynamic[63 - i];
}

// out[i] = the sum of all rounds of in, passed round by round through shared memory. Fault 1: no barrier at the loop's end (written while still read).
__global__ void rounds(Call c) {
  __shared__ float values[64];
  float sum = 0.f;
  for (int base = 0; base < c.n; base += 64) {
    values[threadIdx.x] = c.in[base + threadIdx.x];
    __syncthreads();
    sum += values[63 - threadIdx.x];
    if (c.fault != 1) __syncthreads();
  }
  c.out[threadIdx.x] = sum;
}

// out = in by way of cp.async, two stages. Faults: 1 no wait, 2 waits for all but one group too many, 3 no barrier after the wait (others' data), 4 not committed,
// 5 the target is written again while the copy is under way.
__global__ void pipeline(Call c) {
  __shared__ __align__(16) float stage[2][64];
  const int t = threadIdx.x, tiles = c.n / 64;
  const auto fetch = [&](int tile) {
    if (t < 16 && tile < tiles) copy_async_16(&stage[tile & 1][4 * t], c.in + 64 * tile + 4 * t, true);
    if (c.fault != 4) copy_async_commit();
  };
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    fetch(tile + 1);
    if (c.fault == 5 && t == 0) stage[(tile + 1) & 1][0] = 0.f;
    if (c.fault == 2) copy_async_wait<2>();
    else if (c.fault != 1) copy_async_wait<1>();
    if (c.fault != 3) __syncthreads();
    c.out[64 * tile + t] = stage[tile & 1][t];
    __syncthreads();
  }
}

// The last copy has no source: 16 zeros arrive, and the source is not read. Fault 1: valid all the same.
__global__ void zero_fill(Call c) {
  __shared__ __align__(16) float row[16];
  const int t = threadIdx.x;
  if (t < 4) copy_async_16(row + 4 * t, c.in + 4 * t + (t == 3 ? c.n : 0), t < 3 || c.fault == 1);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  if (t < 16) c.out[t] = row[t];
}

// out[i] = sum of in over the warp. Faults: 1 a lane too far, 2 a mask without the caller, 3 lanes in different collectives, 4 reads a lane that takes no part.
__global__ void shuffle(Call c) {
  const int lane = threadIdx.x;
  float x = c.in[lane];
  for (int offset = 16; offset > 0; offset /= 2) {
    if (c.fault == 2) x += __shfl_xor_sync(0xfffffffeu, x, offset);
    else if (c.fault == 3 && lane == 5) x += __shfl_down_sync(full_warp, x, offset);
    else x += __shfl_xor_sync(full_warp, x, c.fault == 1 && offset == 8 ? 4 : offset);
  }
  if (c.fault == 4 && lane < 16) x = __shfl_sync(0xffffu, x, 20);
  c.out[lane] = x;
}

// Every kind of shuffle and vote, against what Python expects. No fault.
__global__ void collectives(Call c) {
  const int lane = threadIdx.x;
  const float x = c.in[lane];
  c.out[lane] = __shfl_up_sync(full_warp, x, 3);
  c.out[32 + lane] = __shfl_down_sync(full_warp, x, 3, 16);
  c.out[64 + lane] = __shfl_sync(full_warp, x, lane / 2);
  c.out[96 + lane] = float(__shfl_xor_sync(full_warp, (long long)lane << 40, 1) >> 40);
  const unsigned odd = __ballot_sync(full_warp, lane & 1);
  c.out[128 + lane] = float(odd == 0xaaaaaaaau) + float(__any_sync(full_warp, lane == 7)) + float(__all_sync(full_warp, lane < 32)) + float(__all_sync(full_warp, lane < 31));
  c.out[160 + lane] = float(__reduce_add_sync(full_warp, unsigned(lane)) + __reduce_max_sync(full_warp, unsigned(lane)));
  c.out[192 + lane] = float(__syncthreads_count(lane < 5) + 100 * __syncthreads_or(lane == 3) + 1000 * __syncthreads_and(lane == 3));
}

// Neighbouring lanes swap through shared memory. Fault 1: no __syncwarp.
__global__ void warp_exchange(Call c) {
  __shared__ float values[32];
  values[threadIdx.x] = c.in[threadIdx.x];
  if (c.fault != 1) __syncwarp();
  c.out[threadIdx.x] = values[threadIdx.x ^ 1];
}

// Guards. Faults: 1 no guard on the load, 2 none on the store, 3 a misaligned vector, 4 reads shared memory that nobody wrote.
__global__ void guards(Call c) {
  __shared__ float values[64];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float x = i < c.n || c.fault == 1 ? c.in[i] : 0.f;
  if (c.fault == 3 && i == 0) {
    float four[4];
    load_vector(c.in + 1, four);
    x += four[0];
  }
  if (c.fault != 4) values[i % 64] = x;
  x = values[i % 64];
  if (i < c.n || c.fault == 2) c.out[i] = x;
}

// Half of the block produces, half consumes, over two named barriers. Faults: 1 the consumer does not wait, 2 the producer does not arrive, 3 writes before the
// consumer is done.
__global__ void producer(Call c) {
  constexpr int full = 1, empty = 2;
  __shared__ float values[32];
  const int t = threadIdx.x % 32;
  const bool produces = threadIdx.x < 32;
  for (int base = 0; base < c.n; base += 32) {
    if (produces) {
      if (base > 0 && c.fault != 3) named_barrier_sync(empty, 64);
      values[t] = c.in[base + t];
      if (c.fault != 2) named_barrier_arrive(full, 64);
    } else {
      if (c.fault != 1) named_barrier_sync(full, 64);
      c.out[base + t] = values[31 - t];
      if (base + 32 < c.n) named_barrier_arrive(empty, 64);
    }
  }
}

// Every block adds its part; the last to come adds the parts up. Faults: 1 in the order of arrival, 2 a barrier that only some threads reach (the others wait
// for the first warp's lanes elsewhere).
__global__ void last_block(Call c) {
  __shared__ int ticket;
  const int b = blockIdx.x, blocks = gridDim.x;
  if (threadIdx.x == 0) {
    ticket = atomicAdd(c.counter, 1);
    c.out[1 + (c.fault == 1 ? ticket : b)] = c.in[b];
    __threadfence();
  }
  if (c.fault == 2 && threadIdx.x >= 16) __shfl_sync(full_warp, 0, 0);
  else __syncthreads();
  if (ticket == blocks - 1 && threadIdx.x == 0) {
    float sum = 0.f;
    for (int i = 0; i < blocks; ++i) sum = sum * 0.5f + c.out[1 + i];
    c.out[0] = sum;
  }
}

// out [16 x 8] = A [16 x 16] B [16 x 8] in bfloat16, A and B in `in`, through ldmatrix. Faults: 1 not transposed, 2 a wrong lane's row, 3 a misaligned row.
template <class T> __global__ void multiply(Call c) {
  __shared__ __align__(16) T a[16][24], b[16][8];
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) a[i / 16][i % 16] = from_float<T>(c.in[i]);
  for (int i = lane; i < 128; i += 32) b[i / 8][i % 8] = from_float<T>(c.in[256 + i]);
  __syncwarp();
  uint32_t fragment[4], columns[2];
  ldmatrix_x4(fragment, &a[c.fault == 2 ? lane % 8 : lane % 16][lane / 16 * 8 + (c.fault == 3)]);
  if (c.fault == 1) ldmatrix_x2(columns, &b[lane % 16][0]);
  else ldmatrix_x2_trans(columns, &b[lane % 16][0]);
  float d[4] = {};
  mma_m16n8k16<T>(d, fragment, columns[0], columns[1]);
  for (int i = 0; i < 4; ++i) c.out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

}  // namespace
}  // namespace electra::cuda

// A cudaError_t, or -1 for an unknown kernel.
extern "C" int run_fault(const char* name, int fault, const float* in, float* out, int n, int* counter) {
  using namespace electra::cuda;
  const Call c = {fault, in, out, n, counter};
  const std::string kernel = name;
  if (kernel == "reverse") return ELECTRA_LAUNCH(reverse, n / 64, 64, 64 * sizeof(float), nullptr, c);
  if (kernel == "rounds") return ELECTRA_LAUNCH(rounds, 1, 64, 0, nullptr, c);
  if (kernel == "pipeline") return ELECTRA_LAUNCH(pipeline, 1, 64, 0, nullptr, c);
  if (kernel == "zero_fill") return ELECTRA_LAUNCH(zero_fill, 1, 32, 0, nullptr, c);
  if (kernel == "shuffle") return ELECTRA_LAUNCH(shuffle, 1, 32, 0, nullptr, c);
  if (kernel == "collectives") return ELECTRA_LAUNCH(collectives, 1, 32, 0, nullptr, c);
  if (kernel == "warp_exchange") return ELECTRA_LAUNCH(warp_exchange, 1, 32, 0, nullptr, c);
  if (kernel == "guards") return ELECTRA_LAUNCH(guards, (n + 31) / 32, 32, 0, nullptr, c);
  if (kernel == "producer") return ELECTRA_LAUNCH(producer, 1, 64, 0, nullptr, c);
  if (kernel == "last_block") return ELECTRA_LAUNCH(last_block, n, 32, 0, nullptr, c);
  if (kernel == "multiply_bf16") return ELECTRA_LAUNCH(multiply<__nv_bfloat16>, 1, 32, 0, nullptr, c);
  if (kernel == "multiply_f16") return ELECTRA_LAUNCH(multiply<__half>, 1, 32, 0, nullptr, c);
  return -1;
}
