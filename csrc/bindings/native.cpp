// electra_fast._native: what is no tensor op. pybind11 without torch headers, so this compiles in seconds and depends on no torch.
#include <pybind11/pybind11.h>

#include "bindings/native.h"
#include "common/philox.h"
#include "cpu/capability.h"

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
  m.doc() = "Build information, Philox known answers, the allocator setting, the batch reader and the watch over modules of electra_fast.";

  m.def("build_info", [] {
    py::dict info;
    info["version"] = ELECTRA_VERSION;
    info["torch"] = ELECTRA_BUILD_TORCH;
    info["cuda"] = ELECTRA_BUILD_CUDA;
    info["compiler"] = ELECTRA_BUILD_COMPILER;
    info["instruction_sets"] = ELECTRA_BUILD_ISAS;
    info["hardware_capability"] = electra::capability_name(electra::hardware_capability());
    info["capability"] = electra::capability_name(electra::capability());
    return info;
  }, "Versions this library was built with, the CPU capability of the machine and the one the kernels use.");

  m.def("philox", [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, int rounds) {
    const auto r = electra::philox4x32({c0, c1, c2, c3}, {k0, k1}, rounds);
    return py::make_tuple(r.c0, r.c1, r.c2, r.c3);
  }, py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("k0"), py::arg("k1"), py::arg("rounds") = 7,
        "Philox4x32 of one counter and key: four 32-bit words.");

  electra::bind_allocator(m);
  electra::bind_reader(m);
  electra::bind_watch(m);
}
