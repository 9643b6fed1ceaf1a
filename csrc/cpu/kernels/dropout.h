// Dropout bytes of whole rows at once. Byte col of row `row` is byte col % 16 of the Philox call at (col / 16, row) (docs/design.md, "Random numbers"), so the
// four words of consecutive calls, stored one after the other on a little-endian machine, are the bytes of the row in order.
//
// A call occupies one 64-bit lane of a vector, each counter word in the lower half (the upper half is junk that no step reads): the 32 x 32 -> 64 bit
// product of Philox is then one instruction, and a round of all lanes two products, two shifts and four exclusive-ors. Measured in GB/s of bytes against
// 32-bit lanes left to the compiler's vectoriser: see docs/notes/cpu-memory-bound-ops.md.
#pragma once
#include <stdint.h>
#include <string.h>

#include "common/philox.h"
#include "cpu/kernels/intrinsics.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the native CPU kernels need a little-endian machine"
#endif

namespace electra {
namespace ELECTRA_ISA {

#if defined(__AVX512F__)
constexpr int64_t dropout_lanes = 8;
#elif defined(__AVX2__)
constexpr int64_t dropout_lanes = 4;
#else
constexpr int64_t dropout_lanes = 2;
#endif
typedef uint64_t DropoutLanes __attribute__((vector_size(8 * dropout_lanes)));

// Product of the lower halves of the lanes with a 32-bit constant.
static inline DropoutLanes multiply_lower(DropoutLanes a, uint64_t b) {
#if defined(__AVX512F__)
  return DropoutLanes(_mm512_mul_epu32(__m512i(a), _mm512_set1_epi64(int64_t(b))));
#elif defined(__AVX2__)
  return DropoutLanes(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(int64_t(b))));
#elif defined(__x86_64__)
  return DropoutLanes(_mm_mul_epu32(__m128i(a), _mm_set1_epi64x(int64_t(b))));
#elif defined(__aarch64__)
  return DropoutLanes(vmull_u32(vmovn_u64(uint64x2_t(a)), vdup_n_u32(uint32_t(b))));
#else
  return (a & 0xffffffffu) * b;
#endif
}

// Lanes hold calls 0, L/2, 1, L/2 + 1, …, so that pairing the even and the odd lanes of two vectors, which vector units do inside 128 bits, leaves the
// words of consecutive calls side by side.

static inline void store_words(DropoutLanes c0, DropoutLanes c1, DropoutLanes c2, DropoutLanes c3, uint8_t* bytes) {
  const DropoutLanes a = (c0 & 0xffffffffu) | (c1 << 32), b = (c2 & 0xffffffffu) | (c3 << 32);
#if defined(__AVX512F__)
  const DropoutLanes lower = DropoutLanes(_mm512_unpacklo_epi64(__m512i(a), __m512i(b))), upper = DropoutLanes(_mm512_unpackhi_epi64(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
  const DropoutLanes lower = DropoutLanes(_mm256_unpacklo_epi64(__m256i(a), __m256i(b))), upper = DropoutLanes(_mm256_unpackhi_epi64(__m256i(a), __m256i(b)));
#else
  const DropoutLanes lower = {a[0], b[0]}, upper = {a[1], b[1]};
#endif
  memcpy(bytes, &lower, sizeof lower);
  memcpy(bytes + sizeof lower, &upper, sizeof upper);
}

static inline int64_t dropout_blocks(int64_t n) { return n > 0 ? (n + 15) / 16 : 1; }   // Philox calls of a row of n columns

// Rows whose bytes are made together, so that short rows fill the lanes too and the counters' setup is paid once.
constexpr int64_t max_dropout_rows = 64;
static inline int64_t dropout_rows(int64_t n) {
  const int64_t rows = max_dropout_rows / dropout_blocks(n);
  return rows > 1 ? rows : 1;
}

// Bytes of scratch for a group of rows; whole vectors are stored.
static inline int64_t dropout_scratch(int64_t rows, int64_t n) { return (rows * dropout_blocks(n) + 8) * 16; }

// bytes[(r * dropout_blocks(n) + c / 16) * 16 + c % 16] for rows row + r, r < rows, c < n.
static inline void dropout_bytes(const PhiloxStream& stream, int64_t row, int64_t rows, int64_t n, uint8_t* bytes) {
  const int64_t blocks = dropout_blocks(n), calls = rows * blocks;
  const uint64_t whole_rows = uint64_t(dropout_lanes / blocks), rest = uint64_t(dropout_lanes % blocks), wrap = uint64_t(blocks);
  DropoutLanes block, line;
  {
    uint64_t b[dropout_lanes], l[dropout_lanes];
    uint64_t next_block = 0, next_line = uint64_t(row);
    for (int64_t call = 0; call < dropout_lanes; ++call) {
      const int64_t lane = call < dropout_lanes / 2 ? 2 * call : 2 * (call - dropout_lanes / 2) + 1;
      b[lane] = next_block;
      l[lane] = next_line;
      if (++next_block == wrap) next_block = 0, ++next_line;
    }
    memcpy(&block, b, sizeof block);
    memcpy(&line, l, sizeof line);
  }
  DropoutLanes k0[7], k1[7];   // the rounds' keys, once: gcc would add and broadcast them for every call
  for (uint32_t round = 0; round < 7; ++round) {
    k0[round] = DropoutLanes{} + uint64_t(stream.key.k0 + round * 0x9E3779B9u);
    k1[round] = DropoutLanes{} + uint64_t(stream.key.k1 + round * 0xBB67AE85u);
  }
  for (int64_t call = 0; call < calls; call += dropout_lanes) {
    DropoutLanes c0 = block, c1 = line, c2 = DropoutLanes{} + stream.site, c3 = DropoutLanes{} + stream.step;
#pragma GCC unroll 7
    for (int round = 0; round < 7; ++round) {
      const DropoutLanes p0 = multiply_lower(c0, 0xD2511F53u), p1 = multiply_lower(c2, 0xCD9E8D57u);
      c0 = (p1 >> 32) ^ c1 ^ k0[round];
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ k1[round];
      c3 = p0;
    }
    store_words(c0, c1, c2, c3, bytes + call * 16);
    block += rest;
    line += whole_rows;
    const DropoutLanes wrapped = 1 - ((block - wrap) >> 63);   // 1 where the block ran off its row; compares of 64-bit lanes are slow before AVX-512
    block -= (0 - wrapped) & wrap;
    line += wrapped;
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
