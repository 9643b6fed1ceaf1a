#include "reader/corpus.h"

#include <algorithm>
#include <numeric>

#include "reader/errors.h"

namespace electra {

Corpus::Corpus(const std::vector<std::string>& paths, uint32_t longest_allowed) {
  shards_.reserve(paths.size());
  for (const std::string& path : paths) {
    const Shard& shard = shards_.emplace_back(path);
    if (shard.longest() > longest_allowed)
      throw CorpusError("example " + std::to_string(shard.longest_example()) + " of shard " + path + " has " + std::to_string(shard.longest()) +
                        " tokens, more than the " + std::to_string(longest_allowed) + " of a batch: raise tokens to at least " +
                        std::to_string(shard.longest()) + ", or prepare the corpus with a smaller maximal length");
    begins_.push_back(begins_.back() + shard.examples());
    tokens_ += shard.tokens();
    longest_ = std::max(longest_, shard.longest());
  }
  if (examples() == 0)
    throw CorpusError(paths.empty() ? "no shard was given: the corpus is empty"
                                    : "the " + std::to_string(paths.size()) + " shards hold no example, the first of them is " + paths.front());
}

size_t Corpus::shard_of(uint64_t example) const {
  return size_t(std::upper_bound(begins_.begin(), begins_.end(), example) - begins_.begin()) - 1;
}

uint32_t Corpus::length(uint64_t example) const {
  const size_t shard = shard_of(example);
  return shards_[shard].length(example - begins_[shard]);
}

void Corpus::copy_example(uint64_t example, int64_t* ids, int64_t* token_types, int64_t* positions) const {
  const size_t index = shard_of(example);
  const Shard& shard = shards_[index];
  const uint64_t local = example - begins_[index];
  const uint32_t length = shard.length(local), first = shard.first_segment(local);
  shard.copy_tokens(local, ids);
  std::fill_n(token_types, first, int64_t(0));
  std::fill(token_types + first, token_types + length, int64_t(1));
  std::iota(positions, positions + length, int64_t(0));
}

}  // namespace electra
