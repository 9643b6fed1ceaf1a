// One token shard, memory-mapped and checked when it is opened (docs/design.md, "Token shards").
#pragma once
#include <cstdint>
#include <string>

namespace electra {

// A whole file, mapped read-only. Movable, so that shards can live in a vector.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  const unsigned char* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  const unsigned char* data_ = nullptr;
  uint64_t size_ = 0;
};

class Shard {
 public:
  // Reads header, offsets and segment lengths, not the tokens. Throws ShardError if the file is no whole shard.
  explicit Shard(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t examples() const { return examples_; }
  uint64_t tokens() const { return tokens_; }
  uint32_t longest() const { return longest_; }
  uint64_t longest_example() const { return longest_example_; }

  uint32_t length(uint64_t example) const { return uint32_t(offsets_[example + 1] - offsets_[example]); }
  uint32_t first_segment(uint64_t example) const { return first_segments_[example]; }
  void copy_tokens(uint64_t example, int64_t* out) const;

 private:
  void read_header();
  void check_examples();
  [[noreturn]] void damaged(const std::string& what) const;

  std::string path_;
  MappedFile file_;
  uint64_t examples_ = 0, tokens_ = 0, longest_example_ = 0;
  uint32_t token_bytes_ = 0, longest_ = 0;
  const uint64_t* offsets_ = nullptr;          // [examples + 1]
  const uint32_t* first_segments_ = nullptr;   // [examples]
  const void* token_data_ = nullptr;           // uint16 or uint32 [tokens]
};

}  // namespace electra
