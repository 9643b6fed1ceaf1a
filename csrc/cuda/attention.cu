// Which attention kernel runs: the first class of the table that takes the problem and whose shared memory the device has. A class for one architecture only is a row
// before the one it improves on.
#include "cuda/attention_config.cuh"
#include "cuda/attention_launch.h"

namespace electra::cuda {
namespace {

template <class Problem> struct Class {
  const char* name;
  bool (*takes)(const Problem&);
  int64_t (*shared)(const Problem&);
  cudaError_t (*launch)(const Problem&, cudaStream_t);
};

template <int64_t bound> bool within(const AttentionProblem& p) { return !p.causal && p.max_seqlen_q <= bound && p.max_seqlen_k <= bound; }

template <class Problem> bool is_short(const Problem& p) { return within<attention_config::short_keys>(p); }
template <class Problem> bool is_short_and_narrow(const Problem& p) { return is_short(p) && p.dim <= backward_short_dim; }

template <class Problem> bool is_resident(const Problem& p) {
  return within<attention_config::resident_keys>(p) && p.dim > attention_config::resident_dim / 2 && p.dim <= attention_config::resident_dim;
}

template <class Problem> bool any(const Problem&) { return true; }

constexpr Class<AttentionForward> forward_classes[] = {
    {"short", is_short, forward_short_shared, launch_forward_short},
    {"resident", is_resident, forward_resident_shared, launch_forward_resident},
    {"streaming", any, forward_streaming_shared, launch_forward_streaming},
};

constexpr Class<AttentionBackward> backward_classes[] = {
    {"short", is_short_and_narrow, backward_short_shared, launch_backward_short},
    {"resident", is_resident, backward_resident_shared, launch_backward_resident},
    {"streaming", any, backward_streaming_shared, launch_backward_streaming},
};

template <class Problem, int classes> cudaError_t choose(const Class<Problem> (&table)[classes], const Problem& p, const Class<Problem>*& chosen) {
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  for (const Class<Problem>& one : table) {
    if (!one.takes(p) || one.shared(p) > limit) continue;
    chosen = &one;
    return cudaSuccess;
  }
  return cudaErrorInvalidConfiguration;
}

template <class Problem, int classes> cudaError_t run(const Class<Problem> (&table)[classes], const Problem& p, cudaStream_t stream) {
  if (p.heads == 0 || (p.rows_q == 0 && p.rows_k == 0)) return cudaSuccess;
  const Class<Problem>* chosen = nullptr;
  const cudaError_t error = choose(table, p, chosen);
  return error == cudaSuccess ? chosen->launch(p, stream) : error;
}

}  // namespace

cudaError_t attention_forward(const AttentionForward& p, cudaStream_t stream) { return run(forward_classes, p, stream); }

cudaError_t attention_backward(const AttentionBackward& p, cudaStream_t stream) { return run(backward_classes, p, stream); }

}  // namespace electra::cuda
