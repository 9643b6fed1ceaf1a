// The transpose of a table look-up: row `id` of the output is the sum of the rows of all tokens with that id, in token order.
//
// A plan sorts tokens by id (stable), cuts each id's run into pieces of a fixed length that are summed independently, and adds the pieces of a long run in
// order: parallel also where one id holds most tokens (a token type, "the"), and the same bits whatever the number of threads.
#pragma once
#include <cstring>

#include "cpu/kernels/embedding.h"
#include "cpu/tensors.h"

namespace electra {

struct ScatterPlan {
  static constexpr int64_t piece_length = 64;
  struct Piece { int64_t begin, count, id, slot; };   // tokens order[begin, begin + count); slot: of the partial sum, or -1 to write the output row
  struct Merge { int64_t id, slot, count; };          // output row = sum of partial sums [slot, slot + count)

  std::vector<int64_t> order;
  std::vector<Piece> pieces;
  std::vector<Merge> merges;
  int64_t slots = 0;

  // Tokens with id `skip` are left out (-1: none). ids are in [0, table_rows).
  ScatterPlan(const int64_t* ids, int64_t tokens, int64_t table_rows, int64_t skip);
};

// Stable radix sort of token indices by id, 11 bits a pass: two passes for vocabularies up to 4 M.
inline std::vector<int64_t> order_by_id(const int64_t* ids, int64_t tokens, int64_t table_rows) {
  constexpr int bits = 11;
  constexpr int64_t buckets = int64_t(1) << bits;
  std::vector<int64_t> order(tokens), other(tokens), count(buckets + 1);
  for (int64_t t = 0; t < tokens; ++t) order[t] = t;
  for (int shift = 0; shift == 0 || ((table_rows - 1) >> shift) > 0; shift += bits) {
    std::fill(count.begin(), count.end(), 0);
    for (int64_t t = 0; t < tokens; ++t) ++count[((ids[t] >> shift) & (buckets - 1)) + 1];
    for (int64_t b = 0; b < buckets; ++b) count[b + 1] += count[b];
    for (int64_t k = 0; k < tokens; ++k) other[count[(ids[order[k]] >> shift) & (buckets - 1)]++] = order[k];
    order.swap(other);
  }
  return order;
}

inline ScatterPlan::ScatterPlan(const int64_t* ids, int64_t tokens, int64_t table_rows, int64_t skip) : order(order_by_id(ids, tokens, table_rows)) {
  for (int64_t begin = 0; begin < tokens;) {
    const int64_t id = ids[order[begin]];
    int64_t end = begin + 1;
    while (end < tokens && ids[order[end]] == id) ++end;
    if (id == skip) {
    } else if (end - begin <= piece_length) {
      pieces.push_back({begin, end - begin, id, -1});
    } else {
      merges.push_back({id, slots, (end - begin + piece_length - 1) / piece_length});
      for (int64_t b = begin; b < end; b += piece_length) pieces.push_back({b, std::min(piece_length, end - b), id, slots++});
    }
    begin = end;
  }
}

// dtable [table_rows, n] of `type` = scatter of rows [tokens, n], which are in the accumulation type.
inline void scatter_rows(const ScatterPlan& plan, const Tensor& rows, Tensor& dtable, DType type, const EmbeddingKernels& kernels) {
  const int64_t n = rows.size(1), table_rows = dtable.size(0);
  const bool f64 = rows.scalar_type() == ScalarType::Double;
  const DType accumulate = f64 ? DType::f64 : DType::f32;
  const int64_t row_bytes = n * int64_t(dtable.element_size()), slot_bytes = n * (f64 ? 8 : 4);
  char* out = static_cast<char*>(dtable.mutable_data_ptr());
  const void* in = rows.const_data_ptr();
  Tensor partial = torch::stable::new_empty(rows, {plan.slots, n});
  char* sums = static_cast<char*>(partial.mutable_data_ptr());
  torch::stable::parallel_for(0, table_rows, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, row_bytes)),
                              [&](int64_t begin, int64_t end) { std::memset(out + begin * row_bytes, 0, size_t((end - begin) * row_bytes)); });
  torch::stable::parallel_for(0, int64_t(plan.pieces.size()), rows_per_task(n), [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const ScatterPlan::Piece& p = plan.pieces[k];
      if (p.slot < 0) kernels.sum_rows(accumulate, type, in, plan.order.data() + p.begin, p.count, n, out + p.id * row_bytes);
      else kernels.sum_rows(accumulate, accumulate, in, plan.order.data() + p.begin, p.count, n, sums + p.slot * slot_bytes);
    }
  });
  torch::stable::parallel_for(0, int64_t(plan.merges.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const ScatterPlan::Merge& m = plan.merges[k];
      kernels.sum_rows(accumulate, type, sums + m.slot * slot_bytes, nullptr, m.count, n, out + m.id * row_bytes);
    }
  });
}

}  // namespace electra
