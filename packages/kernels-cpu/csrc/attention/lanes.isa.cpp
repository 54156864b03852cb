// lanes: out[m] = softmax(scale * q[m] . K + alibi + bias, softcapped and masked) V for up to M = 2 vectors of query rows      prefill
// layout  queries lie side by side in vector lanes: QT [D, M], scores [keys, M], OT [D, M]; K and V rows are read as scalars that are
//         broadcast, so softmax needs no sum across lanes and tails of D and keys need no masks. K and V go through tiles of 64 keys
//         in f32 [64, ld]. Rows are (token, head of the group) pairs: all heads of a KV head share its tiles.
// maths   online softmax: per tile m' = max(m, scores), O = O e^(m - m') + P V, l = l e^(m - m') + sum P; out = O / l
// floor   4 D flops per visible (query, key); K and V are read once per block of M rows
// exact   tiles begin at multiples of 64 positions and keys are added in order: the same bits whatever the neighbours and threads
// ref     tensor/src/reference/attention.ts       bench  src/attention.bench.ts
#include <cmath>
#include "lanes.h"

namespace q::cpu::Q_ISA {
namespace {

constexpr int kRows = kLanes == 16 ? 8 : 4;  // keys, or dimensions, per register tile: rows * vectors accumulators
constexpr int64_t kMost = 64;                // QueryRows at most (2 vectors of 16 lanes)
constexpr float kLow = -1e30f;               // "nothing seen yet": finite, so that differences are never NaN
static_assert(kLaneVectors * kLanes <= kMost && kTileKeys % kRows == 0);

int64_t padded(int64_t head_dim) { return (head_dim + kRows - 1) / kRows * kRows; }

/// Row length of the tiles: padded, and no multiple of 64 floats, which would put all rows into few cache sets.
int64_t row_length(int64_t head_dim) {
  for (const int64_t fixed : {80, 144, 272}) {
    if (padded(head_dim) <= fixed) return fixed;
  }
  return padded(head_dim) + 16;
}

template <class T> void copy_rows(const PagedHead& h, int64_t begin, int64_t count, float* tile, int64_t ld) {
  const int64_t wide = padded(h.head_dim);
  int64_t i = 0;
  while (i < count) {
    const T* from = reinterpret_cast<const T*>(paged_row(h, begin + i, sizeof(T)));
    const int64_t in_block = std::min(count - i, h.block_size - (begin + i) % h.block_size);
    for (int64_t j = 0; j < in_block; ++j, ++i, from += h.head_dim) {
      float* to = tile + i * ld;
      int64_t d = 0;
      for (; d + kLanes <= h.head_dim; d += kLanes) store(to + d, load(from + d));
      if (d < h.head_dim) store_part(to + d, load_part(from + d, h.head_dim - d), h.head_dim - d);
      for (d = h.head_dim; d < wide; ++d) to[d] = 0;
    }
  }
  for (; i % kRows; ++i) std::memset(tile + i * ld, 0, size_t(wide) * 4);
}

void load_tile(const PagedHead& h, int64_t begin, int64_t count, float* tile, int64_t ld) {
  if (h.dtype == DType::f16) copy_rows<F16>(h, begin, count, tile, ld);
  else if (h.dtype == DType::bf16) copy_rows<BF16>(h, begin, count, tile, ld);
  else copy_rows<float>(h, begin, count, tile, ld);
}

/// scores[n, :] = sum over d of K[n, d] * QT[d, :]
template <int MV, int LD> void multiply_keys(const float* __restrict keys, const float* __restrict qt, float* __restrict scores, int64_t count, int64_t depth, int64_t runtime_ld) {
  const int64_t ld = LD ? LD : runtime_ld;
  for (int64_t n = 0; n < count; n += kRows) {
    V acc[kRows][MV] = {};
    const float* k = keys + n * ld;
    for (int64_t d = 0; d < depth; ++d) {
      V query[MV];
      for (int v = 0; v < MV; ++v) query[v] = load(qt + (d * MV + v) * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const V key = splat(k[r * ld + d]);
        for (int v = 0; v < MV; ++v) acc[r][v] = fma(key, query[v], acc[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < MV; ++v) store(scores + ((n + r) * MV + v) * kLanes, acc[r][v]);
    }
  }
}

/// OT[d, :] = OT[d, :] * alpha + sum over n of V[n, d] * P[n, :]
template <int MV> void add_values(const float* __restrict values, const float* __restrict p, const V* alpha, float* __restrict ot, int64_t count, int64_t wide, int64_t ld) {
  for (int64_t d = 0; d < wide; d += kRows) {
    V acc[kRows][MV];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < MV; ++v) acc[r][v] = load(ot + ((d + r) * MV + v) * kLanes) * alpha[v];
    }
    for (int64_t n = 0; n < count; ++n) {
      V weight[MV];
      for (int v = 0; v < MV; ++v) weight[v] = load(p + (n * MV + v) * kLanes);
      const float* row = values + n * ld + d;
      for (int r = 0; r < kRows; ++r) {
        const V value = splat(row[r]);
        for (int v = 0; v < MV; ++v) acc[r][v] = fma(value, weight[v], acc[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < MV; ++v) store(ot + ((d + r) * MV + v) * kLanes, acc[r][v]);
    }
  }
}

/// The scores of one tile: ALiBi, bias, softcap, mask. `edge`: some key is hidden from some row.
template <int MV> void adjust(float* scores, const QueryRow* rows, int64_t lanes_used, const AttentionRule& rule, int64_t begin, int64_t count, bool edge) {
  const int64_t m_count = MV * kLanes;
  I position[MV];
  V slope[MV];
  for (int v = 0; v < MV; ++v) {
    for (int i = 0; i < kLanes; ++i) {
      const QueryRow& row = rows[std::min<int64_t>(v * kLanes + i, lanes_used - 1)];
      position[v][i] = int32_t(row.position);
      slope[v][i] = row.slope;
    }
  }
  const bool biased = rows[0].bias != nullptr;
  if (!edge && !biased && !rule.alibi && rule.softcap <= 0) return;
  const I window = splat(int32_t(rule.window));
  for (int64_t n = 0; n < count; ++n) {
    const I key = splat(int32_t(begin + n));
    if (biased) {
      for (int64_t m = 0; m < lanes_used; ++m) scores[n * m_count + m] += rows[m].bias[begin + n];
    }
    for (int v = 0; v < MV; ++v) {
      float* at = scores + n * m_count + v * kLanes;
      V s = load(at);
      if (rule.alibi) s = s + slope[v] * __builtin_convertvector(key - position[v], V);
      if (rule.softcap > 0) s = rule.softcap * tanh(s / rule.softcap);
      if (edge) {
        I hidden = I{};
        if (rule.causal) hidden = hidden | (I)(key > position[v]);
        if (rule.window > 0) hidden = hidden | (I)(key <= position[v] - window);
        s = select(hidden, splat(-INFINITY), s);
      }
      store(at, s);
    }
  }
}

template <int MV, int LD> void run_block(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values, const AttentionRule& rule, int64_t context, float* scratch) {
  const int64_t depth = keys.head_dim, wide = padded(depth), m_count = MV * kLanes, ld = LD ? LD : row_length(depth);
  float* qt = scratch;
  float* ot = qt + wide * m_count;
  float* key_tile = ot + wide * m_count;
  float* value_tile = key_tile + kTileKeys * ld;
  float* scores = value_tile + kTileKeys * ld;
  int64_t lowest = rows[0].position, highest = rows[0].position;
  for (int64_t m = 0; m < m_count; ++m) {
    const QueryRow& row = rows[std::min(m, count - 1)];  // unused lanes repeat the last row
    lowest = std::min(lowest, row.position);
    highest = std::max(highest, row.position);
    for (int64_t d = 0; d < depth; ++d) qt[d * m_count + m] = row.query[d] * rule.scale;
  }
  std::memset(ot, 0, size_t(wide * m_count) * 4);
  V most[MV], sum[MV];
  for (int v = 0; v < MV; ++v) most[v] = splat(kLow), sum[v] = zero();
  const int64_t last = rule.last(highest, context);
  for (int64_t begin = rule.first(lowest) / kTileKeys * kTileKeys; begin < last; begin += kTileKeys) {
    const int64_t n_count = std::min(kTileKeys, last - begin);
    load_tile(keys, begin, n_count, key_tile, ld);
    multiply_keys<MV, LD>(key_tile, qt, scores, n_count, depth, ld);
    const bool edge = (rule.causal && begin + n_count - 1 > lowest) || (rule.window > 0 && begin <= highest - rule.window);
    adjust<MV>(scores, rows, count, rule, begin, n_count, edge);
    V alpha[MV];
    for (int v = 0; v < MV; ++v) {
      V next = most[v];
      for (int64_t n = 0; n < n_count; ++n) next = max(next, load(scores + n * m_count + v * kLanes));
      alpha[v] = exp(most[v] - next);
      most[v] = next;
      V total = zero();
      for (int64_t n = 0; n < n_count; ++n) {
        const V p = exp(load(scores + n * m_count + v * kLanes) - next);
        store(scores + n * m_count + v * kLanes, p);
        total = total + p;
      }
      sum[v] = sum[v] * alpha[v] + total;
    }
    load_tile(values, begin, n_count, value_tile, ld);
    add_values<MV>(value_tile, scores, alpha, ot, n_count, wide, ld);
  }
  float inverse[kMost];
  for (int v = 0; v < MV; ++v) store(inverse + v * kLanes, select(less(zero(), sum[v]), 1.f / sum[v], zero()));
  for (int64_t m = 0; m < count; ++m) {
    for (int64_t d = 0; d < depth; ++d) rows[m].out[d] = ot[d * m_count + m] * inverse[m];
  }
}

template <int MV> void choose_length(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values, const AttentionRule& rule, int64_t context, float* scratch) {
  switch (row_length(keys.head_dim)) {
    case 80: return run_block<MV, 80>(rows, count, keys, values, rule, context, scratch);
    case 144: return run_block<MV, 144>(rows, count, keys, values, rule, context, scratch);
    case 272: return run_block<MV, 272>(rows, count, keys, values, rule, context, scratch);
    default: return run_block<MV, 0>(rows, count, keys, values, rule, context, scratch);
  }
}

}  // namespace

int64_t lanes_scratch(int64_t head_dim) {
  const int64_t m_count = kLaneVectors * kLanes;
  return 2 * padded(head_dim) * m_count + 2 * kTileKeys * row_length(head_dim) + kTileKeys * m_count;
}

void lanes(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values, const AttentionRule& rule, int64_t context, float* scratch) {
  if (count > kLanes) choose_length<2>(rows, count, keys, values, rule, context, scratch);
  else choose_length<1>(rows, count, keys, values, rule, context, scratch);
}

}  // namespace q::cpu::Q_ISA
