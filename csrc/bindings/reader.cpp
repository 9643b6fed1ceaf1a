// _native.BatchReader: packed batches as numpy arrays that own the worker's buffers (nothing is copied). Also the two pure functions it stands on, for tests
// and for whoever wants to reproduce an order: KeyedPermutation and pack_window.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/native.h"
#include "reader/batch_reader.h"
#include "reader/errors.h"
#include "reader/packing.h"
#include "reader/permutation.h"

namespace py = pybind11;

namespace electra {
namespace {

// How long a wait may keep Ctrl-C from being noticed.
constexpr std::chrono::milliseconds kPatience{100};

template <typename T>
py::array_t<T> owning_array(std::unique_ptr<T[]> buffer, size_t size) {
  T* data = buffer.get();
  py::capsule owner(data, [](void* pointer) { delete[] static_cast<T*>(pointer); });
  buffer.release();   // the capsule's from here on
  return py::array_t<T>(py::ssize_t(size), data, owner);
}

StreamPosition position_of(const py::dict& state) {
  StreamPosition position;
  const std::pair<const char*, uint64_t*> fields[] = {{"epoch", &position.epoch}, {"window", &position.window}, {"bin", &position.bin}};
  for (const auto& [name, value] : fields) {
    if (!state.contains(name)) throw std::invalid_argument(std::string("BatchReader: state lacks \"") + name + "\"");
    try {
      *value = state[name].cast<uint64_t>();
    } catch (const py::cast_error&) {
      throw std::invalid_argument(std::string("BatchReader: state[\"") + name + "\"] must be an integer of at least 0, got " +
                                  std::string(py::str(state[name])));
    }
  }
  return position;
}

// The reader and the process that made it. Threads do not survive a fork, and joining, or even destroying what they wait on, would hang in the child.
class PyBatchReader {
 public:
  PyBatchReader(const std::vector<std::string>& paths, const ReaderOptions& options, const py::dict& state) : process_(getpid()) {
    const StreamPosition start = position_of(state);
    const py::gil_scoped_release release;
    reader_ = std::make_unique<BatchReader>(paths, options, start);
  }

  ~PyBatchReader() {
    if (forked()) reader_.release();   // left to the end of the child
  }

  const BatchReader& reader() const { return *reader_; }

  py::tuple next() {
    if (forked())
      throw std::runtime_error("BatchReader: this process is a fork of the one that made the reader, and has none of its threads: make a reader of its own");
    PackedBatch batch;
    while (true) {
      const BatchReader::Outcome outcome = wait(batch);
      if (outcome == BatchReader::Outcome::kEnd) throw py::stop_iteration();
      if (outcome == BatchReader::Outcome::kBatch) break;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    const size_t capacity = reader_->options().tokens, most = reader_->options().max_sequences;
    return py::make_tuple(owning_array(std::move(batch.input_ids), capacity), owning_array(std::move(batch.token_type_ids), capacity),
                          owning_array(std::move(batch.position_ids), capacity), owning_array(std::move(batch.cu_seqlens), most + 1), batch.tokens,
                          batch.sequences);
  }

  py::dict state() const {
    if (forked()) throw std::runtime_error("BatchReader: state() in a fork of the process that made the reader");
    const StreamPosition position = reader_->position();
    py::dict state;
    state["epoch"] = position.epoch;
    state["window"] = position.window;
    state["bin"] = position.bin;
    return state;
  }

  py::dict statistics() const {
    if (forked()) throw std::runtime_error("BatchReader: statistics() in a fork of the process that made the reader");
    const ReaderStatistics statistics = reader_->statistics();
    py::dict result;
    result["batches"] = statistics.batches;
    result["sequences"] = statistics.sequences;
    result["tokens"] = statistics.tokens;
    result["fill"] = statistics.batches ? double(statistics.tokens) / (double(statistics.batches) * reader_->options().tokens) : 0.0;
    result["wait_seconds"] = statistics.wait_seconds;
    result["batches_per_epoch"] = reader_->estimated_batches_per_epoch();
    return result;
  }

  void close() {
    if (forked()) return;
    const py::gil_scoped_release release;
    reader_->close();
  }

 private:
  bool forked() const { return getpid() != process_; }

  // Without the GIL, but not by gil_scoped_release: when the interpreter has ended meanwhile, taking the GIL ends a daemon thread by unwinding its stack
  // (before Python 3.14), which must not start in a destructor.
  BatchReader::Outcome wait(PackedBatch& batch) {
    BatchReader::Outcome outcome{};
    std::exception_ptr failure;
    PyThreadState* const thread = PyEval_SaveThread();
    try {
      outcome = reader_->next(kPatience, batch);
    } catch (...) {
      failure = std::current_exception();
    }
    PyEval_RestoreThread(thread);
    if (failure) std::rethrow_exception(failure);
    return outcome;
  }

  pid_t process_;
  std::unique_ptr<BatchReader> reader_;
};

// [(examples, rate)] of the corpora, in the order of their shards.
std::vector<MixturePart> mixture_of(const std::vector<std::pair<uint64_t, uint64_t>>& parts) {
  std::vector<MixturePart> mixture;
  uint64_t begin = 0;
  for (const auto& [examples, rate] : parts) {
    mixture.push_back({begin, examples, rate});
    begin += examples;
  }
  return mixture;
}

KeyedPermutation permutation(uint64_t n, int64_t seed, uint64_t epoch, std::optional<uint64_t> window, std::optional<uint64_t> mixed, uint64_t corpus) {
  if (window) return {n, Shuffled::kBins, seed, epoch, *window};
  if (mixed) return {n, Shuffled::kMixture, seed, epoch, *mixed};
  return {n, Shuffled::kExamples, seed, epoch, corpus};
}

uint64_t permuted(const KeyedPermutation& permutation, uint64_t i) {
  if (i >= permutation.size()) throw py::index_error("KeyedPermutation: index " + std::to_string(i) + " of " + std::to_string(permutation.size()));
  return permutation(i);
}

py::tuple pack(const py::array_t<uint32_t, py::array::c_style | py::array::forcecast>& lengths, uint32_t tokens, uint32_t max_sequences) {
  if (lengths.ndim() != 1) throw std::invalid_argument("pack_window: lengths must have one dimension, got " + std::to_string(lengths.ndim()));
  if (max_sequences == 0) throw std::invalid_argument("pack_window: max_sequences must be at least 1, got 0");
  const Bins bins = pack_window({lengths.data(), size_t(lengths.size())}, tokens, max_sequences);
  return py::make_tuple(py::array_t<uint32_t>(py::ssize_t(bins.members.size()), bins.members.data()),
                        py::array_t<uint32_t>(py::ssize_t(bins.begins.size()), bins.begins.data()));
}

void raise_as(const char* name, const std::exception& error) {
  py::set_error(py::module_::import("electra_fast.errors").attr(name), error.what());
}

}  // namespace

void bind_reader(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const ShardError& error) {
      raise_as("ShardError", error);
    } catch (const CorpusError& error) {
      raise_as("CorpusError", error);
    }
  });

  py::class_<KeyedPermutation>(m, "KeyedPermutation", "The order of n examples in an epoch (corpus: their number in a mixture), or of the n bins of one of its windows, or (mixed) of the n\n"
                               "examples of a mixture in that window; computed, not stored.")
      .def(py::init(&permutation), py::arg("n"), py::kw_only(), py::arg("seed"), py::arg("epoch"), py::arg("window") = py::none(),
           py::arg("mixed") = py::none(), py::arg("corpus") = 0)
      .def("__len__", &KeyedPermutation::size)
      .def("__getitem__", &permuted);

  m.def("pack_window", &pack, py::arg("lengths"), py::kw_only(), py::arg("tokens"), py::arg("max_sequences"),
        "Best fit of examples of the given lengths, in order: (members [n], begins [bins + 1]), bin b holds members[begins[b]:begins[b + 1]].");

  py::class_<PyBatchReader>(m, "BatchReader", "Packed batches of token shards, filled ahead by threads; see electra_fast.data.batches.PackedBatches.")
      .def(py::init([](const std::vector<std::string>& paths, uint32_t tokens, uint32_t max_sequences, uint64_t window, int64_t seed, int64_t pad_id,
                       bool shuffle, uint64_t epochs, uint32_t rank, uint32_t world, uint32_t threads, uint32_t prefetch, const py::dict& state,
                       const std::vector<std::pair<uint64_t, uint64_t>>& mixture) {
             ReaderOptions options;
             options.tokens = tokens;
             options.max_sequences = max_sequences;
             options.window = window;
             options.seed = seed;
             options.shuffle = shuffle;
             options.epochs = epochs;
             options.rank = rank;
             options.world = world;
             options.pad_id = pad_id;
             options.threads = threads;
             options.prefetch = prefetch;
             options.mixture = mixture_of(mixture);
             return std::make_unique<PyBatchReader>(paths, options, state);
           }),
           py::arg("paths"), py::kw_only(), py::arg("tokens"), py::arg("max_sequences"), py::arg("window"), py::arg("seed"), py::arg("pad_id"),
           py::arg("shuffle"), py::arg("epochs"), py::arg("rank"), py::arg("world"), py::arg("threads"), py::arg("prefetch"), py::arg("state"),
           py::arg("mixture") = py::list())
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &PyBatchReader::next, "(input_ids, token_type_ids, position_ids, cu_seqlens, tokens, sequences)")
      .def("state", &PyBatchReader::state, "Position of the next undelivered batch, of all ranks: {epoch, window, bin}.")
      .def("statistics", &PyBatchReader::statistics)
      .def("close", &PyBatchReader::close, "Stop and join the threads; batches already delivered stay valid.")
      .def_property_readonly("examples", [](const PyBatchReader& self) { return self.reader().corpus().examples(); })
      .def_property_readonly("tokens", [](const PyBatchReader& self) { return self.reader().corpus().tokens(); })
      .def_property_readonly("longest", [](const PyBatchReader& self) { return self.reader().corpus().longest(); });
}

}  // namespace electra
