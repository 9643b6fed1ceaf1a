// The table of generator_head kernels of one instruction set. See generator_head_forward.h and generator_head_backward.h.
#include "cpu/kernels/generator_head.h"

#include "cpu/kernels/generator_head_backward.h"
#include "cpu/kernels/generator_head_forward.h"

namespace electra {
namespace ELECTRA_ISA {

// Calls function<T, W, O> for the elements of hidden and weight, and the operand their products are made from: pairs where both are bf16 and the processor
// multiplies those; a float weight is never rounded.
#define ELECTRA_DISPATCH_HEAD(p, function, ...)                                                         \
  do {                                                                                                  \
    if ((p).type == DType::f32) return function<float, float, float>(__VA_ARGS__);                      \
    if ((p).type == DType::bf16 && (p).weight_type == DType::bf16) return function<bf16, bf16, bf16_operand>(__VA_ARGS__); \
    if ((p).type == DType::bf16) return function<bf16, float, float>(__VA_ARGS__);                      \
    if ((p).weight_type == DType::f64) return function<double, double, double>(__VA_ARGS__);            \
    return function<double, float, double>(__VA_ARGS__);                                                \
  } while (0)

template <class T, class W, class O> static int64_t forward_size(int64_t features, int64_t slots) {
  Arena arena{nullptr};
  GeneratorForwardMemory<O>(arena, features, slots);
  return arena.used;
}

template <class T, class W, class O> static int64_t backward_size(int64_t features) {
  Arena arena{nullptr};
  GeneratorBackwardMemory<O>(arena, features);
  return arena.used;
}

template <class T, class W, class O> static int64_t width_of(int64_t features) { return whole_vectors<operand_acc<O>>(features); }
template <class T, class W, class O> static int64_t transposed_size(int64_t features) { return depth_of<O>(features) * slot_block * int64_t(sizeof(O)); }
template <class T, class W, class O> static int64_t depth_size(int64_t features) {
  return depth_of<O>(slot_block) * whole_vectors<operand_acc<O>>(features) * int64_t(sizeof(O));
}
template <class T, class W, class O> static void combine_as(const GeneratorForward& f, int64_t begin, int64_t end) { generator_combine<operand_acc<O>>(f, begin, end); }
template <class T, class W, class O> static void pack_as(const GeneratorBackward& b, int64_t block) { pack_hidden_block<T, O>(b, block); }
template <class T, class W, class O> static void backward_as(const GeneratorBackward& b, int64_t split, void* memory) { generator_backward<W, O>(b, split, memory); }
template <class T, class W, class O> static void sum_as(const GeneratorBackward& b, int64_t begin, int64_t end) { sum_dhidden_rows<T>(b, begin, end); }

static int64_t forward_bytes(const GeneratorProblem& p, int64_t slots) { ELECTRA_DISPATCH_HEAD(p, forward_size, p.features, slots); }
static int64_t backward_bytes(const GeneratorProblem& p) { ELECTRA_DISPATCH_HEAD(p, backward_size, p.features); }
static int64_t hidden_width(const GeneratorProblem& p) { ELECTRA_DISPATCH_HEAD(p, width_of, p.features); }
static int64_t transposed_bytes(const GeneratorProblem& p) { ELECTRA_DISPATCH_HEAD(p, transposed_size, p.features); }
static int64_t depth_bytes(const GeneratorProblem& p) { ELECTRA_DISPATCH_HEAD(p, depth_size, p.features); }
static void forward(const GeneratorForward& f, int64_t split, int64_t begin, int64_t end, void* memory) {
  ELECTRA_DISPATCH_HEAD(f.problem, generator_forward, f, split, begin, end, memory);
}
static void combine(const GeneratorForward& f, int64_t begin, int64_t end) { ELECTRA_DISPATCH_HEAD(f.problem, combine_as, f, begin, end); }
static void pack_hidden(const GeneratorBackward& b, int64_t block) { ELECTRA_DISPATCH_HEAD(b.problem, pack_as, b, block); }
static void backward(const GeneratorBackward& b, int64_t split, void* memory) { ELECTRA_DISPATCH_HEAD(b.problem, backward_as, b, split, memory); }
static void sum_dhidden(const GeneratorBackward& b, int64_t begin, int64_t end) { ELECTRA_DISPATCH_HEAD(b.problem, sum_as, b, begin, end); }

const GeneratorHeadKernels generator_head_kernels = {forward_bytes, backward_bytes, hidden_width, transposed_bytes, depth_bytes,
                                                     forward,       combine,        pack_hidden,  backward,         sum_dhidden};

}  // namespace ELECTRA_ISA
}  // namespace electra
