// The shards of one split as one numbered sequence of examples.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "reader/shard.h"

namespace electra {

class Corpus {
 public:
  // Throws ShardError if a shard is damaged, CorpusError if there is no example or one is longer than `longest_allowed`.
  Corpus(const std::vector<std::string>& paths, uint32_t longest_allowed);

  uint64_t examples() const { return begins_.back(); }
  uint64_t tokens() const { return tokens_; }
  uint32_t longest() const { return longest_; }

  uint32_t length(uint64_t example) const;
  // Writes ids, segments and positions of one example, length(example) of each.
  void copy_example(uint64_t example, int64_t* ids, int64_t* token_types, int64_t* positions) const;

 private:
  size_t shard_of(uint64_t example) const;

  std::vector<Shard> shards_;
  std::vector<uint64_t> begins_{0};   // number of the first example of each shard, and the count of all
  uint64_t tokens_ = 0;
  uint32_t longest_ = 0;
};

}  // namespace electra
