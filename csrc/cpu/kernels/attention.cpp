// The table of attention kernels of one instruction set. See attention_forward.h and attention_backward.h.
#include "cpu/kernels/attention.h"

#include "cpu/kernels/attention_backward.h"
#include "cpu/kernels/attention_forward.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> static int64_t forward_size(int64_t dim) {
  Arena arena{nullptr};
  ForwardMemory<O>(arena, dim);
  return arena.used;
}

template <class O> static int64_t backward_size(int64_t dim, int64_t longest_k) {
  Arena arena{nullptr};
  BackwardMemory<O>(arena, dim, longest_k);
  return arena.used;
}

static int64_t forward_bytes(DType type, int64_t dim) {
  return type == DType::f32 ? forward_size<float>(dim) : type == DType::bf16 ? forward_size<bf16_operand>(dim) : forward_size<double>(dim);
}

static int64_t backward_bytes(DType type, int64_t dim, int64_t longest_k) {
  return type == DType::f32 ? backward_size<float>(dim, longest_k) : type == DType::bf16 ? backward_size<bf16_operand>(dim, longest_k) : backward_size<double>(dim, longest_k);
}

static void forward(const AttentionProblem& p, int64_t sequence, int64_t head, int64_t begin, int64_t end, void* memory) {
  switch (p.type) {
    case DType::f32: return forward_chunk<float, float>(p, sequence, head, begin, end, memory);
    case DType::bf16: return forward_chunk<bf16, bf16_operand>(p, sequence, head, begin, end, memory);
    case DType::f64: return forward_chunk<double, double>(p, sequence, head, begin, end, memory);
  }
}

static void backward(const AttentionProblem& p, int64_t sequence, int64_t head, void* memory) {
  switch (p.type) {
    case DType::f32: return backward_head<float, float>(p, sequence, head, memory);
    case DType::bf16: return backward_head<bf16, bf16_operand>(p, sequence, head, memory);
    case DType::f64: return backward_head<double, double>(p, sequence, head, memory);
  }
}

const AttentionKernels attention_kernels = {forward_bytes, backward_bytes, forward, backward};

}  // namespace ELECTRA_ISA
}  // namespace electra
