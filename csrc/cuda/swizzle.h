// The swizzles of Hopper's TMA and wgmma: where a 16-byte chunk of a row lies in shared memory, so that the same chunk of eight neighbouring rows falls into
// different banks. A function of the address alone: chunk bits 4… are XORed with row bits 7…, so tiles are aligned to 8 rows (1024 bytes for 128-byte rows).
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

// The name is the length of a row: that of the tile in TMA, of the atom in wgmma.
enum class Swizzle { none, bytes_32, bytes_64, bytes_128 };

__host__ __device__ constexpr int swizzle_bytes(Swizzle s) { return s == Swizzle::none ? 16 : 16 << int(s); }

// The place of the byte that would lie at `offset` (from a 1024-byte aligned address) if rows were not swizzled.
template <Swizzle s> __host__ __device__ constexpr uint32_t swizzled(uint32_t offset) {
  constexpr uint32_t chunks = (1u << int(s)) - 1;   // 0, 1, 3, 7
  return offset ^ ((offset >> 7 & chunks) << 4);
}

}  // namespace electra::cuda
