// Which attention kernel runs: the first class of the table that is made for the device, takes the problem, and whose shared memory the device has.
#include "cuda/attention_config.cuh"
#include "cuda/attention_launch.h"

namespace electra::cuda {
namespace {

template <class Problem> struct Class {
  const char* name;
  int architecture;   // major compute capability, or any (0)
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

// What a tensor map can say: at least one row, and strides that are not zero (that rows are aligned is seen to at the boundary).
bool has_boxes(const AttentionRows& rows, int64_t count) { return count > 0 && rows.row_stride > 0 && rows.head_stride > 0; }

template <class Problem> bool has_boxes(const Problem& p) {
  return p.dim > attention_config::hopper_dim / 2 && p.dim <= attention_config::hopper_dim && has_boxes(p.q, p.rows_q) && has_boxes(p.k, p.rows_k) && has_boxes(p.v, p.rows_k);
}

// The sign of a negative scale could not be moved into q, which goes from shared memory to the tensor cores.
bool is_for_hopper(const AttentionForward& p) {
  return within<attention_config::resident_keys>(p) && has_boxes(p) && p.scale >= 0.f;
}

bool is_for_hopper(const AttentionBackward& p) { return within<attention_config::resident_keys>(p) && has_boxes(p) && has_boxes(p.grad, p.rows_q); }
bool is_short_for_hopper(const AttentionBackward& p) { return is_short(p) && is_for_hopper(p); }

template <class Problem> bool any(const Problem&) { return true; }

constexpr Class<AttentionForward> forward_classes[] = {
    {"resident on Hopper", 9, is_for_hopper, forward_hopper_shared, launch_forward_hopper},
    {"short", 0, is_short, forward_short_shared, launch_forward_short},
    {"resident", 0, is_resident, forward_resident_shared, launch_forward_resident},
    {"streaming", 0, any, forward_streaming_shared, launch_forward_streaming},
};

constexpr Class<AttentionBackward> backward_classes[] = {
    {"short on Hopper", 9, is_short_for_hopper, backward_short_hopper_shared, launch_backward_short_hopper},
    {"resident on Hopper", 9, is_for_hopper, backward_hopper_shared, launch_backward_hopper},
    {"short", 0, is_short_and_narrow, backward_short_shared, launch_backward_short},
    {"resident", 0, is_resident, backward_resident_shared, launch_backward_resident},
    {"streaming", 0, any, backward_streaming_shared, launch_backward_streaming},
};

template <class Problem, int classes> cudaError_t choose(const Class<Problem> (&table)[classes], const Problem& p, const Class<Problem>*& chosen) {
  int device = 0, limit = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  for (const Class<Problem>& one : table) {
    if ((one.architecture && one.architecture != major) || !one.takes(p) || one.shared(p) > limit) continue;
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
