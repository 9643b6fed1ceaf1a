// Fibers, barriers and the loop over blocks.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "emulation/machine.h"

namespace electra::emulation {

Machine machine;

// Saves the callee-saved registers on the stack that is left, stores its top in *from, and takes up `to`. (System V ABI, x86-64.)
extern "C" void electra_emulation_switch(void** from, void* to);
asm(R"(
.text
.hidden electra_emulation_switch
.globl electra_emulation_switch
.type electra_emulation_switch, @function
electra_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size electra_emulation_switch, .-electra_emulation_switch
)");

static void to_scheduler() {
  Fiber* self = machine.running;
  machine.running = nullptr;
  electra_emulation_switch(&self->stack_pointer, machine.main_stack_pointer);
}

void suspend() {
  machine.ready[machine.running->number / 64] &= ~(uint64_t(1) << machine.running->number % 64);
  to_scheduler();
}

void make_ready(Fiber& fiber) { machine.ready[fiber.number / 64] |= uint64_t(1) << fiber.number % 64; }

uint64_t random_number() {   // xorshift64*
  uint64_t& x = machine.seed;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  return x * 0x2545F4914F6CDD1Dull;
}

void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  machine.error = text;
  if (machine.running == nullptr) std::abort();   // a fault of the emulator itself
  const uint3 b = machine.running->block->index, t = machine.running->index;
  char place[160];
  std::snprintf(place, sizeof place, "\n  thread (%u, %u, %u) of block (%u, %u, %u)", t.x, t.y, t.z, b.x, b.y, b.z);
  machine.error += place + source_of(machine.caller);
  machine.live = -1;   // nobody runs on
  to_scheduler();
  std::abort();
}

// --- the running thread

uint3 thread_index() { return machine.running->index; }
uint3 block_index() { return machine.running->block->index; }
dim3 block_size() { return machine.launch.block; }
dim3 grid_size() { return machine.launch.grid; }
int lane() { return machine.running->lane; }
unsigned char* dynamic_shared() { return machine.running->block->dynamic; }

Warp& warp_of(const Fiber& fiber) { return machine.warps[fiber.warp]; }

// --- barriers

static void release(Barrier& barrier, const Fiber& fiber) {
  barrier.knowledge.merge(warp_of(fiber).knowledge);
  barrier.knowledge.known[fiber.warp] = machine.now++;
}

static void open_barrier(Barrier& barrier, const Votes& votes) {
  for (Fiber* fiber : barrier.waiting) {
    Warp& warp = warp_of(*fiber);
    warp.knowledge.merge(barrier.knowledge);
    warp.last_sync = machine.now;
    fiber->votes = votes;
    make_ready(*fiber);
  }
  ++machine.now;
  barrier.waiting.clear();
  barrier.arrived = barrier.expected = barrier.yes = 0;
  barrier.knowledge.reset(machine.agents());
}

static bool open_if_full(Barrier& barrier, const Block& block) {
  if (barrier.arrived == 0 || barrier.arrived < (barrier.expected ? barrier.expected : block.live)) return false;
  open_barrier(barrier, {barrier.yes, barrier.yes == barrier.arrived, barrier.yes > 0});
  return true;
}

Votes block_barrier(bool predicate) {
  ELECTRA_ENTERED();
  Fiber& self = *machine.running;
  Barrier& barrier = self.block->barriers[0];
  ++barrier.arrived;
  barrier.yes += predicate;
  release(barrier, self);
  barrier.waiting.push_back(&self);
  if (!open_if_full(barrier, *machine.running->block)) suspend();
  return self.votes;
}

static Barrier& named(int id, int threads) {
  if (id < 1 || id > 15) fail("named barrier %d: there are 1 to 15 (0 is __syncthreads)", id);
  if (threads <= 0 || threads % 32 || threads > int(machine.fibers.size() / machine.blocks.size())) fail("named barrier %d: %d threads are no whole number of the block's warps", id, threads);
  Barrier& barrier = machine.running->block->barriers[id];
  if (barrier.expected && barrier.expected != threads) fail("named barrier %d: %d threads expected here, %d elsewhere", id, threads, barrier.expected);
  barrier.expected = threads;
  ++barrier.arrived;
  release(barrier, *machine.running);
  return barrier;
}

void named_barrier_sync(int id, int threads) {
  ELECTRA_ENTERED();
  Barrier& barrier = named(id, threads);
  barrier.waiting.push_back(machine.running);
  if (!open_if_full(barrier, *machine.running->block)) suspend();
}

void named_barrier_arrive(int id, int threads) {
  ELECTRA_ENTERED();
  open_if_full(named(id, threads), *machine.running->block);
}

// --- meetings of a warp

static void complete(Meeting& meeting) {
  meeting.complete = true;
  meeting.unread = meeting.arrived;
  if (meeting.last) meeting.last(meeting);
  for (Fiber* fiber : meeting.waiting) make_ready(*fiber);
  meeting.waiting.clear();
}

Meeting& meet(unsigned mask, const char* what, const void* value, size_t bytes, void (*last)(Meeting&)) {
  Fiber& self = *machine.running;
  Warp& warp = warp_of(self);
  const unsigned bit = 1u << self.lane;
  if (!(mask & bit)) fail("%s: the mask %08x does not name the calling lane %d", what, mask, self.lane);
  Meeting* meeting = nullptr;
  for (Meeting& m : warp.meetings) {
    if (m.complete || !m.arrived) continue;
    if (m.mask != mask && (m.mask & mask)) fail("%s with mask %08x while lanes of it wait in %s with mask %08x", what, mask, m.what, m.mask);
    if (m.mask != mask) continue;
    if (std::strcmp(m.what, what)) fail("%s while other lanes of the mask %08x wait in %s", what, mask, m.what);
    meeting = &m;
  }
  if (!meeting)
    for (Meeting& m : warp.meetings)
      if (!m.arrived && !m.unread) meeting = &m;
  meeting->mask = mask;
  meeting->what = what;
  meeting->last = last;
  meeting->arrived |= bit;
  std::memcpy(meeting->value[self.lane], value, bytes);
  if (meeting->arrived == (mask & warp.live)) {
    complete(*meeting);
  } else {
    meeting->waiting.push_back(&self);
    suspend();
  }
  return *meeting;
}

void need_whole_warp(const Meeting& meeting) {
  if (meeting.arrived != whole_warp) fail("%s needs all 32 lanes, here are %08x", meeting.what, meeting.arrived);
}

void leave(Meeting& meeting) {
  meeting.unread &= ~(1u << machine.running->lane);
  if (meeting.unread) return;
  meeting.mask = meeting.arrived = 0;
  meeting.complete = false;
}

void warp_barrier(unsigned mask) {
  ELECTRA_ENTERED();
  Meeting& meeting = meet(mask, "__syncwarp", "", 0, [](Meeting&) { warp_of(*machine.running).last_sync = machine.now++; });
  leave(meeting);
}

// --- the life of a fiber

static void entry() {
  machine.launch.body(machine.launch.arguments);
  Fiber& self = *machine.running;
  Warp& warp = warp_of(self);
  machine.caller = nullptr;
  check_nothing_under_way(self);
  self.done = true;
  --machine.live;
  --self.block->live;
  warp.live &= ~(1u << self.lane);
  for (Meeting& m : warp.meetings)
    if (m.arrived && !m.complete && m.arrived == (m.mask & warp.live)) complete(m);   // nobody waits for who has ended
  open_if_full(self.block->barriers[0], *self.block);
  open_cluster_if_full();
  suspend();
  std::abort();
}

static void start(Fiber& fiber, unsigned char* stack) {
  void** top = reinterpret_cast<void**>(stack + stack_bytes);
  *--top = nullptr;                                  // as if entry had been called: the stack is 8 below a multiple of 16
  *--top = reinterpret_cast<void*>(&entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;      // the registers that the switch takes up
  fiber.stack_pointer = top;
}

// The next fiber to run; -1 if none is ready. Forward and reverse let one warp run ahead as far as it can.
static int pick() {
  const int words = int(machine.ready.size());
  switch (machine.schedule) {
    case Schedule::forward:
      for (int i = 0; i < words; ++i)
        if (machine.ready[i]) return 64 * i + __builtin_ctzll(machine.ready[i]);
      return -1;
    case Schedule::reverse:
      for (int i = words - 1; i >= 0; --i)
        if (machine.ready[i]) return 64 * i + 63 - __builtin_clzll(machine.ready[i]);
      return -1;
    case Schedule::random: break;
  }
  const int n = int(machine.fibers.size()), first = int(random_number() % uint64_t(n));
  for (int i = 0; i < n; ++i) {
    const int f = (first + i) % n;
    if (machine.ready[f / 64] >> f % 64 & 1) return f;
  }
  return -1;
}

static std::string who_waits() {
  std::string text;
  char line[160];
  for (const Block& block : machine.blocks)
    for (int i = 0; i < 16; ++i)
      if (const Barrier& b = block.barriers[i]; b.arrived) {
        text += i ? "\n  named barrier " + std::to_string(i) : std::string("\n  __syncthreads");
        text += ": " + std::to_string(b.arrived) + " of " + std::to_string(b.expected ? b.expected : block.live) + " threads";
      }
  if (machine.cluster.arrived) text += "\n  cluster barrier: " + std::to_string(machine.cluster.arrived) + " of " + std::to_string(machine.live) + " threads";
  for (size_t i = 0; i < machine.warps.size(); ++i)
    for (const Meeting& m : machine.warps[i].meetings)
      if (m.arrived && !m.complete) {
        std::snprintf(line, sizeof line, "\n  warp %zu in %s: lanes %08x of %08x", i, m.what, m.arrived, m.mask);
        text += line;
      }
  return text + who_waits_at_mbarriers();
}

static void prepare_block(Block& block, const dim3& size, int threads, int first, unsigned char* stacks) {
  block.live = threads;
  for (Barrier& barrier : block.barriers) {
    barrier.waiting.clear();
    barrier.arrived = barrier.expected = barrier.yes = 0;
    barrier.knowledge.reset(machine.agents());
  }
  const int warps = (threads + 31) / 32;
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = machine.fibers[first + i];
    fiber = {};
    fiber.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    fiber.number = first + i;
    fiber.warp = block.rank * warps + i / 32;
    fiber.lane = i % 32;
    fiber.block = &block;
    machine.warps[fiber.warp].live |= 1u << fiber.lane;
    start(fiber, stacks + (first + i) * stack_bytes);
    make_ready(fiber);
  }
}

// The blocks that run together, from block `first` of the grid on.
static void run_cluster(uint64_t first, unsigned char* stacks) {
  const dim3 grid = machine.launch.grid, size = machine.launch.block;
  const int threads = int(size.x * size.y * size.z), blocks = int(machine.blocks.size());
  machine.live = threads * blocks;
  machine.now = 1;
  machine.mbarriers.clear();
  machine.loads.clear();
  machine.cluster.arrived = 0;
  machine.cluster.waiting.clear();
  machine.cluster.knowledge.reset(machine.agents());
  machine.cluster_phase = 0;
  for (Warp& warp : machine.warps) {
    warp = {};
    warp.knowledge.reset(machine.agents());
  }
  std::fill(machine.ready.begin(), machine.ready.end(), 0);
  for (int b = 0; b < blocks; ++b) {
    const uint64_t number = first + b;
    machine.blocks[b].index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    machine.blocks[b].rank = b;
    prepare_block(machine.blocks[b], size, threads, b * threads, stacks);
  }
  prepare_shared_memory(machine.launch.shared_bytes);
  while (machine.live > 0) {
    const int next = pick();
    if (next < 0) {
      if (deliver_a_load()) continue;
      const uint3 block = machine.blocks[0].index;
      char where[120];
      std::snprintf(where, sizeof where, "deadlock in block (%u, %u, %u)%s: every thread waits", block.x, block.y, block.z, blocks > 1 ? " and the others of its cluster" : "");
      machine.error = where + who_waits();
      return;
    }
    Fiber& fiber = machine.fibers[next];
    if (machine.resident != fiber.block) swap_static_shared(fiber.block);
    machine.running = &fiber;
    electra_emulation_switch(&machine.main_stack_pointer, fiber.stack_pointer);
  }
}

static void check_limits(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  const size_t threads = size_t(block.x) * block.y * block.z, shared = launch.shared_bytes + static_shared_bytes();
  const size_t limit = machine.compute_capability >= 90 ? 227 << 10 : machine.compute_capability == 80 ? 163 << 10 : 99 << 10;
  char text[200] = "";
  if (threads == 0 || threads > 1024 || block.z > 64) std::snprintf(text, sizeof text, "a block of %u x %u x %u threads cannot be launched", block.x, block.y, block.z);
  else if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    std::snprintf(text, sizeof text, "a grid of %u x %u x %u blocks cannot be launched", grid.x, grid.y, grid.z);
  else if (launch.cluster < 1 || launch.cluster > 8 || grid.x % launch.cluster || (launch.cluster > 1 && machine.compute_capability < 90))
    std::snprintf(text, sizeof text, "clusters of %u blocks in a grid of %u x %u x %u cannot be launched", launch.cluster, grid.x, grid.y, grid.z);
  else if ((threads + 31) / 32 * launch.cluster > 64) std::snprintf(text, sizeof text, "the emulator runs at most 64 warps together, not %zu", (threads + 31) / 32 * launch.cluster);
  else if (shared > limit) std::snprintf(text, sizeof text, "%zu bytes of shared memory are above the limit of %zu", shared, limit);
  machine.error = text;
}

cudaError_t run(const Launch& launch) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (!machine.error.empty()) return cudaErrorLaunchFailure;   // like a GPU after a fault
  find_kernel(reinterpret_cast<const void*>(launch.body));
  check_limits(launch);
  if (!machine.error.empty()) return cudaErrorInvalidConfiguration;
  machine.launch = launch;
  const size_t threads = launch.block.x * launch.block.y * launch.block.z, together = launch.cluster;
  machine.blocks.resize(together);
  machine.fibers.resize(threads * together);
  machine.ready.resize((threads * together + 63) / 64);
  machine.warps.resize((threads + 31) / 32 * together);
  machine.resident = nullptr;
  unsigned char* stacks = fiber_stacks(threads * together);

  std::vector<uint64_t> order(uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z / together);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i * together;
  if (machine.schedule == Schedule::reverse) std::reverse(order.begin(), order.end());
  if (machine.schedule == Schedule::random)
    for (uint64_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_number() % i]);
  for (const uint64_t first : order) {
    run_cluster(first, stacks);
    if (!machine.error.empty()) return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

const char* take_error() {
  static std::string taken;
  taken.clear();
  taken.swap(machine.error);
  return taken.c_str();
}

}  // namespace electra::emulation

extern "C" const char* electra_emulation_take_error() { return electra::emulation::take_error(); }

// What tests set: the order in which threads run, the architecture that launchers see, and its number of multiprocessors.
extern "C" void electra_emulation_configure(int schedule, uint64_t seed, int compute_capability, int multiprocessors) {
  using namespace electra::emulation;
  machine.schedule = Schedule(schedule);
  machine.seed = seed * 2 + 1;
  machine.compute_capability = compute_capability;
  machine.multiprocessors = multiprocessors;
}
