// Shuffles, votes, tensor cores and asynchronous copies.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "emulation/machine.h"

namespace electra::emulation {

template <class T> static T& value_of(Meeting& meeting, int lane) { return *reinterpret_cast<T*>(meeting.value[lane]); }

uint64_t warp_shuffle(unsigned mask, uint64_t value, int source, const char* what) {
  ELECTRA_ENTERED();
  Meeting& meeting = meet(mask, what, &value, sizeof value);
  const uint64_t result = meeting.arrived >> source & 1 ? value_of<uint64_t>(meeting, source) : ~uint64_t(0);
  leave(meeting);
  return result;
}

unsigned warp_ballot(unsigned mask, bool predicate, const char* what) {
  ELECTRA_ENTERED();
  const uint64_t value = predicate;
  Meeting& meeting = meet(mask, what, &value, sizeof value);
  unsigned result = 0;
  for (int l = 0; l < 32; ++l)
    if (meeting.arrived >> l & 1) result |= unsigned(value_of<uint64_t>(meeting, l)) << l;
  leave(meeting);
  return result;
}

uint64_t warp_combine(unsigned mask, uint64_t value, uint64_t (*combine)(uint64_t, uint64_t), const char* what) {
  ELECTRA_ENTERED();
  Meeting& meeting = meet(mask, what, &value, sizeof value);
  int l = __builtin_ctz(meeting.arrived);
  uint64_t result = value_of<uint64_t>(meeting, l);
  while (++l < 32)
    if (meeting.arrived >> l & 1) result = combine(result, value_of<uint64_t>(meeting, l));
  leave(meeting);
  return result;
}

// --- tensor cores. The last lane to come computes for all.

struct Multiply {
  uint32_t a[4], b[2];
  float d[4];
};

static float value_bf16(uint32_t bits) { return __builtin_bit_cast(float, bits << 16); }
static float value_f16(uint32_t bits) { return __half2float(__builtin_bit_cast(__half, uint16_t(bits))); }

template <float (*value)(uint32_t)> static void multiply(Meeting& meeting) {
  need_whole_warp(meeting);
  float a[16][16], b[8][16];   // b by columns
  for (int l = 0; l < 32; ++l) {
    const Multiply& m = value_of<Multiply>(meeting, l);
    const int group = l / 4, t = l % 4;
    for (int half = 0; half < 2; ++half) {
      const int shift = 16 * half;
      for (int i = 0; i < 4; ++i) a[group + 8 * (i & 1)][2 * t + half + 8 * (i >> 1)] = value(m.a[i] >> shift & 0xffffu);
      for (int i = 0; i < 2; ++i) b[group][2 * t + half + 8 * i] = value(m.b[i] >> shift & 0xffffu);
    }
  }
  for (int l = 0; l < 32; ++l) {
    Multiply& m = value_of<Multiply>(meeting, l);
    for (int i = 0; i < 4; ++i) {
      const float *row = a[l / 4 + 8 * (i >> 1)], *column = b[2 * (l % 4) + (i & 1)];
      float sum = 0.f;
      for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
      m.d[i] += sum;
    }
  }
}

template <float (*value)(uint32_t)> static Fragment warp_mma(const Fragment& d, const Multiply& operands, const char* what) {
  Multiply mine = operands;
  std::memcpy(mine.d, d.v, sizeof mine.d);
  Meeting& meeting = meet(whole_warp, what, &mine, sizeof mine, multiply<value>);
  Fragment result;
  std::memcpy(result.v, value_of<Multiply>(meeting, lane()).d, sizeof result.v);
  leave(meeting);
  return result;
}

Fragment warp_mma_bf16(Fragment d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  ELECTRA_ENTERED();
  return warp_mma<value_bf16>(d, {{a0, a1, a2, a3}, {b0, b1}, {}}, "mma.m16n8k16 bf16");
}

Fragment warp_mma_f16(Fragment d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  ELECTRA_ENTERED();
  return warp_mma<value_f16>(d, {{a0, a1, a2, a3}, {b0, b1}, {}}, "mma.m16n8k16 f16");
}

Matrices warp_ldmatrix(const void* shared, int matrices, bool transposed) {
  ELECTRA_ENTERED();
  const int self = lane();
  if (self < 8 * matrices) {
    if (!in_shared(shared, 16)) fail("ldmatrix: %p of lane %d is not in shared memory", shared, self);
    check_read(shared, 16, 16);
  }
  Meeting& meeting = meet(whole_warp, transposed ? "ldmatrix.trans" : "ldmatrix", &shared, sizeof shared, [](Meeting& m) { need_whole_warp(m); });
  const int group = self / 4, t = self % 4;
  const auto element = [&](int matrix, int row, int column) { return uint32_t(value_of<const uint16_t*>(meeting, 8 * matrix + row)[column]); };
  Matrices result{};
  for (int i = 0; i < matrices; ++i) {
    const uint32_t low = transposed ? element(i, 2 * t, group) : element(i, group, 2 * t);
    const uint32_t high = transposed ? element(i, 2 * t + 1, group) : element(i, group, 2 * t + 1);
    result.v[i] = low | high << 16;
  }
  leave(meeting);
  return result;
}

// --- asynchronous copies: as late as the rules allow.

void copy_async(void* shared, const void* global, int bytes, bool valid) {
  ELECTRA_ENTERED();
  if (!in_shared(shared, bytes)) fail("cp.async: the target %p (%d bytes) is not in shared memory", shared, bytes);
  check_write(shared, bytes, bytes);
  if (valid) check_read(global, bytes, bytes);
  if (valid && in_shared(global, 1)) fail("cp.async: the source %p is not in global memory", global);
  std::memset(shared, 0xff, bytes);
  mark_in_flight(shared, bytes, true);
  machine.running->open.push_back({shared, global, bytes, valid});
}

void copy_async_commit() {
  Fiber& self = *machine.running;
  self.committed.push_back(std::move(self.open));
  self.open.clear();
}

void copy_async_wait(int groups_left) {
  ELECTRA_ENTERED();
  Fiber& self = *machine.running;
  while (int(self.committed.size()) > groups_left) {
    for (const AsyncCopy& copy : self.committed.front()) {
      mark_in_flight(copy.shared, copy.bytes, false);
      check_write(copy.shared, copy.bytes, copy.bytes);
      if (copy.valid) std::memcpy(copy.shared, copy.global, copy.bytes);
      else std::memset(copy.shared, 0, copy.bytes);
    }
    self.committed.pop_front();
  }
}

}  // namespace electra::emulation
