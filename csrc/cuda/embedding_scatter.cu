// Sums of the sorted tokens' rows: see embedding_scatter.h. Lanes own columns, four each; what is added runs along the tokens, in their order.
#include "cuda/embedding_scatter.h"
#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

constexpr int warps = 8, threads = 32 * warps;
constexpr int chunk = 4 * 32;   // columns of a warp
constexpr int at_once = 8;      // rows under way

__device__ __forceinline__ float4 load_or_zero(const float* p, bool valid) {
  return valid ? *reinterpret_cast<const float4*>(p) : make_float4(0.f, 0.f, 0.f, 0.f);
}

__device__ __forceinline__ void add(float4& total, const float4& x) {
  total.x += x.x;
  total.y += x.y;
  total.z += x.z;
  total.w += x.w;
}

// Four columns of a row of the gradient, fewer where it ends.
template <class Table>
__device__ __forceinline__ void store_columns(const EmbeddingScatter& scatter, const ScatterTable& table, int row, int column, const float4& x) {
  Table* const to = static_cast<Table*>(table.gradient) + int64_t(row) * scatter.columns + column;
  const float values[4] = {x.x, x.y, x.z, x.w};
  if (scatter.columns % 4 == 0) {
    store_vector<4>(to, values);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (column + i < scatter.columns) to[i] = from_float<Table>(values[i]);
  }
}

// A warp for each window and chunk of columns.
template <class Table> __global__ void __launch_bounds__(threads) sum_windows_kernel(const EmbeddingScatter scatter) {
  const ScatterTable& table = scatter.tables[blockIdx.z];
  const int *const keys = table.sorted_keys, *const order = table.sorted_order;
  const int window = blockIdx.x * warps + threadIdx.x / 32, column = blockIdx.y * chunk + threadIdx.x % 32 * 4;
  const int begin = window * scatter_window, end = min(begin + scatter_window, scatter.tokens);
  if (begin >= end || column >= scatter.columns) return;
  const int64_t slot = int64_t(window) * scatter.pitch + column;
  int key = keys[begin];
  bool open = begin > 0 && keys[begin - 1] == key;   // began before this window
  float4 total = make_float4(0.f, 0.f, 0.f, 0.f);
  const auto finish = [&](bool goes_on) {
    if (key >= table.rows) return;
    if (open) *reinterpret_cast<float4*>(table.heads + slot) = total;
    else if (goes_on) *reinterpret_cast<float4*>(table.tails + slot) = total;
    else store_columns<Table>(scatter, table, key, column, total);
  };
  for (int first = begin; first < end; first += at_once) {
    int next[at_once];
    float4 part[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) next[i] = first + i < end ? keys[first + i] : table.rows;
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const bool valid = next[i] < table.rows;
      part[i] = load_or_zero(scatter.dsum + int64_t(valid ? order[first + i] : 0) * scatter.pitch + column, valid);
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i >= end) break;
      if (next[i] != key) {
        finish(false);
        key = next[i];
        open = false;
        total = make_float4(0.f, 0.f, 0.f, 0.f);
      }
      add(total, part[i]);
    }
  }
  finish(end < scatter.tokens && keys[end] == key);
}

// A block for each window and chunk of columns; idle unless an id begins in this window and goes on into the next.
template <class Table> __global__ void __launch_bounds__(threads) join_windows_kernel(const EmbeddingScatter scatter) {
  __shared__ float4 shared[warps][32];
  const ScatterTable& table = scatter.tables[blockIdx.z];
  const int* const keys = table.sorted_keys;
  const int window = blockIdx.x, begin = window * scatter_window, end = begin + scatter_window;
  if (end >= scatter.tokens) return;
  const int key = keys[end - 1];
  if (key >= table.rows || keys[end] != key || (begin > 0 && keys[begin - 1] == key)) return;

  int last = window + 1, past = scatter.windows;   // the last window at whose start the id still is
  while (past - last > 1) {
    const int middle = (last + past) / 2;
    if (keys[middle * scatter_window] == key) last = middle;
    else past = middle;
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.y * chunk + lane * 4;
  float4 total = make_float4(0.f, 0.f, 0.f, 0.f);
  if (column < scatter.columns) {
#pragma unroll 4
    for (int w = window + 1 + warp; w <= last; w += warps) add(total, load_or_zero(table.heads + int64_t(w) * scatter.pitch + column, true));
  }
  shared[warp][lane] = total;
  __syncthreads();
  if (warp != 0 || column >= scatter.columns) return;
  total = load_or_zero(table.tails + int64_t(window) * scatter.pitch + column, true);
#pragma unroll
  for (int w = 0; w < warps; ++w) add(total, shared[w][lane]);
  store_columns<Table>(scatter, table, key, column, total);
}

}  // namespace

cudaError_t embedding_scatter(const EmbeddingScatter& scatter, cudaStream_t stream) {
  const int64_t value = scatter.type == DType::f32 ? 4 : 2;
  for (const ScatterTable& table : scatter.tables) {
    const size_t bytes = size_t(table.rows) * scatter.columns * value;
    if (bytes == 0) continue;
    if (const cudaError_t error = cudaMemsetAsync(table.gradient, 0, bytes, stream); error != cudaSuccess) return error;
  }
  if (scatter.tokens == 0) return cudaSuccess;
  if (const cudaError_t error = embedding_sort(scatter, stream); error != cudaSuccess) return error;
  const unsigned chunks = (scatter.columns + chunk - 1) / chunk;
  return dispatch(scatter.type, [&](auto tag) {
    using Table = typename decltype(tag)::type;
    const dim3 grid((scatter.windows + warps - 1) / warps, chunks, embedding_tables);
    if (const cudaError_t error = ELECTRA_LAUNCH((sum_windows_kernel<Table>), grid, threads, 0, stream, scatter); error != cudaSuccess) return error;
    return ELECTRA_LAUNCH((join_windows_kernel<Table>), dim3(scatter.windows, chunks, embedding_tables), threads, 0, stream, scatter);
  });
}

}  // namespace electra::cuda
