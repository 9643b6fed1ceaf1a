// The launch parameters of the attention kernels, in one place, with their reasons. D: head dimension of the tile (32, 64, 96 or 128).
// Registers and shared memory that follow from them: docs/notes/cuda-attention.md. None of this has been measured on a GPU yet.
#pragma once
#include <stdint.h>

namespace electra::cuda::attention_config {

// Class (a), both lengths at most `short_keys`: a block owns a (sequence, head).
inline constexpr int short_keys = 128;

// Bound by memory traffic, so small blocks, one loading while others compute: 4 warps that take 16 queries in turn. Three blocks a multiprocessor (144 KiB of shared
// memory at D = 64) leave a thread 168 registers; four would leave 128, and the 64 scores with what surrounds them spill.
template <int D> struct ForwardShort {
  static constexpr int warps = 4, threads = 32 * warps;
  static constexpr int blocks = D <= 64 ? 3 : 2;
};

// Each warp has keys of its own, so that the products over queries need nothing from other warps: 32 of them, so that an operand read from shared memory feeds two
// products; 16 where dk of 32 would take 128 registers (D > 64). At D = 64 a block has 81 KiB, two of which just fit an A100.
template <int D> struct BackwardShort {
  static constexpr int row_tiles = D <= 64 ? 2 : 1;
  static constexpr bool operands_in_registers = D <= 64;   // of the warp's keys: K and V
  static constexpr int warps = short_keys / (16 * row_tiles), threads = 32 * warps;
  static constexpr int blocks = D <= 64 ? 2 : 1;
};

// Class (b), lengths at most `resident_keys`, D = 64: K and V (forward), or the sums of dq (backward), stay in shared memory.
inline constexpr int resident_keys = 512, resident_dim = 64;

// A warp takes 32 queries: every operand read from shared memory then feeds two products, without which the reads, not the tensor cores, are the limit.
// K and V of up to `resident_small` keys leave room for a second block; beyond, one block brings all the warps.
inline constexpr int resident_small = 256;
template <int warps_> struct ForwardResident {
  static constexpr int warps = warps_, threads = 32 * warps, row_tiles = 2, rows = 16 * row_tiles * warps;
  static constexpr int blocks = warps == 4 ? 2 : 1;
};

// Class (c), any length: 128 queries a block (a larger block wastes more at a sequence's end), keys streamed 64 at a time in two buffers.
// At D > 64 the output alone takes 64 registers for 16 rows, so a warp takes 16 and there are twice as many warps.
inline constexpr int streaming_queries = 128;
template <int D> struct Streaming {
  static constexpr int row_tiles = D <= 64 ? 2 : 1;
  static constexpr int warps = streaming_queries / (16 * row_tiles), threads = 32 * warps;
  static constexpr int keys = 64, stages = 2;
  static constexpr int blocks = D <= 64 ? 2 : 1;
};

// dk and dv of classes (b) and (c): a warp per 16 keys, queries streamed 64 at a time in two buffers. K and V stay in registers where they take 32 (D = 64).
template <int D> struct BackwardKeys {
  static constexpr int keys = 128, queries = 64;
  static constexpr int warps = keys / 16, threads = 32 * warps;
  static constexpr int blocks = 1;
  static constexpr bool operands_in_registers = D <= 64;
};

// Hopper, classes (a) and (b), D = 64 (lengths at most 512, head dimensions 33 to 64).
inline constexpr int hopper_dim = 64;

// Four slots of 128 keys are 128 KiB; three consumers of 64 queries leave each thread 160 registers, of which 64 scores, 32 weights and 32 outputs are in use at once.
// Two consumers would have 240 and no use for them, but a third less to overlap.
struct ForwardHopper {
  static constexpr int slots = 4, slot_keys = 128, consumers = 3, query_stages = 2, threads = 128 * (consumers + 1);
  static constexpr int producer_registers = 32, consumer_registers = 160;   // 128 at the start
};

// Two blocks a multiprocessor, of two groups of 64 keys each, leave a thread 128 registers; 82 KiB of shared memory each.
struct BackwardShortHopper {
  static constexpr int threads = 256, blocks = 2;
};

// A cluster of blocks a head, 128 keys a block, one block a multiprocessor: the sums of dq from the other blocks take 32 KiB each (212 KiB of shared memory with three).
struct BackwardHopper {
  static constexpr int block_rows = 128, threads = 256, query_stages = 2;
};

}  // namespace electra::cuda::attention_config
