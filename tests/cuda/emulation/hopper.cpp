// mbarriers, the tensor memory accelerator, clusters.
#include "emulation/hopper.h"

#include <cstdio>
#include <cstring>

#include "emulation/machine.h"

namespace electra::emulation {

// --- mbarriers

static MbarrierState& state_of(void* barrier, const char* what) {
  const auto found = machine.mbarriers.find(barrier);
  if (found == machine.mbarriers.end()) fail("%s: there is no initialised mbarrier at %p", what, barrier);
  return found->second;
}

void mbarrier_init(void* barrier, uint32_t arrivals) {
  ELECTRA_ENTERED();
  if (!in_shared(barrier, 8)) fail("mbarrier_init: %p is not in shared memory", barrier);
  if (machine.blocks.size() > 1 && dynamic_offset(barrier) < 0) fail("mbarrier_init: in a cluster the emulator wants mbarriers in dynamic shared memory");
  if (arrivals < 1 || arrivals >= 1 << 20) fail("mbarrier_init: %u arrivals, must be 1 to 2^20 - 1", arrivals);
  check_write(barrier, 8, 8);
  MbarrierState& state = machine.mbarriers[barrier];
  state = {arrivals, arrivals, 0, 0, {}, {}, {}};
  state.gathering.reset(machine.agents());
  state.complete.reset(machine.agents());
}

static void complete_if_full(MbarrierState& state) {
  if (state.pending || state.bytes) return;
  ++state.phase;
  state.pending = state.expected;
  state.complete = state.gathering;
  for (Fiber* fiber : state.waiting) make_ready(*fiber);
  state.waiting.clear();
}

// An ordinary access to the barrier's own memory orders nothing; it must have been initialised before, as the others know.
void mbarrier_arrive(void* barrier, int64_t bytes_expected, int rank) {
  ELECTRA_ENTERED();
  if (rank >= 0) barrier = in_block(barrier, rank);
  else check_read(barrier, 8, 8);
  if (rank >= 0 && machine.blocks[rank].live == 0) fail("mbarrier_arrive: block %d of the cluster has ended", rank);
  MbarrierState& state = state_of(barrier, "mbarrier_arrive");
  if (state.pending == 0) fail("mbarrier_arrive: more arrivals than the %lld of a phase", (long long)state.expected);
  state.gathering.merge(warp_of(*machine.running).knowledge);
  state.gathering.known[machine.running->warp] = machine.now++;
  state.bytes += bytes_expected;
  --state.pending;
  complete_if_full(state);
}

void mbarrier_wait(void* barrier, uint32_t parity) {
  ELECTRA_ENTERED();
  check_read(barrier, 8, 8);
  if (parity > 1) fail("mbarrier_wait: parity %u, must be 0 or 1", parity);
  MbarrierState& state = state_of(barrier, "mbarrier_wait");
  while ((state.phase & 1) == parity) {
    state.waiting.push_back(machine.running);
    suspend();
  }
  warp_of(*machine.running).knowledge.merge(state.complete);
}

void fence_async_proxy() { machine.running->last_async_fence = machine.now++; }

std::string who_waits_at_mbarriers() {
  std::string text;
  for (const auto& [barrier, state] : machine.mbarriers)
    if (!state.waiting.empty()) {
      char line[200];
      std::snprintf(line, sizeof line, "\n  mbarrier %p: %zu threads wait for phase %u, which lacks %lld of %lld arrivals and %lld bytes", barrier,
                    state.waiting.size(), state.phase, (long long)state.pending, (long long)state.expected, (long long)state.bytes);
      text += line;
    }
  return text;
}

// --- loads

static void perform(const std::vector<Run>& runs) {
  for (const Run& run : runs) {
    if (run.from) std::memcpy(run.to, run.from, run.bytes);
    else std::memset(run.to, 0, run.bytes);
  }
}

static int async_agent(const Block& block) { return int(machine.warps.size()) + block.rank; }

static void start_load(std::vector<Run> runs, void* barrier, int64_t bytes, const Block& to) {
  for (const Run& run : runs) {
    check_write(run.to, run.bytes, 1);   // by the thread that asks: whoever used the place before must be done, as it knows
    mark_in_flight(run.to, run.bytes, true);
    std::memset(run.to, 0xff, run.bytes);
  }
  state_of(barrier, "an asynchronous load");
  machine.loads.push_back({std::move(runs), barrier, bytes, async_agent(to)});
}

bool deliver_a_load() {
  if (machine.loads.empty()) return false;
  size_t chosen = 0;
  if (machine.schedule == Schedule::reverse) chosen = machine.loads.size() - 1;
  if (machine.schedule == Schedule::random) chosen = random_number() % machine.loads.size();
  const AsyncLoad load = std::move(machine.loads[chosen]);
  machine.loads.erase(machine.loads.begin() + ptrdiff_t(chosen));
  perform(load.runs);
  for (const Run& run : load.runs) mark_arrived(run.to, run.bytes, load.agent);
  MbarrierState& state = machine.mbarriers[load.barrier];
  state.gathering.known[load.agent] = machine.now++;
  state.bytes -= load.bytes;
  complete_if_full(state);
  return true;
}

// --- tensors

constexpr uint64_t magic = 0x454c45435452414dull;

cudaError_t encode(TensorMap& map) {
  char text[200] = "";
  const auto complain = [&](const char* what, long long value) { std::snprintf(text, sizeof text, "make_tensor_map: %s, got %lld", what, value); };
  const int row = int(map.box[0]) * map.element;
  if (map.dims != 2 && map.dims != 3) complain("2 or 3 dimensions", map.dims);
  if (reinterpret_cast<uintptr_t>(map.data) % 16) complain("data must be aligned to 16 bytes", (long long)(reinterpret_cast<uintptr_t>(map.data) % 16));
  for (int i = 0; i < map.dims; ++i) {
    if (map.size[i] < 1 || map.size[i] > uint64_t(1) << 32) complain("sizes must be 1 to 2^32", (long long)map.size[i]);
    if (map.box[i] < 1 || map.box[i] > 256) complain("a box must have 1 to 256 elements a dimension", map.box[i]);
    if (i && (map.stride[i] % 16 || map.stride[i] >= uint64_t(1) << 40)) complain("strides must be multiples of 16 bytes below 2^40", (long long)map.stride[i]);
  }
  if (row % 16) complain("a row of the box must be a multiple of 16 bytes", row);
  if (map.swizzle_bits && row > 16 << map.swizzle_bits) complain("a row of the box must not be longer than the swizzle", row);
  if (text[0]) {
    machine.error = text;
    return cudaErrorInvalidValue;
  }
  map.magic = magic;
  return cudaSuccess;
}

static uintptr_t swizzled(uintptr_t address, int bits) { return address ^ ((address >> 7 & ((1u << bits) - 1)) << 4); }

// The rows of a box in pieces of 16 bytes: `shared` place, offset in the tensor (or outside). F(shared, data or null).
template <class F> static void for_each_piece(const TensorMap& map, const void* shared, const char* what, int dims, const int (&at)[3], F f) {
  if (map.magic != magic) fail("%s: the tensor map is none of make_tensor_map's", what);
  if (map.dims != dims) fail("%s: %d coordinates for a tensor of %d dimensions", what, dims, map.dims);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(shared);
  const size_t row = size_t(map.box[0]) * map.element, bytes = row * map.box[1] * map.box[2];
  if (begin % 128) fail("%s: shared address %p is not aligned to 128 bytes", what, shared);
  if (!in_shared(shared, bytes)) fail("%s: a box of %zu bytes at %p leaves shared memory (byte %td of its dynamic part)", what, bytes, shared, dynamic_offset(shared));
  size_t offset = 0;
  for (uint32_t k = 0; k < map.box[2]; ++k)
    for (uint32_t j = 0; j < map.box[1]; ++j)
      for (size_t i = 0; i < row; i += 16, offset += 16) {
        const int64_t y = int64_t(at[1]) + j, z = int64_t(at[2]) + k;
        const bool row_inside = y >= 0 && y < int64_t(map.size[1]) && z >= 0 && z < int64_t(map.size[2]);
        f(reinterpret_cast<unsigned char*>(swizzled(begin + offset, map.swizzle_bits)), row_inside ? map.data + y * map.stride[1] + z * map.stride[2] : nullptr,
          int64_t(at[0]) * map.element + int64_t(i));
      }
}

static std::vector<Run> box_to_load(void* shared, const TensorMap& map, int dims, const int (&at)[3], int64_t& bytes) {
  std::vector<Run> runs;
  const int64_t row_bytes = int64_t(map.size[0]) * map.element;
  bytes = 0;
  for_each_piece(map, shared, "tma_load", dims, at, [&](unsigned char* to, const unsigned char* row, int64_t at) {
    const bool whole = row && at >= 0 && at + 16 <= row_bytes;
    for (int64_t e = 0, step = whole ? 16 : map.element; e < 16; e += step) {
      const bool inside = row && at + e >= 0 && at + e < row_bytes;
      if (inside) check_read(row + at + e, step, map.element);
      runs.push_back({to + e, inside ? row + at + e : nullptr, size_t(step)});
    }
    bytes += 16;
  });
  return runs;
}

void tma_load(void* shared, const TensorMap& map, void* barrier, int dims, int x, int y, int z) {
  ELECTRA_ENTERED();
  int64_t bytes;
  std::vector<Run> runs = box_to_load(shared, map, dims, {x, y, z}, bytes);
  start_load(std::move(runs), barrier, bytes, *machine.running->block);
}

void tma_load_multicast(void* shared, const TensorMap& map, void* barrier, int x, int y, uint32_t blocks) {
  ELECTRA_ENTERED();
  if (blocks == 0 || blocks >> machine.blocks.size()) fail("tma_load_2d_multicast: blocks 0x%x of a cluster of %zu", blocks, machine.blocks.size());
  int64_t bytes;
  const std::vector<Run> runs = box_to_load(shared, map, 2, {x, y, 0}, bytes);
  for (int rank = 0; rank < int(machine.blocks.size()); ++rank) {
    if (!(blocks >> rank & 1)) continue;
    if (machine.blocks[rank].live == 0) fail("tma_load_2d_multicast: block %d of the cluster has ended", rank);
    std::vector<Run> there = runs;
    for (Run& run : there) run.to = in_block(run.to, rank);
    start_load(std::move(there), in_block(barrier, rank), bytes, machine.blocks[rank]);
  }
}

void bulk_load(void* shared, const void* global, uint32_t bytes, void* barrier) {
  ELECTRA_ENTERED();
  if (bytes % 16 || bytes == 0) fail("bulk_load: %u bytes, must be a multiple of 16", bytes);
  if (!in_shared(shared, bytes)) fail("bulk_load: the target %p (%u bytes) is not in shared memory", shared, bytes);
  check_read(global, bytes, 16);
  check_write(shared, bytes, 16);
  start_load({{shared, global, bytes}}, barrier, bytes, *machine.running->block);
}

// --- stores

static void start_store(BulkStore store, const char* what) {
  check_read(store.shared, store.shared_bytes, 16);
  check_async_proxy(store.shared, store.shared_bytes, what);
  mark_being_read(store.shared, store.shared_bytes, 1);
  machine.running->open_bulk.push_back(std::move(store));
}

void tma_store(const TensorMap& map, const void* shared, int dims, int x, int y, int z) {
  ELECTRA_ENTERED();
  BulkStore store{{}, shared, 0, false};
  const int64_t row_bytes = int64_t(map.size[0]) * map.element;
  for_each_piece(map, shared, "tma_store", dims, {x, y, z}, [&](unsigned char* from, const unsigned char* row, int64_t at) {
    for (int64_t e = 0; e < 16; e += map.element)
      if (row && at + e >= 0 && at + e < row_bytes) {
        check_write(row + at + e, map.element, map.element);
        store.runs.push_back({const_cast<unsigned char*>(row + at + e), from + e, size_t(map.element)});
      }
    store.shared_bytes += 16;
  });
  start_store(std::move(store), "tma_store");
}

void bulk_store(void* global, const void* shared, uint32_t bytes) {
  ELECTRA_ENTERED();
  if (bytes % 16 || bytes == 0) fail("bulk_store: %u bytes, must be a multiple of 16", bytes);
  if (!in_shared(shared, bytes)) fail("bulk_store: the source %p (%u bytes) is not in shared memory", shared, bytes);
  check_write(global, bytes, 16);
  start_store({{{global, shared, bytes}}, shared, bytes, false}, "bulk_store");
}

void bulk_commit() {
  Fiber& self = *machine.running;
  self.committed_bulk.push_back(std::move(self.open_bulk));
  self.open_bulk.clear();
}

// A store is performed when it is waited for, as late as can be.
void bulk_wait(int groups_left, bool read_only) {
  ELECTRA_ENTERED();
  Fiber& self = *machine.running;
  const int done = int(self.committed_bulk.size()) - groups_left;
  for (int i = 0; i < done; ++i)
    for (BulkStore& store : self.committed_bulk[i]) {
      if (store.read) continue;
      store.read = true;
      perform(store.runs);
      mark_being_read(store.shared, store.shared_bytes, -1);
    }
  if (!read_only)
    for (int i = 0; i < done; ++i) self.committed_bulk.pop_front();
}

void check_nothing_under_way(const Fiber& ending) {
  bool reads = !ending.open_bulk.empty();
  for (const auto& group : ending.committed_bulk)
    for (const BulkStore& store : group) reads = reads || !store.read;
  if (reads) fail("a thread ended while its asynchronous stores still read shared memory: bulk_wait_read is missing");
  if (!ending.accumulators.empty()) fail("a thread ended while wgmma was under way: wgmma_wait is missing");
  if (machine.live > 1) return;
  if (!machine.loads.empty()) fail("the block ended while %zu asynchronous loads were on their way", machine.loads.size());
}

// --- clusters

uint32_t cluster_rank() { return uint32_t(machine.running->block->rank); }

void open_cluster_if_full() {
  Barrier& cluster = machine.cluster;
  if (cluster.arrived == 0 || cluster.arrived < machine.live) return;
  cluster.arrived = 0;
  ++machine.cluster_phase;
  ++machine.now;
  for (Fiber* fiber : cluster.waiting) make_ready(*fiber);
  cluster.waiting.clear();
}

void cluster_arrive() {
  ELECTRA_ENTERED();
  Fiber& self = *machine.running;
  if (self.cluster_phase > machine.cluster_phase) fail("cluster_arrive: arrives again before cluster_wait");
  self.cluster_phase = machine.cluster_phase + 1;
  machine.cluster.knowledge.merge(warp_of(self).knowledge);
  machine.cluster.knowledge.known[self.warp] = machine.now++;
  ++machine.cluster.arrived;
  open_cluster_if_full();
}

void cluster_wait() {
  ELECTRA_ENTERED();
  Fiber& self = *machine.running;
  if (self.cluster_phase == 0) fail("cluster_wait: without cluster_arrive");
  if (machine.cluster_phase < self.cluster_phase) {
    machine.cluster.waiting.push_back(&self);
    suspend();
  }
  Warp& warp = warp_of(self);
  warp.knowledge.merge(machine.cluster.knowledge);   // (gathered on from phase to phase: nothing is ever forgotten)
  warp.last_sync = machine.now++;
}

void* map_shared(const void* p, uint32_t rank) {
  ELECTRA_ENTERED();
  return in_block(p, int(rank));
}

void bulk_copy_to_block(void* shared, const void* from, uint32_t bytes, void* barrier, uint32_t rank) {
  ELECTRA_ENTERED();
  if (bytes % 16 || bytes == 0) fail("bulk_copy_to_block: %u bytes, must be a multiple of 16", bytes);
  if (!in_shared(from, bytes)) fail("bulk_copy_to_block: the source %p (%u bytes) is not in shared memory", from, bytes);
  unsigned char* to = in_block(shared, int(rank));
  check_read(from, bytes, 16);
  check_write(to, bytes, 16);
  check_async_proxy(from, bytes, "bulk_copy_to_block");
  start_load({{to, from, bytes}}, in_block(barrier, int(rank)), bytes, machine.blocks[rank]);
}

}  // namespace electra::emulation
