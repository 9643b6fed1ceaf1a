// Memory of the emulated GPU: poison, bounds, alignment, races. Every access of a kernel comes here, since g++ calls the functions of the thread sanitizer
// (at the end of this file) before each.
#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulation/machine.h"
#include "emulation/tensors.h"

namespace electra::emulation {

using Address = uintptr_t;
static Address address(const void* p) { return reinterpret_cast<Address>(p); }

struct Range {
  Address begin = 0, end = 0;
  bool holds(Address p, size_t bytes) const { return p >= begin && p + bytes <= end; }
  size_t size() const { return end - begin; }
};

extern "C" void* __tls_get_addr(void*);   // of the dynamic linker

static Range stacks, dynamic_range, static_range, image;   // dynamic_range: of all blocks that run together, one after the other
static size_t dynamic_bytes, dynamic_pitch;                 // of one block, and to the next

// --- where things are

static void* map_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  return p;
}

unsigned char* fiber_stacks(size_t fibers) {
  if (stacks.size() < fibers * stack_bytes) {
    if (stacks.size()) munmap(reinterpret_cast<void*>(stacks.begin), stacks.size());
    void* p = map_pages(fibers * stack_bytes);
    stacks = {address(p), address(p) + fibers * stack_bytes};
  }
  return reinterpret_cast<unsigned char*>(stacks.begin);
}

// The loaded image of the library that holds the kernel, and its thread-local area, which is the static shared memory of all kernels in it.
static int find_library(dl_phdr_info* info, size_t, void* code) {
  Range loaded;
  size_t local_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = info->dlpi_phdr[i];
    const Address begin = info->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD) {
      loaded.begin = loaded.begin ? loaded.begin : begin;
      loaded.end = begin + part.p_memsz;
    }
    if (part.p_type == PT_TLS) local_bytes = part.p_memsz;
  }
  if (!loaded.holds(address(code), 1)) return 0;
  image = loaded;
  static_range = {};
  if (local_bytes) {
    struct { unsigned long module, offset; } first = {info->dlpi_tls_modid, 0};
    const Address begin = address(__tls_get_addr(&first));   // makes the area, if this thread has not touched it yet
    static_range = {begin, begin + local_bytes};
  }
  return 1;
}

void find_kernel(const void* code) { dl_iterate_phdr(find_library, const_cast<void*>(code)); }
size_t static_shared_bytes() { return static_range.size(); }

// --- what was done to shared memory since the block began, for every two bytes of it

struct Accesses {
  uint64_t run = 0;            // of which run of blocks this is told
  Time written = 0;            // 0: not written
  int16_t writer = 0;          // the thread, or the number of threads + an agent's number among the asynchronous ones
  uint16_t being_read = 0;     // by asynchronous operations under way
  bool in_flight = false;      // the target of an asynchronous copy that has not arrived
  uint64_t readers = 0;        // warps that have read it since
};
static constexpr size_t granule = 2;
static Accesses* accesses;
static Time* read_times;        // [granules][warps]: the last read
static int16_t* read_threads;   // [granules][warps]: by whom; -1 if by several lanes with no barrier between
static size_t capacity, columns;
static uint64_t runs_begun;

template <class T> static void grow(T*& array, size_t n) {
  std::free(array);
  array = static_cast<T*>(std::calloc(n, sizeof(T)));
  if (!array) std::abort();
}

static unsigned char* dynamic_memory;   // in pages of its own: nothing else lies within `margin` of it
static size_t dynamic_capacity;
static constexpr size_t margin = 4096;

void swap_static_shared(Block* to) {
  if (!static_range.size()) return;
  unsigned char* place = reinterpret_cast<unsigned char*>(static_range.begin);
  if (machine.resident) machine.resident->statics.assign(place, place + static_range.size());
  std::memcpy(place, to->statics.data(), static_range.size());
  machine.resident = to;
}

void prepare_shared_memory(size_t bytes) {
  const size_t blocks = machine.blocks.size(), warps = machine.warps.size();
  dynamic_bytes = bytes;
  dynamic_pitch = (bytes + margin + 1023) & ~size_t(1023);   // apart, so that leaving one is not entering the next
  if (dynamic_capacity < dynamic_pitch * blocks) {
    if (dynamic_memory) munmap(dynamic_memory - margin, dynamic_capacity + 2 * margin);
    dynamic_capacity = dynamic_pitch * blocks;
    dynamic_memory = static_cast<unsigned char*>(map_pages(dynamic_capacity + 2 * margin)) + margin;
  }
  dynamic_range = {address(dynamic_memory), address(dynamic_memory) + dynamic_pitch * blocks};
  for (Block& block : machine.blocks) {
    block.dynamic = dynamic_memory + block.rank * dynamic_pitch;
    std::memset(block.dynamic, 0xff, bytes);   // NaN in every floating-point type
    block.statics.assign(static_range.size(), 0xff);
  }
  machine.resident = nullptr;
  const size_t granules = (dynamic_range.size() + static_range.size() * blocks) / granule + 2;
  if (capacity < granules || columns != warps) {
    capacity = capacity > granules ? capacity : granules;
    columns = warps;
    grow(accesses, capacity);
    grow(read_times, capacity * columns);
    grow(read_threads, capacity * columns);
  }
  ++runs_begun;
}

// The block in whose dynamic shared memory the bytes lie, or null.
static const Block* block_of(Address p, size_t bytes) {
  if (!dynamic_range.holds(p, bytes)) return nullptr;
  const Block& block = machine.blocks[(p - dynamic_range.begin) / dynamic_pitch];
  return p + bytes <= address(block.dynamic) + dynamic_bytes ? &block : nullptr;
}

bool in_shared(const void* p, size_t bytes) { return block_of(address(p), bytes) == machine.running->block || static_range.holds(address(p), bytes); }

ptrdiff_t dynamic_offset(const void* p) {
  return block_of(address(p), 1) == machine.running->block ? static_cast<const unsigned char*>(p) - machine.running->block->dynamic : -1;
}

unsigned char* in_block(const void* p, int rank) {
  const ptrdiff_t offset = dynamic_offset(p);
  if (offset < 0) fail("%p is not in this block's dynamic shared memory (static is not mapped in the emulator)", p);
  if (rank < 0 || rank >= int(machine.blocks.size())) fail("block %d of a cluster of %zu", rank, machine.blocks.size());
  return machine.blocks[rank].dynamic + offset;
}

[[noreturn]] static void report_race(Address p, bool write, const char* before, int thread) {
  const Block* block = block_of(p, 1);
  const int threads = int(machine.fibers.size());
  char other[120] = "several threads";
  if (thread >= threads) std::snprintf(other, sizeof other, "an asynchronous copy");
  if (thread >= 0 && thread < threads) {
    const Fiber& f = machine.fibers[thread];
    const uint3 b = f.block->index;
    std::snprintf(other, sizeof other, "thread (%u, %u, %u)", f.index.x, f.index.y, f.index.z);
    if (f.block != machine.running->block) std::snprintf(other + std::strlen(other), 60, " of block (%u, %u, %u)", b.x, b.y, b.z);
  }
  fail("race: %s byte %zu of %s shared memory, %s by %s, with no barrier between", write ? "writes" : "reads",
       size_t(p - (block ? address(block->dynamic) : static_range.begin)), block ? "dynamic" : "static", before, other);
}

static size_t offset_in_shared(Address p) {
  if (dynamic_range.holds(p, 1)) return p - dynamic_range.begin;
  return dynamic_range.size() + machine.resident->rank * static_range.size() + (p - static_range.begin);
}

static Accesses& accesses_of(size_t g) {
  if (accesses[g].run != runs_begun) accesses[g] = {.run = runs_begun};
  return accesses[g];
}

template <class F> static void for_each_granule(const void* shared, size_t bytes, F f) {
  const size_t first = offset_in_shared(address(shared)) / granule;
  for (size_t g = first; g < first + bytes / granule; ++g) f(accesses_of(g));
}

void mark_in_flight(const void* shared, size_t bytes, bool in_flight) {
  for_each_granule(shared, bytes, [=](Accesses& a) { a.in_flight = in_flight; });
}

void mark_being_read(const void* shared, size_t bytes, int more) {
  for_each_granule(shared, bytes, [=](Accesses& a) { a.being_read = uint16_t(a.being_read + more); });
}

void mark_arrived(const void* shared, size_t bytes, int agent) {
  for_each_granule(shared, bytes, [=](Accesses& a) {
    a.in_flight = false;
    a.written = machine.now;
    a.writer = int16_t(machine.fibers.size() + agent - machine.warps.size());
    a.readers = 0;
  });
}

void check_async_proxy(const void* shared, size_t bytes, const char* what) {
  const Fiber& self = *machine.running;
  const int threads = int(machine.fibers.size());
  for_each_granule(shared, bytes, [&](Accesses& a) {
    if (!a.written || a.writer >= threads) return;
    if (machine.fibers[a.writer].last_async_fence < a.written && self.last_async_fence < a.written)
      fail("%s reads shared memory that thread %d wrote: fence_async_proxy is missing after the write", what, a.writer);
  });
}

static int agent_of(int thread) {
  const int threads = int(machine.fibers.size());
  return thread < threads ? machine.fibers[thread].warp : int(machine.warps.size()) + thread - threads;
}

// Whether the running thread knows of what another did at `when`.
static bool ordered(int thread, Time when) {
  const Fiber& self = *machine.running;
  if (thread == self.number) return true;
  const int agent = agent_of(thread);
  const Warp& mine = machine.warps[self.warp];
  return agent == self.warp ? when <= mine.last_sync : when <= mine.knowledge.known[agent];
}

static void check_race(Address p, size_t bytes, bool write) {
  const Fiber& self = *machine.running;
  const Warp& mine = machine.warps[self.warp];
  const size_t offset = offset_in_shared(p);
  for (size_t g = offset / granule; g < (offset + bytes) / granule; ++g) {
    Accesses& a = accesses_of(g);
    Time* times = read_times + g * columns;
    int16_t* threads = read_threads + g * columns;
    const Address at = p + g * granule - offset;
    if (a.in_flight) fail("%s shared memory that an asynchronous copy is still on its way to: a wait is missing", write ? "writes" : "reads");
    if (write && a.being_read) fail("writes shared memory that an asynchronous operation still reads: a wait is missing");
    if (a.written && !ordered(a.writer, a.written)) report_race(at, write, "written", a.writer);
    if (write) {
      for (uint64_t rest = a.readers; rest; rest &= rest - 1) {
        const int w = __builtin_ctzll(rest);
        const bool known = w != self.warp ? times[w] <= mine.knowledge.known[w] : threads[w] == self.number || times[w] <= mine.last_sync;
        if (!known) report_race(at, true, "read", threads[w]);
      }
      a.written = machine.now;
      a.writer = int16_t(self.number);
      a.readers = 0;
    } else {
      const bool unordered_before = a.readers >> self.warp & 1 && times[self.warp] > mine.last_sync && threads[self.warp] != self.number;
      threads[self.warp] = unordered_before ? int16_t(-1) : int16_t(self.number);
      times[self.warp] = machine.now;
      a.readers |= uint64_t(1) << self.warp;
    }
  }
}

// --- the check of one access

[[noreturn]] static void report_outside(Address p, size_t bytes, bool write) {
  const char* verb = write ? "writes" : "reads";
  if (p + bytes > dynamic_range.begin - margin && p < dynamic_range.end + margin) {
    const ptrdiff_t offset = ptrdiff_t(p - address(machine.running->block->dynamic));
    fail("%s %zu bytes at byte %td of the %zu bytes of dynamic shared memory", verb, bytes, offset, dynamic_bytes);
  }
  size_t size;
  ptrdiff_t offset;
  if (nearest_tensor(p, size, offset)) fail("%s %zu bytes at byte %td of a tensor of %zu bytes", verb, bytes, offset, size);
  fail("%s %zu bytes at %p, which is no memory of a tensor", verb, bytes, reinterpret_cast<void*>(p));
}

void check(const void* pointer, size_t bytes, size_t alignment, bool write, bool racing) {
  const Address p = address(pointer);
  if (!machine.running || bytes == 0 || stacks.holds(p, bytes)) return;
  if (p & (alignment - 1)) fail("%s %zu bytes at %p, which is not aligned to %zu", write ? "writes" : "reads", bytes, pointer, alignment);
  const Block* block = block_of(p, bytes);
  if (block && block->live == 0) fail("%s shared memory of block %d of the cluster, which has ended", write ? "writes" : "reads", block->rank);
  if (block || static_range.holds(p, bytes)) {
    if (racing && bytes >= granule) check_race(p, bytes, write);
    return;
  }
  if (in_tensor(p, bytes)) return;
  if (image.holds(p, bytes) && !write) return;   // constants
  const Address frames = address(machine.main_stack_pointer);
  if (p >= frames && p + bytes <= frames + (64 << 10) && !write) return;   // the kernel's arguments
  report_outside(p, bytes, write);
}

void check_read(const void* p, size_t bytes, size_t alignment) { check(p, bytes, alignment, false, true); }
void check_write(const void* p, size_t bytes, size_t alignment) { check(p, bytes, alignment, true, true); }
void check_atomic(const void* p, size_t bytes) { ELECTRA_ENTERED(), check(p, bytes, bytes, true, false); }

// --- where in the source

// "file:line" of an address in this library and of what it was inlined into, by addr2line where that is installed.
std::string source_of(const void* code) {
  Dl_info library;
  if (!code || !dladdr(code, &library)) return "";
  char command[1200];
  std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' %#zx 2>/dev/null", library.dli_fname, size_t(address(code) - address(library.dli_fbase) - 1));
  std::string lines;
  if (FILE* pipe = popen(command, "r")) {
    char line[400];
    while (std::fgets(line, sizeof line, pipe)) lines += std::string(lines.empty() ? "\n  at " : ", inlined into ") + std::string(line, std::strcspn(line, " \n"));
    pclose(pipe);
  }
  return lines;
}

}  // namespace electra::emulation

// --- what g++ -fsanitize=bounds calls for an index outside an array of known size.
struct SourceLocation { const char* file; uint32_t line, column; };
struct TypeDescriptor { uint16_t kind, info; char name[1]; };
struct OutOfBounds { SourceLocation where; const TypeDescriptor *array, *index; };
extern "C" void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, uintptr_t index) {
  if (!electra::emulation::machine.running) std::abort();
  electra::emulation::machine.caller = nullptr;
  electra::emulation::fail("index %td is outside the array of type %s at %s:%u", ptrdiff_t(index), data->array->name, data->where.file, data->where.line);
}

// --- what g++ -fsanitize=thread calls. A plain access of n bytes is aligned to n by its type, and so it must be.
extern "C" {
using namespace electra::emulation;
#define ELECTRA_HOOK(name, bytes, alignment, write) void name(void* p) { ELECTRA_ENTERED(); check(p, bytes, alignment, write, true); }
ELECTRA_HOOK(__tsan_read1, 1, 1, false)
ELECTRA_HOOK(__tsan_read2, 2, 2, false)
ELECTRA_HOOK(__tsan_read4, 4, 4, false)
ELECTRA_HOOK(__tsan_read8, 8, 8, false)
ELECTRA_HOOK(__tsan_read16, 16, 16, false)
ELECTRA_HOOK(__tsan_write1, 1, 1, true)
ELECTRA_HOOK(__tsan_write2, 2, 2, true)
ELECTRA_HOOK(__tsan_write4, 4, 4, true)
ELECTRA_HOOK(__tsan_write8, 8, 8, true)
ELECTRA_HOOK(__tsan_write16, 16, 16, true)
ELECTRA_HOOK(__tsan_unaligned_read2, 2, 1, false)
ELECTRA_HOOK(__tsan_unaligned_read4, 4, 1, false)
ELECTRA_HOOK(__tsan_unaligned_read8, 8, 1, false)
ELECTRA_HOOK(__tsan_unaligned_read16, 16, 1, false)
ELECTRA_HOOK(__tsan_unaligned_write2, 2, 1, true)
ELECTRA_HOOK(__tsan_unaligned_write4, 4, 1, true)
ELECTRA_HOOK(__tsan_unaligned_write8, 8, 1, true)
ELECTRA_HOOK(__tsan_unaligned_write16, 16, 1, true)
void __tsan_read_range(void* p, size_t bytes) { ELECTRA_ENTERED(); check(p, bytes, 1, false, true); }
void __tsan_write_range(void* p, size_t bytes) { ELECTRA_ENTERED(); check(p, bytes, 1, true, true); }
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
