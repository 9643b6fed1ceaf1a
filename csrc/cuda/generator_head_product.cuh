// What the products of generator_head's backward share (generator_head_product.cu, _product_sm90.cu): arguments, which terms are summed, and where a result goes.
#pragma once
#include "cuda/generator_head_backward.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {

struct ProductArguments {
  const void *d, *other;           // [padded columns, slots]; weight or hidden, [others, features]
  const BackwardState* state;
  int slots, others, features;     // slots: of a chunk, the row length of d
  int padded_columns;              // rows of d
  int first;                       // the chunk's first slot
  // dhidden
  float* partials;                 // [parts][slots][features]
  int depth_per_part;              // columns
  // dweight
  ParameterGradient dweight;       // written by the last chunk
  float* sum;                      // read but by the first chunk, written but by the last
  bool first_chunk, last_chunk;
  int columns;
};

// Slots of the chunk, as far as any is used; may be negative.
__device__ __forceinline__ int used_slots(const ProductArguments& call) {
  const int left = call.state->end - call.first;
  return left < call.slots ? left : call.slots;
}

// The terms of a block's sums go from `begin` to this.
template <bool is_dhidden> __device__ __forceinline__ int end_of_terms(const ProductArguments& call, int begin, int slots) {
  return !is_dhidden ? slots : begin + call.depth_per_part < call.padded_columns ? begin + call.depth_per_part : call.padded_columns;
}

// d's scale is taken off dweight here; dhidden keeps it until its parts are summed.
template <bool is_dhidden> __device__ __forceinline__ float product_factor(const ProductArguments& call) { return is_dhidden ? 1.f : call.state->inverse; }

// Two neighbouring results.
template <class T, bool is_dhidden> __device__ __forceinline__ void store_product(const ProductArguments& call, int part, int row, int column, float a, float b) {
  float x[2] = {a, b};
  if (column >= call.features) return;
  if constexpr (is_dhidden) {
    store_vector<2>(call.partials + (int64_t(part) * call.slots + row) * call.features + column, x);
  } else {
    if (row >= call.columns) return;
    const int64_t at = int64_t(row) * call.features + column;
    if (!call.first_chunk) {
      float before[2];
      load_vector<2>(call.sum + at, before);
      x[0] += before[0];
      x[1] += before[1];
    }
    if (call.last_chunk) store_parameter<T>(call.dweight, at, x);
    else store_vector<2>(call.sum + at, x);
  }
}

// The same products with wgmma and TMA; grid: as the other kernel's.
cudaError_t launch_hopper_product(const ProductArguments& call, bool is_dhidden, DType type, dim3 grid, cudaStream_t stream);

}  // namespace electra::cuda
