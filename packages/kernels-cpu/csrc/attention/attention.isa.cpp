// split    partial attention of a few rows over the keys [begin, end) of one KV head: maximum, sum and weighted values;
//          decode
// combine  the softmax over all parts: M = max m_i; out = sum e^(m_i - M) O_i / (sum e^(m_i - M) l_i + e^(sink - M))
// rotate   (a, b) -> (a cos - b sin, b cos + a sin)
// layout   vectors along D; K and V rows are read in place from the paged cache, in any float dtype; scores of 64 keys
//          at a time
// floor    the bytes of K and V: 2 D keys * bytes of the dtype, read once per kSplitRows rows
// exact    splits begin at multiples of kSplitKeys positions: the same bits whatever the neighbours and threads
// ref      tensor/src/reference/attention.ts       bench  src/attention.bench.ts
#include <cmath>
#include "lanes.h"

namespace q::cpu::Q_ISA {
namespace {

constexpr float kLow = -1e30f;

template <class T>
inline V take(const T* p, int64_t count) {
  return count >= kLanes ? load(p) : load_part(p, count);
}

/// scores[n] = q . K[n] for n < count (a multiple of 4 pointers, the last ones repeated)
template <class T>
void score(const float* q, const T* const* keys, int64_t count, int64_t depth, float* scores) {
  for (int64_t n = 0; n < count; n += 4) {
    V acc[4] = {};
    for (int64_t d = 0; d < depth; d += kLanes) {
      const V query = take(q + d, depth - d);
      for (int i = 0; i < 4; ++i) acc[i] = fma(query, take(keys[n + i] + d, depth - d), acc[i]);
    }
    store4(scores + n, reduce4(acc[0], acc[1], acc[2], acc[3]));
  }
}

/// values[d] = values[d] * alpha + sum over n of p[n] * V[n][d]
template <class T>
void weigh(const float* p, const T* const* rows, int64_t count, int64_t depth, float alpha, float* values) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= depth; d += 4 * kLanes) {
    V acc[4];
    for (int i = 0; i < 4; ++i) acc[i] = load(values + d + i * kLanes) * alpha;
    for (int64_t n = 0; n < count; ++n) {
      const V weight = splat(p[n]);
      for (int i = 0; i < 4; ++i) acc[i] = fma(weight, load(rows[n] + d + i * kLanes), acc[i]);
    }
    for (int i = 0; i < 4; ++i) store(values + d + i * kLanes, acc[i]);
  }
  for (; d < depth; d += kLanes) {
    const int64_t part = std::min<int64_t>(kLanes, depth - d);
    V acc = take(values + d, part) * alpha;
    for (int64_t n = 0; n < count; ++n) acc = fma(splat(p[n]), take(rows[n] + d, part), acc);
    store_part(values + d, acc, part);
  }
}

/// Scale, ALiBi, distance bias, softcap and mask of one row's scores at keys begin ... begin + count; what is hidden
/// becomes minus infinity.
void adjust(float* scores, const QueryRow& row, const AttentionRule& rule, int64_t begin, int64_t count,
            int64_t context) {
  for (int64_t n = 0; n < count; n += kLanes) {
    V s = load(scores + n) * rule.scale;
    if (rule.alibi) {
      float distance[kLanes];
      for (int i = 0; i < kLanes; ++i) distance[i] = float(begin + n + i - row.position);
      s = fma(splat(row.slope), load(distance), s);
    }
    if (row.bias) {
      float term[kLanes];
      for (int i = 0; i < kLanes; ++i) term[i] = rule.bias(row, begin + n + i);
      s = s + load(term);
    }
    if (rule.softcap > 0) s = rule.softcap * tanh(s / rule.softcap);
    store(scores + n, s);
  }
  const int64_t first = rule.first(row.position) - begin, last = rule.last(row.position, context) - begin;
  for (int64_t n = 0; n < first && n < count; ++n) scores[n] = -INFINITY;
  for (int64_t n = std::max<int64_t>(last, 0); n < (count + kLanes - 1) / kLanes * kLanes; ++n) scores[n] = -INFINITY;
}

template <class T>
void split_rows(const QueryRow* rows, int64_t row_count, const PagedHead& keys, const PagedHead& values,
                const AttentionRule& rule, int64_t begin, int64_t end, Partial* partials) {
  const int64_t depth = keys.head_dim, value_depth = values.head_dim;
  for (int64_t r = 0; r < row_count; ++r) {
    partials[r].max = kLow;
    partials[r].sum = 0;
    std::memset(partials[r].values, 0, size_t(value_depth) * 4);
  }
  for (int64_t tile = begin; tile < end; tile += kTileKeys) {
    const int64_t count = std::min(kTileKeys, end - tile);
    const T *key_rows[kTileKeys], *value_rows[kTileKeys];
    for (int64_t n = 0; n < count; ++n) {
      key_rows[n] = reinterpret_cast<const T*>(paged_row(keys, tile + n, sizeof(T)));
      value_rows[n] = reinterpret_cast<const T*>(paged_row(values, tile + n, sizeof(T)));
    }
    for (int64_t n = count; n % 4; ++n) key_rows[n] = key_rows[count - 1];
    for (int64_t r = 0; r < row_count; ++r) {
      alignas(64) float scores[kTileKeys];
      Partial& part = partials[r];
      score(rows[r].query, key_rows, count, depth, scores);
      adjust(scores, rows[r], rule, tile, count, end);
      V most = splat(part.max), total = zero();
      for (int64_t n = 0; n < count; n += kLanes) most = max(most, load(scores + n));
      const float next = max_lanes(most);
      for (int64_t n = 0; n < count; n += kLanes) {
        const V p = exp(load(scores + n) - next);
        store(scores + n, p);
        total = total + p;
      }
      const float alpha = std::exp(part.max - next);
      part.max = next;
      part.sum = part.sum * alpha + sum_lanes(total);
      // Only what the row sees: a weight of 0 would bring in the NaN of a hidden key.
      const int64_t first = std::clamp<int64_t>(rule.first(rows[r].position) - tile, 0, count);
      const int64_t last = std::clamp<int64_t>(rule.last(rows[r].position, end) - tile, first, count);
      weigh(scores + first, value_rows + first, last - first, value_depth, alpha, part.values);
    }
  }
}

void split(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
           const AttentionRule& rule, int64_t begin, int64_t end, Partial* partials) {
  if (keys.dtype == DType::f16)
    split_rows<F16>(rows, count, keys, values, rule, begin, end, partials);
  else if (keys.dtype == DType::bf16)
    split_rows<BF16>(rows, count, keys, values, rule, begin, end, partials);
  else
    split_rows<float>(rows, count, keys, values, rule, begin, end, partials);
}

void combine(const Partial* partials, int64_t count, float* out, int64_t value_dim, float sink) {
  float most = kLow, sum = 0;
  for (int64_t i = 0; i < count; ++i) most = partials[i].max > most ? partials[i].max : most;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(partials[i].max - most) * partials[i].sum;
  sum += std::exp(sink - most);
  for (int64_t d = 0; d < value_dim; ++d) out[d] = 0;
  for (int64_t i = 0; i < count && sum != 0; ++i) {  // NaN stays
    const float weight = std::exp(partials[i].max - most) / sum;
    for (int64_t d = 0; d < value_dim; ++d) out[d] += weight * partials[i].values[d];
  }
}

void rotate(float* head, const float* cos, const float* sin, int64_t half, bool interleaved) {
  if (interleaved) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * cos[i] - b * sin[i];
      head[2 * i + 1] = b * cos[i] + a * sin[i];
    }
    return;
  }
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t part = std::min<int64_t>(kLanes, half - i);
    const V a = take(head + i, part), b = take(head + half + i, part), c = take(cos + i, part), s = take(sin + i, part);
    store_part(head + i, a * c - b * s, part);
    store_part(head + half + i, b * c + a * s, part);
  }
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels{
    kLaneBlocks * kLaneVectors * kLanes, lanes_scratch, lanes, split, combine, rotate};

}  // namespace q::cpu::Q_ISA
