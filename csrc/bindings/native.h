// The parts of the _native module, one function each.
#pragma once
#include <pybind11/pybind11.h>

namespace electra {

void bind_allocator(pybind11::module_& m);
void bind_reader(pybind11::module_& m);
void bind_watch(pybind11::module_& m);

}  // namespace electra
