// lanes: out[m] = softmax(scale * q[m] . K + alibi + distance bias, softcapped and masked) V for up to 4 blocks of
// M = 2 vectors of query rows; prefill
// layout  queries lie side by side in vector lanes: QT [D, M], scores [keys, M], OT [value D, M]; K and V rows are read
//         as scalars that are broadcast, so softmax needs no sum across lanes and tails of D and keys need no masks.
//         K and V go through tiles of 64 keys in f32 [64, ld]. Rows are (token, head of the group) pairs: all heads of
//         a KV head share its tiles.
// maths   online softmax: per tile m' = max(m, scores), O = O e^(m - m') + P V, l = l e^(m - m') + sum P; last
//         out = O / (l + e^(sink - m))
// floor   4 D flops per visible (query, key); K and V are read once per 4 blocks of M rows
// exact   tiles begin at multiples of 64 positions and keys are added in order: the same bits whatever the neighbours
//         and threads
// ref     tensor/src/reference/attention.ts       bench  src/attention.bench.ts
#include <cmath>
#include "lanes.h"

namespace q::cpu::Q_ISA {
namespace {

constexpr int kRows = kLanes == 16 ? 8 : 4;  // keys, or dimensions, per register tile: rows * vectors accumulators
constexpr float kLow = -1e30f;               // "nothing seen yet": finite, so that differences are never NaN
static_assert(kLaneBlocks * kLaneVectors * kLanes <= kMostRows && kTileKeys % kRows == 0);

int64_t padded(int64_t head_dim) { return (head_dim + kRows - 1) / kRows * kRows; }

/// Row length of the tiles: padded, and no multiple of 64 floats, which would put all rows into few cache sets.
int64_t row_length(int64_t head_dim) {
  for (const int64_t fixed : {80, 144, 272}) {
    if (padded(head_dim) <= fixed) return fixed;
  }
  return padded(head_dim) + 16;
}

template <class T>
void copy_rows(const PagedHead& h, int64_t begin, int64_t count, float* tile, int64_t ld) {
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
  if (h.dtype == DType::f16)
    copy_rows<F16>(h, begin, count, tile, ld);
  else if (h.dtype == DType::bf16)
    copy_rows<BF16>(h, begin, count, tile, ld);
  else
    copy_rows<float>(h, begin, count, tile, ld);
}

/// scores[n, :] = sum over d of K[n, d] * QT[d, :]
template <int MV, int LD>
void multiply_keys(const float* __restrict keys, const float* __restrict qt, float* __restrict scores, int64_t count,
                   int64_t depth, int64_t runtime_ld) {
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
template <int MV>
void add_values(const float* __restrict values, const float* __restrict p, const V* alpha, float* __restrict ot,
                int64_t count, int64_t wide, int64_t ld) {
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

/// Whether a tile holds neither NaN nor infinity.
bool is_finite(const float* tile, int64_t count, int64_t wide, int64_t ld) {
  V sum = zero();
  float rest = 0;
  for (int64_t n = 0; n < count; ++n) {
    int64_t d = 0;
    for (; d + kLanes <= wide; d += kLanes) sum = sum + load(tile + n * ld + d) * 0.f;
    for (; d < wide; ++d) rest += tile[n * ld + d] * 0.f;
  }
  return sum_lanes(sum) + rest == 0;
}

/// add_values for a tile in which a hidden key has NaN or infinity, which a weight of 0 would bring in: only keys that
/// a row sees, with the same operations. Slow; such a sequence is broken from there on.
template <int MV>
void add_visible(const float* values, const float* p, const V* alpha, float* ot, const QueryRow* rows,
                 int64_t row_count, const AttentionRule& rule, int64_t begin, int64_t count, int64_t context,
                 int64_t wide, int64_t ld) {
  constexpr int64_t m_count = MV * kLanes;
  for (int64_t m = 0; m < row_count; ++m) {
    const int64_t first = std::clamp<int64_t>(rule.first(rows[m].position) - begin, 0, count);
    const int64_t last = std::clamp<int64_t>(rule.last(rows[m].position, context) - begin, first, count);
    for (int64_t d = 0; d < wide; ++d) {
      V sum = splat(ot[d * m_count + m] * alpha[m / kLanes][m % kLanes]);
      for (int64_t n = first; n < last; ++n) sum = fma(splat(values[n * ld + d]), splat(p[n * m_count + m]), sum);
      ot[d * m_count + m] = sum[0];
    }
  }
}

/// The scores of one tile: ALiBi, distance bias, softcap, mask. `edge`: some key is hidden from some row.
template <int MV>
void adjust(float* scores, const QueryRow* rows, int64_t lanes_used, const AttentionRule& rule, int64_t begin,
            int64_t count, bool edge) {
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
      for (int64_t m = 0; m < lanes_used; ++m) scores[n * m_count + m] += rule.bias(rows[m], begin + n);
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

/// Up to M rows that go through the tiles together, and what is known of them so far.
template <int MV>
struct Block {
  const QueryRow* rows;
  int64_t count, lowest, highest;  // positions
  V most[MV], sum[MV];
  float *qt, *ot;
};

template <int MV>
void begin_block(Block<MV>& b, int64_t depth, int64_t value_depth, float scale) {
  const int64_t m_count = MV * kLanes;
  b.lowest = b.highest = b.rows[0].position;
  for (int64_t m = 0; m < m_count; ++m) {
    const QueryRow& row = b.rows[std::min(m, b.count - 1)];  // unused lanes repeat the last row
    b.lowest = std::min(b.lowest, row.position);
    b.highest = std::max(b.highest, row.position);
    for (int64_t d = 0; d < depth; ++d) b.qt[d * m_count + m] = row.query[d] * scale;
  }
  std::memset(b.ot, 0, size_t(padded(value_depth) * m_count) * 4);
  for (int v = 0; v < MV; ++v) b.most[v] = splat(kLow), b.sum[v] = zero();
}

/// scores become weights relative to the new maximum; alpha rescales what was added before.
template <int MV>
void weigh(Block<MV>& b, float* scores, int64_t n_count, V* alpha) {
  for (int v = 0; v < MV; ++v) {
    float* at = scores + v * kLanes;
    V next = b.most[v];
    for (int64_t n = 0; n < n_count; ++n) next = max(next, load(at + n * MV * kLanes));
    alpha[v] = exp(b.most[v] - next);
    b.most[v] = next;
    V total = zero();
    for (int64_t n = 0; n < n_count; ++n) {
      const V p = exp(load(at + n * MV * kLanes) - next);
      store(at + n * MV * kLanes, p);
      total = total + p;
    }
    b.sum[v] = b.sum[v] * alpha[v] + total;
  }
}

template <int MV>
void end_block(const Block<MV>& b, int64_t depth) {
  float inverse[MV * kLanes];
  for (int64_t m = 0; m < MV * kLanes; ++m) {
    const QueryRow& row = b.rows[std::min(m, b.count - 1)];
    const float sum = b.sum[m / kLanes][m % kLanes] + std::exp(row.sink - b.most[m / kLanes][m % kLanes]);
    inverse[m] = sum == 0 ? 0.f : 1.f / sum;  // NaN stays
  }
  for (int64_t m = 0; m < b.count; ++m) {
    for (int64_t d = 0; d < depth; ++d) b.rows[m].out[d] = b.ot[d * MV * kLanes + m] * inverse[m];
  }
}

template <int MV, int LD>
void run_blocks(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
                const AttentionRule& rule, int64_t context, float* scratch) {
  const int64_t depth = keys.head_dim, m_count = MV * kLanes, ld = LD ? LD : row_length(depth);
  const int64_t value_depth = values.head_dim, wide = padded(value_depth), value_ld = row_length(value_depth);
  float* key_tile = scratch;
  float* value_tile = key_tile + kTileKeys * ld;
  float* scores = value_tile + kTileKeys * value_ld;
  float* state = scores + kTileKeys * m_count;
  Block<MV> blocks[kLaneBlocks];
  const int64_t block_count = (count + m_count - 1) / m_count;
  int64_t first = context, last = 0;
  for (int64_t i = 0; i < block_count; ++i) {
    Block<MV>& b = blocks[i];
    b.rows = rows + i * m_count;
    b.count = std::min(m_count, count - i * m_count);
    b.qt = state + i * (padded(depth) + wide) * m_count;
    b.ot = b.qt + padded(depth) * m_count;
    begin_block(b, depth, value_depth, rule.scale);
    first = std::min(first, rule.first(b.lowest));
    last = std::max(last, rule.last(b.highest, context));
  }
  for (int64_t begin = first / kTileKeys * kTileKeys; begin < last; begin += kTileKeys) {
    const int64_t n_count = std::min(kTileKeys, last - begin);
    load_tile(keys, begin, n_count, key_tile, ld);
    load_tile(values, begin, n_count, value_tile, value_ld);
    for (int64_t i = 0; i < block_count; ++i) {
      Block<MV>& b = blocks[i];
      if (begin >= rule.last(b.highest, context) || begin + n_count <= rule.first(b.lowest)) continue;
      multiply_keys<MV, LD>(key_tile, b.qt, scores, n_count, depth, ld);
      const bool edge =
          (rule.causal && begin + n_count - 1 > b.lowest) || (rule.window > 0 && begin <= b.highest - rule.window);
      adjust<MV>(scores, b.rows, b.count, rule, begin, n_count, edge);
      V alpha[MV];
      weigh(b, scores, n_count, alpha);
      if (edge && !is_finite(value_tile, n_count, wide, value_ld))
        add_visible<MV>(value_tile, scores, alpha, b.ot, b.rows, b.count, rule, begin, n_count, context, wide,
                        value_ld);
      else
        add_values<MV>(value_tile, scores, alpha, b.ot, n_count, wide, value_ld);
    }
  }
  for (int64_t i = 0; i < block_count; ++i) end_block(blocks[i], value_depth);
}

template <int MV>
void choose_length(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
                   const AttentionRule& rule, int64_t context, float* scratch) {
  switch (row_length(keys.head_dim)) {
    case 80:
      return run_blocks<MV, 80>(rows, count, keys, values, rule, context, scratch);
    case 144:
      return run_blocks<MV, 144>(rows, count, keys, values, rule, context, scratch);
    case 272:
      return run_blocks<MV, 272>(rows, count, keys, values, rule, context, scratch);
    default:
      return run_blocks<MV, 0>(rows, count, keys, values, rule, context, scratch);
  }
}

}  // namespace

int64_t lanes_scratch(int64_t head_dim, int64_t value_dim) {
  const int64_t m_count = kLaneVectors * kLanes;
  return kLaneBlocks * (padded(head_dim) + padded(value_dim)) * m_count +
         kTileKeys * (row_length(head_dim) + row_length(value_dim)) + kTileKeys * m_count;
}

void lanes(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
           const AttentionRule& rule, int64_t context, float* scratch) {
  if (count > kLanes)
    choose_length<2>(rows, count, keys, values, rule, context, scratch);
  else
    choose_length<1>(rows, count, keys, values, rule, context, scratch);
}

}  // namespace q::cpu::Q_ISA
