// The emulated machine: what scheduler.cpp, memory.cpp and the others share. Kernel files never see this.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "emulation/runtime.h"

namespace electra::emulation {

using Time = uint32_t;   // counts events of synchronisation within one block

// What a warp (or a barrier) knows of the others: everything that warp i did up to time known[i]. (A vector clock; i runs over the warps of the block.)
struct Knowledge {
  std::vector<Time> known;
  void reset(int warps) { known.assign(warps, 0); }
  void merge(const Knowledge& other) {
    for (size_t i = 0; i < known.size(); ++i) known[i] = known[i] > other.known[i] ? known[i] : other.known[i];
  }
};

struct AsyncCopy { void* shared; const void* global; int bytes; bool valid; };

struct Fiber {
  void* stack_pointer;
  uint3 index;
  int number, warp, lane;
  bool done;
  Votes votes;                                   // what the last block barrier answered
  std::vector<AsyncCopy> open;                   // not committed yet
  std::deque<std::vector<AsyncCopy>> committed;  // the oldest first
};

struct Barrier {
  int arrived = 0, expected = 0, yes = 0;
  std::vector<Fiber*> waiting;
  Knowledge knowledge;
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

struct Warp {
  unsigned live = 0;   // lanes that have not ended
  Knowledge knowledge;
  Time last_sync = 0;  // its lanes know of each other's accesses up to here
  Meeting meetings[8];
};

enum class Schedule { forward, reverse, random };

struct Machine {
  // settings
  Schedule schedule = Schedule::forward;
  uint64_t seed = 1;
  int compute_capability = 90, multiprocessors = 4;
  // the launch
  Launch launch{};
  std::vector<Fiber> fibers;
  std::vector<uint64_t> ready;   // a bit a fiber
  std::vector<Warp> warps;
  std::vector<Barrier> barriers;
  uint3 block{};
  int live = 0;
  Time now = 0;
  unsigned char* dynamic = nullptr;
  // the switch
  Fiber* running = nullptr;
  void* main_stack_pointer = nullptr;
  const void* caller = nullptr;   // where in the kernel the runtime was entered
  std::string error;
};
extern Machine machine;

// First thing in whatever a kernel calls.
#define ELECTRA_ENTERED() (machine.caller = __builtin_return_address(0))

// --- scheduler.cpp
void suspend();                  // until somebody makes this fiber ready
void make_ready(Fiber& fiber);
uint64_t random_number();
Meeting& meet(unsigned mask, const char* what, const void* value, size_t bytes, void (*last)(Meeting&) = nullptr);
void leave(Meeting& meeting);

// --- memory.cpp
inline constexpr size_t stack_bytes = 128 << 10;
unsigned char* fiber_stacks(size_t fibers);
void prepare_shared_memory(size_t dynamic_bytes, int warps);   // for a block: poison, no access remembered
void find_kernel(const void* code);     // what follows is about its library
size_t static_shared_bytes();           // of all its kernels: an upper bound for one
void mark_in_flight(const void* shared, size_t bytes, bool in_flight);   // until an asynchronous copy has arrived nobody may touch its target
bool in_shared(const void* p, size_t bytes);
void check(const void* p, size_t bytes, size_t alignment, bool write, bool racing);
std::string source_of(const void* code);

}  // namespace electra::emulation
