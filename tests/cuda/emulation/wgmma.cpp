// wgmma: descriptors are decoded as the hardware does (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout"), every warp multiplies its 16 rows,
// and what it computed is put into the accumulators when it is waited for; until then they are NaN.
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>

#include "emulation/hopper.h"
#include "emulation/machine.h"

namespace electra::emulation {

uint64_t operand_descriptor(const void* shared, int swizzle, uint32_t leading, uint32_t stride) {
  ELECTRA_ENTERED();
  const ptrdiff_t offset = dynamic_offset(shared);
  if (offset < 0) fail("wgmma_operand: %p is not in dynamic shared memory", shared);
  if (offset % 16 || leading % 16 || stride % 16) fail("wgmma_operand: address, leading (%u) and stride (%u) must be multiples of 16", leading, stride);
  if (leading >> 18 || stride >> 18) fail("wgmma_operand: leading (%u) and stride (%u) must be below 2^18", leading, stride);
  constexpr uint64_t modes[] = {0, 3, 2, 1};
  return uint64_t(offset & 0x3ffff) >> 4 | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 | modes[swizzle] << 62;
}

namespace {

// One operand in shared memory: where 8 x 16-byte pieces lie.
struct Layout {
  uintptr_t start;       // in dynamic shared memory
  uint32_t leading, stride;
  int swizzle_bits;
  bool mn;

  Layout(uint64_t descriptor, bool mn_) : start((descriptor & 0x3fff) << 4), leading((descriptor >> 16 & 0x3fff) << 4), stride((descriptor >> 32 & 0x3fff) << 4), mn(mn_) {
    constexpr int bits[] = {0, 3, 2, 1};
    swizzle_bits = bits[descriptor >> 62];
    if (descriptor >> 49 & 7) fail("wgmma: base offset %d, the emulator wants layouts that start at a multiple of their repeat", int(descriptor >> 49 & 7));
  }

  // The 16 bytes with 8 neighbours along the contiguous index from `along` (a multiple of 8), at `across` of the other: offset in dynamic shared memory.
  uintptr_t piece(int along, int across) const {
    const int row = 16 << swizzle_bits, chunk = along / 8, chunks = row / 16;
    uintptr_t offset = start;
    if (!mn) {   // along k (two chunks), across m or n
      offset += uintptr_t(across / 8) * stride + uintptr_t(across % 8) * row + (swizzle_bits ? uintptr_t(chunk) * 16 : uintptr_t(chunk) * leading);
    } else {     // along m or n, across k
      offset += uintptr_t(chunk / chunks) * (swizzle_bits ? leading : stride) + uintptr_t(chunk % chunks) * 16;
      offset += uintptr_t(across / 8) * (swizzle_bits ? stride : leading) + uintptr_t(across % 8) * row;
    }
    return offset ^ ((offset >> 7 & ((1u << swizzle_bits) - 1)) << 4);
  }
};

float value(uint16_t bits, bool half) { return half ? __half2float(__builtin_bit_cast(__half, bits)) : __builtin_bit_cast(float, uint32_t(bits) << 16); }

// Rows first … first+count-1 of an operand as [row][16 k], read in the name of the running thread.
std::vector<float> read_operand(const Layout& layout, int first, int count, bool half, std::vector<SharedPiece>& pieces) {
  std::vector<float> rows(size_t(count) * 16);
  unsigned char* dynamic = machine.running->block->dynamic;
  for (int along = 0; along < (layout.mn ? count : 16); along += 8)
    for (int across = 0; across < (layout.mn ? 16 : count); ++across) {
      const int m = layout.mn ? first + along : first + across;
      const void* p = dynamic + (layout.mn ? layout.piece(m, across) : layout.piece(along, m));
      check_read(p, 16, 16);
      check_async_proxy(p, 16, "wgmma");
      pieces.push_back({p, 16});
      uint16_t bits[8];
      std::memcpy(bits, p, 16);
      for (int i = 0; i < 8; ++i) rows[layout.mn ? size_t(along + i) * 16 + across : size_t(across) * 16 + along + i] = value(bits[i], half);
    }
  return rows;
}

struct Gathered {
  WgmmaCall call;
  float* d;
};



void multiply(Meeting& meeting) {
  need_whole_warp(meeting);
  const auto lane_call = [&](int l) -> const WgmmaCall& { return (*reinterpret_cast<const Gathered* const*>(meeting.value[l]))->call; };
  const WgmmaCall& call = lane_call(0);
  for (int l = 1; l < 32; ++l) {
    const WgmmaCall& other = lane_call(l);
    if (other.a_descriptor != call.a_descriptor || other.b_descriptor != call.b_descriptor || other.accumulate != call.accumulate || other.n != call.n)
      fail("wgmma: lanes of a warp disagree about the operands");
  }
  Warp& warp = warp_of(*machine.running);
  if (!warp.wgmma_fenced) fail("wgmma: wgmma_fence is missing before");
  std::vector<SharedPiece>& pieces = warp.open_operands;
  const size_t before = pieces.size();
  const int warp_of_group = machine.running->warp % 4;
  std::vector<float> a(16 * 16);
  if (call.a_in_registers) {
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i)
        for (int half = 0; half < 2; ++half)
          a[size_t(l / 4 + 8 * (i & 1)) * 16 + 8 * (i >> 1) + 2 * (l % 4) + half] = value(uint16_t(lane_call(l).a[i] >> 16 * half), call.half);
  } else {
    a = read_operand(Layout(call.a_descriptor, call.a_mn), 16 * warp_of_group, 16, call.half, pieces);
  }
  const std::vector<float> b = read_operand(Layout(call.b_descriptor, call.b_mn), 0, call.n, call.half, pieces);
  for (size_t i = before; i < pieces.size(); ++i) mark_being_read(pieces[i].shared, pieces[i].bytes, 1);

  for (int l = 0; l < 32; ++l) {
    const Gathered& lane = **reinterpret_cast<const Gathered* const*>(meeting.value[l]);
    Fiber& fiber = machine.fibers[machine.running->number - machine.running->lane + l];
    std::vector<float>& d = fiber.accumulators[lane.d];
    if (d.empty()) d.assign(lane.d, lane.d + call.n / 2);   // else: under way already, goes on from what it will be
    if (int(d.size()) != call.n / 2) fail("wgmma: an accumulator of %zu registers under way is used as one of %d", d.size(), call.n / 2);
    for (int r = 0; r < call.n / 2; ++r) {
      const float *row = &a[size_t(l / 4 + 8 * (r >> 1 & 1)) * 16], *column = &b[size_t(8 * (r >> 2) + 2 * (l % 4) + (r & 1)) * 16];
      float sum = 0.f;
      for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
      d[r] = call.accumulate ? d[r] + sum : sum;
      lane.d[r] = NAN;
    }
    fiber.open_wgmma.push_back(lane.d);
  }
}

void meet_whole_warp(const char* what) { leave(meet(whole_warp, what, "", 0, [](Meeting& m) { need_whole_warp(m); })); }

}  // namespace

void wgmma(float* d, const WgmmaCall& call) {
  ELECTRA_ENTERED();
  if (machine.launch.block.x * machine.launch.block.y * machine.launch.block.z % 128) fail("wgmma: a block must be whole warpgroups of 128 threads");
  const Gathered mine = {call, d}, *pointer = &mine;
  leave(meet(whole_warp, "wgmma", &pointer, sizeof pointer, multiply));
}

void wgmma_fence() {
  ELECTRA_ENTERED();
  meet_whole_warp("wgmma_fence");
  warp_of(*machine.running).wgmma_fenced = true;
}

void wgmma_commit() {
  ELECTRA_ENTERED();
  meet_whole_warp("wgmma_commit");
  Fiber& self = *machine.running;
  self.committed_wgmma.push_back(std::move(self.open_wgmma));
  self.open_wgmma.clear();
  if (self.lane) return;
  Warp& warp = warp_of(self);
  warp.committed_operands.push_back(std::move(warp.open_operands));
  warp.open_operands.clear();
}

void wgmma_wait(int groups_left) {
  ELECTRA_ENTERED();
  meet_whole_warp("wgmma_wait");
  Fiber& self = *machine.running;
  Warp& warp = warp_of(self);
  std::vector<float*> done;
  while (int(self.committed_wgmma.size()) > groups_left) {
    done.insert(done.end(), self.committed_wgmma.front().begin(), self.committed_wgmma.front().end());
    self.committed_wgmma.pop_front();
  }
  for (float* d : done) {
    bool still = false;   // a later group adds to it
    for (const auto& group : self.committed_wgmma)
      for (float* other : group) still = still || other == d;
    for (float* other : self.open_wgmma) still = still || other == d;
    const auto found = self.accumulators.find(d);
    if (still || found == self.accumulators.end()) continue;
    std::memcpy(d, found->second.data(), found->second.size() * sizeof(float));
    self.accumulators.erase(found);
  }
  if (self.lane == 0) {
    warp.wgmma_fenced = warp.wgmma_fenced && !(self.committed_wgmma.empty() && self.open_wgmma.empty());
    while (int(warp.committed_operands.size()) > groups_left) {
      for (const SharedPiece& piece : warp.committed_operands.front()) mark_being_read(piece.shared, piece.bytes, -1);
      warp.committed_operands.pop_front();
    }
  }
  meet_whole_warp("wgmma_wait");   // no lane says that the operands are free before they are
}

}  // namespace electra::emulation
