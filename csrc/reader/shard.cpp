#include "reader/shard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "reader/errors.h"

namespace electra {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and read in place");

constexpr char kMagic[9] = "EFSHARD1";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 64;
const char kAgain[] = ". Copy it again, or run prepare again with --overwrite";

struct Header {
  char magic[8];
  uint32_t version, token_bytes;
  uint64_t examples, tokens;
};

[[noreturn]] void unreadable(const std::string& path, const char* call) {
  const int code = errno;
  throw ShardError("shard " + path + (code == ENOENT ? " is missing" : std::string(" cannot be read: ") + call + ": " + std::strerror(code)) +
                   kAgain);
}

template <typename Token>
void widen(const void* tokens, uint64_t begin, uint32_t count, int64_t* out) {
  const Token* in = static_cast<const Token*>(tokens) + begin;
  for (uint32_t i = 0; i < count; ++i) out[i] = int64_t(in[i]);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) unreadable(path, "open");
  struct stat info {};
  if (::fstat(descriptor, &info) != 0) {
    ::close(descriptor);
    unreadable(path, "stat");
  }
  size_ = uint64_t(info.st_size);
  if (size_ > 0) {   // an empty file cannot be mapped; the reader of the header complains about it
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED) {
      const int code = errno;
      ::close(descriptor);
      errno = code;
      unreadable(path, "mmap");
    }
    data_ = static_cast<const unsigned char*>(mapped);
  }
  ::close(descriptor);   // the mapping stays
}

MappedFile::MappedFile(MappedFile&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<unsigned char*>(data_), size_);
}

Shard::Shard(const std::string& path) : path_(path), file_(path) {
  read_header();
  check_examples();
}

void Shard::damaged(const std::string& what) const { throw ShardError("shard " + path_ + " is damaged: " + what + kAgain); }

void Shard::read_header() {
  if (file_.size() < kHeaderBytes)
    damaged(std::to_string(file_.size()) + " bytes, shorter than its header of " + std::to_string(kHeaderBytes));
  Header header;
  std::memcpy(&header, file_.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof header.magic) != 0) damaged(std::string("expected it to begin with ") + kMagic);
  if (header.version != kVersion)
    throw ShardError("shard " + path_ + " has format version " + std::to_string(header.version) + ", this electra_fast reads version " +
                     std::to_string(kVersion) + ". Run prepare again with --overwrite");
  if (header.token_bytes != 2 && header.token_bytes != 4) damaged(std::to_string(header.token_bytes) + " bytes per token, expected 2 or 4");
  // No product below overflows: each count is first compared with what the file could hold.
  const bool plausible = header.examples < file_.size() / 12 && header.tokens <= file_.size() / header.token_bytes;
  const uint64_t expected =
      plausible ? kHeaderBytes + 8 * (header.examples + 1) + 4 * header.examples + header.token_bytes * header.tokens : 0;
  if (file_.size() != expected)
    throw ShardError("shard " + path_ + " is truncated or damaged: its header announces " + std::to_string(header.examples) +
                     " examples of together " + std::to_string(header.tokens) + " tokens" +
                     (plausible ? ", which take " + std::to_string(expected) + " bytes" : std::string()) + ", the file has " +
                     std::to_string(file_.size()) + " bytes" + kAgain);
  examples_ = header.examples;
  tokens_ = header.tokens;
  token_bytes_ = header.token_bytes;
  const unsigned char* at = file_.data() + kHeaderBytes;
  offsets_ = reinterpret_cast<const uint64_t*>(at);
  at += 8 * (examples_ + 1);
  first_segments_ = reinterpret_cast<const uint32_t*>(at);
  token_data_ = at + 4 * examples_;
}

// Every later read of the mapping relies on this: offsets ascend from 0 to the number of tokens, and a first segment ends inside its example.
void Shard::check_examples() {
  if (offsets_[0] != 0 || offsets_[examples_] != tokens_) damaged("its offsets do not span its " + std::to_string(tokens_) + " tokens");
  for (uint64_t i = 0; i < examples_; ++i) {
    const uint64_t begin = offsets_[i], end = offsets_[i + 1];
    if (end <= begin || end - begin > uint64_t(std::numeric_limits<int32_t>::max()))
      damaged("example " + std::to_string(i) + " reaches from token " + std::to_string(begin) + " to " + std::to_string(end));
    const uint32_t length = uint32_t(end - begin);
    if (first_segments_[i] > length)
      damaged("the first segment of example " + std::to_string(i) + " has " + std::to_string(first_segments_[i]) + " tokens, the example " +
              std::to_string(length));
    if (length > longest_) {
      longest_ = length;
      longest_example_ = i;
    }
  }
}

void Shard::copy_tokens(uint64_t example, int64_t* out) const {
  const uint64_t begin = offsets_[example];
  if (token_bytes_ == 2)
    widen<uint16_t>(token_data_, begin, length(example), out);
  else
    widen<uint32_t>(token_data_, begin, length(example), out);
}

}  // namespace electra
