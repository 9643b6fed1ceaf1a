// discriminator_loss, forward: logit = hidden · weight + bias, loss = Σ max(l, 0) - l y + log(1 + exp(-|l|)) over the rows where mask.
//
// One pass over hidden (N e bytes a row) in one launch. A warp makes the logits of several rows, then each of its first lanes one row's loss. Losses are added
// up in float32: over a lane's rows, its warp, its block, and by the last block to finish over the blocks, in an order fixed by their number.
#include "cuda/discriminator_loss.h"

#include "cuda/discriminator_loss_launch.cuh"
#include "cuda/layer_norm_columns.cuh"

namespace electra::cuda {
namespace {

struct LossSums {
  float* blocks;       // [blocks]
  unsigned* arrived;   // [1], zero at the start
  LossSums(Workspace& memory, int block_count) : blocks(memory.take<float>(block_count)), arrived(memory.take<unsigned>(1)) {}
  cudaError_t clear(cudaStream_t stream) const { return cudaMemsetAsync(arrived, 0, sizeof(unsigned), stream); }
};

// Writes the logit of a row and returns its loss.
__device__ __forceinline__ float finish_row(const DiscriminatorLossForward& call, int64_t row, float logit) {
  call.logits[row] = logit;
  const float loss = fmaxf(logit, 0.f) - (call.labels[row] ? logit : 0.f) + log1pf(expf(-fabsf(logit)));
  return call.mask && !call.mask[row] ? 0.f : loss;
}

// `loss`: this thread's share. All threads must call.
template <int threads> __device__ __forceinline__ void finish_loss(const DiscriminatorLossForward& call, const LossSums& sums, float loss) {
  __shared__ float shared[threads / 32];
  const float total = block_sum<threads>(loss, shared);
  if (threadIdx.x == 0) sums.blocks[blockIdx.x] = total;
  if (!last_to_arrive(sums.arrived, gridDim.x)) return;
  float share = 0.f;
  for (int block = threadIdx.x; block < int(gridDim.x); block += threads) share += __ldcg(sums.blocks + block);
  share = block_sum<threads>(share, shared);
  if (threadIdx.x == 0) *call.loss = share;
}

template <class T> __device__ __forceinline__ float load_bias(const Parameter& bias) {
  float value[1];
  load_parameter<T>(bias, 0, value);
  return value[0];
}

template <class T, int entry>
__global__ void __launch_bounds__(32 * DiscriminatorLossLaunch<T>::forward[entry].warps, DiscriminatorLossLaunch<T>::forward[entry].blocks)
forward_kernel(const DiscriminatorLossForward call, const LossSums sums) {
  constexpr RowLaunch launch = DiscriminatorLossLaunch<T>::forward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int n = L::count(call.columns);
  const float bias = load_bias<T>(call.bias);
  float weight[L::vectors][L::width];
  load_columns<T, L>(call.weight, n, weight);
  float loss = 0.f;
  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.rows; first += warps * L::rows_per_warp) {
    uint4 raw[L::rows][L::vectors];
    load_rows<T, L>(static_cast<const T*>(call.hidden), first, call.rows, n, raw);
    float dot[L::rows];
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      dot[r] = 0.f;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        float h[L::width], part = 0.f;
        widen<T>(raw[r][v], h);
#pragma unroll
        for (int i = 0; i < L::width; ++i) part += h[i] * weight[v][i];
        dot[r] += part;
      }
    }
    float mine = 0.f;
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const float sum = warp_sum<L::lanes>(dot[r]);
      if (L::lane() == r) mine = sum;
    }
    const int64_t row = row_of_lane<L>(first);
    if (L::lane() < L::rows && row < call.rows) loss += finish_row(call, row, mine + bias);
  }
  finish_loss<32 * launch.warps>(call, sums, loss);
}

template <class T>
__global__ void __launch_bounds__(discriminator_loss_any_threads) forward_any_kernel(const DiscriminatorLossForward call, const LossSums sums) {
  constexpr int warps_of_block = discriminator_loss_any_threads / 32;
  const int n = call.columns, lane = threadIdx.x % 32;
  const float bias = load_bias<T>(call.bias);
  float loss = 0.f;
  const int64_t warp = int64_t(blockIdx.x) * warps_of_block + threadIdx.x / 32, warps = int64_t(gridDim.x) * warps_of_block;
  for (int64_t row = warp; row < call.rows; row += warps) {
    float dot = 0.f;
#pragma unroll 4
    for (int column = lane; column < n; column += 32) {
      float weight[1];
      load_parameter<T>(call.weight, column, weight);
      dot += to_float(static_cast<const T*>(call.hidden)[row * n + column]) * weight[0];
    }
    dot = warp_sum(dot);
    if (lane == 0) loss += finish_row(call, row, dot + bias);
  }
  finish_loss<discriminator_loss_any_threads>(call, sums, loss);
}

// No more blocks than this, whichever kernel runs.
constexpr int most_blocks = most_column_blocks * 8;

template <class T, int entry = 0> cudaError_t forward_rows(const DiscriminatorLossForward& call, cudaStream_t stream) {
  constexpr RowLaunch launch = DiscriminatorLossLaunch<T>::forward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return forward_rows<T, entry + 1>(call, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  static_assert(launch.blocks * most_column_blocks <= most_blocks);
  const int blocks = blocks_for(call.rows, launch.warps * L::rows_per_warp, most_column_blocks * launch.blocks);
  Workspace memory(call.workspace);
  const LossSums sums(memory, blocks);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH((forward_kernel<T, entry>), blocks, 32 * launch.warps, 0, stream, call, sums);
}

template <class T> cudaError_t forward_any(const DiscriminatorLossForward& call, cudaStream_t stream) {
  const int blocks = blocks_for(call.rows, discriminator_loss_any_threads / 32, most_column_blocks * discriminator_loss_any_blocks);
  Workspace memory(call.workspace);
  const LossSums sums(memory, blocks);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH((forward_any_kernel<T>), blocks, discriminator_loss_any_threads, 0, stream, call, sums);
}

}  // namespace

int64_t discriminator_loss_workspace(int64_t rows) {
  Workspace memory(nullptr);
  LossSums(memory, blocks_for(rows, 1, most_blocks));
  return memory.bytes();
}

cudaError_t discriminator_loss_forward(const DiscriminatorLossForward& call, cudaStream_t stream) {
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool fits = row_launch_serves<T>(DiscriminatorLossLaunch<T>::forward, call.columns) && aligned_16(call.hidden) && aligned_16(call.weight.data);
    return fits ? forward_rows<T>(call, stream) : forward_any<T>(call, stream);
  });
}

}  // namespace electra::cuda
