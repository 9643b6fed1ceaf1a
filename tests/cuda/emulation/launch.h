// ELECTRA_LAUNCH and ELECTRA_LAUNCH_CLUSTER in the emulator: the whole grid has run when they return.
#pragma once
#include <tuple>

#include "emulation/runtime.h"

namespace electra::cuda {

template <class... Parameters, class... Arguments>
cudaError_t launch_cluster(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, Arguments&&... arguments) {
  std::tuple<void (*)(Parameters...), std::tuple<Parameters...>> call(kernel, {static_cast<Arguments&&>(arguments)...});
  const auto body = [](void* p) {
    auto& [kernel_, arguments_] = *static_cast<decltype(call)*>(p);
    std::apply(kernel_, arguments_);
  };
  return emulation::run({grid, block, shared_bytes, body, &call, cluster});
}

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  return launch_cluster(kernel, 1, grid, block, shared_bytes, stream, static_cast<Arguments&&>(arguments)...);
}

}  // namespace electra::cuda
