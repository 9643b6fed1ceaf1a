// Philox4x32 with 7 rounds (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11).
//
// Everything random in electra_fast is one call of this function at a counter that says where the draw is used: (block, row, site, step); see docs/design.md,
// "Random numbers". Plain integers, no state, so that host, device and the Python reference draw the same bits.
//
// All functions are `static`: this header is compiled into files of several instruction sets, and an external inline function would let the linker keep
// the AVX-512 copy for everybody.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#define ELECTRA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ELECTRA_HOST_DEVICE inline
#endif

namespace electra {

struct PhiloxKey { uint32_t k0, k1; };
struct PhiloxCounter { uint32_t c0, c1, c2, c3; };

static ELECTRA_HOST_DEVICE PhiloxCounter philox4x32(PhiloxCounter c, PhiloxKey k, int rounds = 7) {
  for (int i = 0; i < rounds; ++i) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c.c0;
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * c.c2;
    c = {uint32_t(p1 >> 32) ^ c.c1 ^ k.k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c.c3 ^ k.k1, uint32_t(p0)};
    k.k0 += 0x9E3779B9u;
    k.k1 += 0xBB67AE85u;
  }
  return c;
}

// The stream of one draw site at one step: what an op derives once from its `rng` tensor (seed, step) and its `site`.
struct PhiloxStream {
  PhiloxKey key;
  uint32_t site, step;
};

static ELECTRA_HOST_DEVICE PhiloxStream philox_stream(int64_t seed, int64_t step, int64_t site) {
  return {{uint32_t(uint64_t(seed)), uint32_t(uint64_t(seed) >> 32)}, uint32_t(site), uint32_t(uint64_t(step))};
}

static ELECTRA_HOST_DEVICE PhiloxCounter philox_draw(const PhiloxStream& s, uint32_t row, uint32_t block) {
  return philox4x32({block, row, s.site, s.step}, s.key);
}

static ELECTRA_HOST_DEVICE uint32_t philox_word(const PhiloxCounter& c, int i) {
  return i == 0 ? c.c0 : i == 1 ? c.c1 : i == 2 ? c.c2 : c.c3;
}

// Dropout keeps where byte < threshold and scales by 256/threshold, so that the expectation is exact for the quantised probability.
static ELECTRA_HOST_DEVICE int dropout_threshold(double p) {
  const double t = (1.0 - p) * 256.0;
  int r = int(t);
  const double f = t - r;
  if (f > 0.5 || (f == 0.5 && (r & 1))) ++r;   // half to even
  return r < 1 ? 1 : r > 256 ? 256 : r;
}

// Dropout of one op call: the threshold (256 keeps everything) and where its bytes come from.
struct Dropout {
  int threshold = 256;
  PhiloxStream stream{};
};

}  // namespace electra
