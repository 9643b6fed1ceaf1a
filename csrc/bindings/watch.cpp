// _native.Watch: whether modules are what they were, asked before every use of what was made of them (weights packed for the encoder).
//
// In Python that is a thousand small objects, touched one by one: a third of a millisecond once a forward pass has cleared the caches, where a small encoder
// with one sentence takes eight. Here the next objects are on their way while one is compared.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "bindings/native.h"

namespace py = pybind11;

namespace electra {
namespace {

constexpr size_t ahead = 8;   // objects whose first cache line is asked for before it is needed

template <class T> void prefetch(const std::vector<T>& list, size_t i) {
  if (i + ahead < list.size()) __builtin_prefetch(list[i + ahead].object.ptr());
}

struct Member { py::dict object; py::str name; py::object value; };
struct Emptiness { py::dict object; bool empty; };
struct Override { py::dict object; bool there; };
struct State { py::object object; uint64_t address, version; bool versioned; };

class Watch {
 public:
  Watch(const py::list& members, const py::list& hooks, const py::list& own, const py::list& tensors)
      : forward_(py::str("forward")), data_ptr_(py::str("data_ptr")), version_(py::str("_version")) {
    for (const py::handle entry : members) {
      const auto member = entry.cast<py::tuple>();
      members_.push_back({member[0], member[1], member[2]});
    }
    for (const py::handle dict : hooks) hooks_.push_back({dict.cast<py::dict>(), PyDict_Size(dict.ptr()) == 0});
    for (const py::handle dict : own) own_.push_back({dict.cast<py::dict>(), contains(dict.ptr())});
    for (const py::handle tensor : tensors) {
      const bool versioned = !tensor.attr("is_inference")().cast<bool>();   // those of inference mode have no version
      tensors_.push_back({py::reinterpret_borrow<py::object>(tensor), address(tensor.ptr()), versioned ? version(tensor.ptr()) : 0, versioned});
    }
  }

  bool unchanged() const {
    for (size_t i = 0; i < members_.size(); ++i) {
      prefetch(members_, i);
      const Member& m = members_[i];
      PyObject* found = PyDict_GetItemWithError(m.object.ptr(), m.name.ptr());
      if (!found && PyErr_Occurred()) throw py::error_already_set();
      if (found != m.value.ptr()) return false;
    }
    for (size_t i = 0; i < hooks_.size(); ++i) {
      prefetch(hooks_, i);
      if ((PyDict_Size(hooks_[i].object.ptr()) == 0) != hooks_[i].empty) return false;
    }
    for (size_t i = 0; i < own_.size(); ++i) {
      prefetch(own_, i);
      if (contains(own_[i].object.ptr()) != own_[i].there) return false;
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      prefetch(tensors_, i);
      const State& t = tensors_[i];
      if (address(t.object.ptr()) != t.address || (t.versioned && version(t.object.ptr()) != t.version)) return false;
    }
    return true;
  }

 private:
  py::str forward_, data_ptr_, version_;
  std::vector<Member> members_;
  std::vector<Emptiness> hooks_;
  std::vector<Override> own_;
  std::vector<State> tensors_;

  bool contains(PyObject* dict) const {
    const int there = PyDict_Contains(dict, forward_.ptr());
    if (there < 0) throw py::error_already_set();
    return there == 1;
  }

  static uint64_t number(PyObject* result) {
    if (!result) throw py::error_already_set();
    const uint64_t value = PyLong_AsUnsignedLongLongMask(result);
    Py_DECREF(result);
    if (PyErr_Occurred()) throw py::error_already_set();
    return value;
  }
  uint64_t address(PyObject* tensor) const { return number(PyObject_CallMethodObjArgs(tensor, data_ptr_.ptr(), nullptr)); }
  uint64_t version(PyObject* tensor) const { return number(PyObject_GetAttr(tensor, version_.ptr())); }
};

}  // namespace

void bind_watch(py::module_& m) {
  py::class_<Watch>(m, "Watch", "What modules are made of, as it was when this was made.")
      .def(py::init<py::list, py::list, py::list, py::list>(), py::arg("members"), py::arg("hooks"), py::arg("own"), py::arg("tensors"),
           "members: (dict, name, value) that should stay so. hooks: dicts that should stay empty, or not. own: dicts in which \"forward\" should stay, or not.\n"
           "tensors: whose address and version should stay; of those made in inference mode only the address.")
      .def("unchanged", &Watch::unchanged, "Whether all of it still is as it was.");
}

}  // namespace electra
