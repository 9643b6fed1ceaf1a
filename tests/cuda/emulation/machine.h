// The emulated machine: what scheduler.cpp, memory.cpp and the others share. Kernel files never see this.
#pragma once
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "emulation/runtime.h"

namespace electra::emulation {

using Time = uint32_t;   // counts events of synchronisation

// What a warp (or a barrier) knows of the others: everything that agent i did up to time known[i]. (A vector clock. Agents are the warps of all blocks that run
// together, and after them the asynchronous copies, one agent a block.)
struct Knowledge {
  std::vector<Time> known;
  void reset(size_t agents) { known.assign(agents, 0); }
  void merge(const Knowledge& other) {
    for (size_t i = 0; i < known.size(); ++i) known[i] = known[i] > other.known[i] ? known[i] : other.known[i];
  }
};

struct Barrier {
  int arrived = 0, expected = 0, yes = 0;
  std::vector<struct Fiber*> waiting;
  Knowledge knowledge;
};

// Blocks that run together: the only one, or those of a cluster.
struct Block {
  uint3 index;
  int rank, live;
  unsigned char* dynamic;
  std::vector<unsigned char> statics;   // its static shared memory, while another block of the cluster runs
  Barrier barriers[16];
};

struct Run { void* to; const void* from; size_t bytes; };   // of an asynchronous copy; from null: zeros

struct AsyncCopy { void* shared; const void* global; int bytes; bool valid; };   // cp.async

struct BulkStore {
  std::vector<Run> runs;
  const void* shared;
  size_t shared_bytes;
  bool read;   // the shared side is free again
};

struct Accumulator { float* visible; std::vector<float> value; };   // of a wgmma under way

struct Fiber {
  void* stack_pointer;
  uint3 index;
  int number, warp, lane;   // number and warp count through all blocks that run together
  Block* block;
  bool done;
  Votes votes;                                    // what the last block barrier answered
  uint32_t cluster_phase;                         // of the cluster barrier this thread arrived at last
  Time last_async_fence;
  std::vector<AsyncCopy> open;                    // not committed yet
  std::deque<std::vector<AsyncCopy>> committed;   // the oldest first
  std::vector<BulkStore> open_bulk;
  std::deque<std::vector<BulkStore>> committed_bulk;
  std::map<float*, std::vector<float>> accumulators;   // what wgmma will have put there
  std::vector<float*> open_wgmma;
  std::deque<std::vector<float*>> committed_wgmma;
};

// Where the lanes of a mask meet. A warp has several, since lanes may have left one and come to the next while others still read.
struct Meeting {
  unsigned mask = 0, arrived = 0, unread = 0;   // free if all are 0
  bool complete = false;
  const char* what = nullptr;
  void (*last)(Meeting&) = nullptr;             // what the last to come does
  std::vector<Fiber*> waiting;
  alignas(16) unsigned char value[32][64];
};

struct SharedPiece { const void* shared; size_t bytes; };

struct Warp {
  unsigned live = 0;   // lanes that have not ended
  Knowledge knowledge;
  Time last_sync = 0;  // its lanes know of each other's accesses up to here
  bool wgmma_fenced = false;
  std::vector<SharedPiece> open_operands;   // what its wgmma under way read
  std::deque<std::vector<SharedPiece>> committed_operands;
  Meeting meetings[8];
};

// An mbarrier, by its address.
struct MbarrierState {
  int64_t expected, pending, bytes;   // arrivals a phase, those still to come, bytes still to come
  uint32_t phase;
  Knowledge gathering, complete;      // of the phase under way and of the one before
  std::vector<Fiber*> waiting;
};

// A load by TMA: arrives when every thread waits, as late as can be.
struct AsyncLoad {
  std::vector<Run> runs;
  void* barrier;
  int64_t bytes;   // what the barrier is told
  int agent;
};

enum class Schedule { forward, reverse, random };

struct Machine {
  // settings
  Schedule schedule = Schedule::forward;
  uint64_t seed = 1;
  int compute_capability = 90, multiprocessors = 4;
  // the launch
  Launch launch{};
  std::deque<Block> blocks;
  std::vector<Fiber> fibers;
  std::vector<uint64_t> ready;   // a bit a fiber
  std::deque<Warp> warps;
  int live = 0;
  Time now = 0;
  Barrier cluster;
  uint32_t cluster_phase = 0;
  std::map<void*, MbarrierState> mbarriers;
  std::vector<AsyncLoad> loads;
  // the switch
  Fiber* running = nullptr;
  Block* resident = nullptr;   // whose static shared memory is in place
  void* main_stack_pointer = nullptr;
  const void* caller = nullptr;   // where in the kernel the runtime was entered
  std::string error;

  size_t agents() const { return warps.size() + blocks.size(); }
};
extern Machine machine;

// First thing in whatever a kernel calls.
#define ELECTRA_ENTERED() (machine.caller = __builtin_return_address(0))

// --- scheduler.cpp
void suspend();                  // until somebody makes this fiber ready
void make_ready(Fiber& fiber);
uint64_t random_number();
Warp& warp_of(const Fiber& fiber);
Meeting& meet(unsigned mask, const char* what, const void* value, size_t bytes, void (*last)(Meeting&) = nullptr);
void leave(Meeting& meeting);
void need_whole_warp(const Meeting& meeting);
inline constexpr unsigned whole_warp = 0xffffffffu;

// --- hopper.cpp
bool deliver_a_load();                 // false if none is under way
std::string who_waits_at_mbarriers();
void open_cluster_if_full();
void check_nothing_under_way(const Fiber& ending);

// --- memory.cpp
inline constexpr size_t stack_bytes = 256 << 10;
unsigned char* fiber_stacks(size_t fibers);
void find_kernel(const void* code);     // what follows is about its library
size_t static_shared_bytes();           // of all its kernels: an upper bound for one
void swap_static_shared(Block* to);     // puts a block's in place
void prepare_shared_memory(size_t dynamic_bytes);   // for the blocks that run together: poison, no access remembered
bool in_shared(const void* p, size_t bytes);        // the running block's own
ptrdiff_t dynamic_offset(const void* p);            // in the running block's dynamic shared memory; -1 if not there
unsigned char* in_block(const void* p, int rank);   // the same place in another block of the cluster
void check(const void* p, size_t bytes, size_t alignment, bool write, bool racing);
void mark_in_flight(const void* shared, size_t bytes, bool in_flight);   // until an asynchronous copy has arrived nobody may touch its target
void mark_being_read(const void* shared, size_t bytes, int more);        // while an asynchronous operation reads nobody may write
void mark_arrived(const void* shared, size_t bytes, int agent);          // written by an asynchronous copy, just now
void check_async_proxy(const void* shared, size_t bytes, const char* what);   // its writers have fenced it for asynchronous operations
std::string source_of(const void* code);

}  // namespace electra::emulation
