// What can be wrong with a prepared corpus; csrc/bindings/reader.cpp turns these into the exceptions of electra_fast/errors.py.
#pragma once
#include <stdexcept>

namespace electra {

// A file that is missing, truncated, damaged or of another format version.
struct ShardError : std::runtime_error { using std::runtime_error::runtime_error; };

// Whole files whose content cannot be packed as asked.
struct CorpusError : std::runtime_error { using std::runtime_error::runtime_error; };

}  // namespace electra
