// multiply, eagerLinear, eagerRope and eagerAttention: the maths; what is rounded where is said in
// tensor/src/driver/schema.ts
// floor   none is aimed at: these commands repeat another program's roundings; vectors keep a perplexity run in minutes
// exact   sums in a fixed order: a row's bits depend on its own values (int8: and on the outlier columns of the matrix)
// ref     tensor/src/reference/eager.ts
#include <cmath>
#include "../common/checks.h"
#include "../common/vmath.h"
#include "eager.h"

namespace q::cpu::Q_ISA {
namespace {

template <class T>
void round_as(float* x, int64_t n) {
  T narrow[kLanes];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(narrow, load(x + i));
    store(x + i, load(narrow));
  }
  for (; i < n; ++i) x[i] = to_float(from_float<T>(x[i]));
}

void round(float* x, int64_t n, DType dtype) {
  if (dtype == DType::f16) round_as<F16>(x, n);
  if (dtype == DType::bf16) round_as<BF16>(x, n);
}

inline float rounded(float x, DType dtype) {
  if (dtype == DType::f16) return to_float(to_f16(x));
  return dtype == DType::bf16 ? to_float(to_bf16(x)) : x;
}

void multiply(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] * b[i];
}

float dot(const float* a, const float* b, int64_t n) {
  V even = zero(), odd = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = fma(load(a + i), load(b + i), even);
    odd = fma(load(a + i + kLanes), load(b + i + kLanes), odd);
  }
  if (i + kLanes <= n) {
    even = fma(load(a + i), load(b + i), even);
    i += kLanes;
  }
  if (i < n) odd = fma(load_part(a + i, n - i), load_part(b + i, n - i), odd);
  return sum_lanes(even + odd);
}

float rounded_dot(const float* a, const float* b, int64_t n, DType dtype) {
  float products[64], sum = 0;
  for (int64_t i = 0; i < n; i += 64) {
    const int64_t count = std::min<int64_t>(64, n - i);
    multiply(a + i, b + i, products, count);
    round(products, count, dtype);
    for (int64_t j = 0; j < count; ++j) sum += products[j];
  }
  return sum;
}

int32_t dot_codes(const int16_t* a, const int16_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += int32_t(a[i]) * int32_t(b[i]);  // compilers know this loop: pairs multiplied and added
  return sum;
}

void int8(const EagerInt8& p, int64_t n0, int64_t n1, float* out, int16_t* codes, float* dense) {
  for (int64_t n = n0; n < n1; ++n) {
    const int8_t* w = p.weight + n * p.k;
    const float scb = p.scb[n], bias = p.bias ? p.bias[n] : 0.f;
    for (int64_t i = 0; i < p.k; ++i) codes[i] = w[i];
    for (int64_t i = 0; i < p.column_count; ++i) {
      const float product = float(w[p.columns[i]]) * scb;
      dense[i] = product * (1.f / 127.f);
    }
    round(dense, p.column_count, p.dtype);
    std::fill(dense + p.column_count, dense + p.column_ld, 0.f);
    for (int64_t r = 0; r < p.rows; ++r) {
      const float scaled = float(dot_codes(p.codes + r * p.k, codes, p.k)) * p.absmax[r] * scb;
      float y = to_float(to_f16(std::fma(scaled, 6.200012e-05f, p.fuses_bias ? bias : 0.f)));
      if (p.bias && !p.fuses_bias) y = to_float(to_f16(y + bias));
      y = rounded(y, p.dtype);
      if (p.column_count > 0) y = rounded(y + dot(p.outliers + r * p.column_ld, dense, p.column_ld), p.dtype);
      out[r * p.ld + n] = y;
    }
  }
}

/// A row of the cache as f32: in place, or widened into `wide`.
inline const float* cached(const PagedHead& head, int64_t position, float* wide) {
  const int64_t row =
      (int64_t(head.blocks[position / head.block_size]) * head.num_kv_heads + head.head) * head.block_size +
      position % head.block_size;
  const int64_t at = row * head.head_dim;
  if (head.dtype == DType::f32) return reinterpret_cast<const float*>(head.cache) + at;
  for (int64_t i = 0; i < head.head_dim; ++i) {
    wide[i] = head.dtype == DType::f16 ? to_float(reinterpret_cast<const F16*>(head.cache)[at + i])
                                       : to_float(reinterpret_cast<const BF16*>(head.cache)[at + i]);
  }
  return wide;
}

void attend(const QueryRow& row, const PagedHead& keys, const PagedHead& values, const AttentionRule& rule,
            int64_t context, DType dtype, float* scores) {
  const int64_t first = rule.first(row.position), last = rule.last(row.position, context),
                count = std::max<int64_t>(last - first, 0);
  float* wide = scores + context;
  float largest = row.sink;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t key = first + j;
    float score = dot(row.query, cached(keys, key, wide), keys.head_dim) * rule.scale;
    if (rule.alibi) score += row.slope * float(key - row.position);
    if (row.bias) score += rule.bias(row, key);
    if (rule.softcap > 0) score = rule.softcap * std::tanh(score / rule.softcap);
    scores[j] = score;
    largest = std::max(largest, score);
  }
  for (int64_t j = 0; j < count; j += kLanes) {
    const int64_t n = std::min<int64_t>(kLanes, count - j);
    store_part(scores + j, exp(load_part(scores + j, n) - largest), n);
  }
  float sum = row.sink == -INFINITY ? 0.f : std::exp(row.sink - largest);
  for (int64_t j = 0; j < count; ++j) sum += scores[j];
  round(scores, count, dtype);
  std::fill(row.out, row.out + values.head_dim, 0.f);
  for (int64_t j = 0; j < count; ++j) {
    const float* value = cached(values, first + j, wide);
    for (int64_t i = 0; i < values.head_dim; ++i) row.out[i] += scores[j] * value[i];
  }
  const float factor = sum == 0 ? 0.f : 1.f / sum;  // NaN stays
  for (int64_t i = 0; i < values.head_dim; ++i) row.out[i] *= factor;
  round(row.out, values.head_dim, dtype);
}

}  // namespace

const EagerKernels eager_kernels = {round, multiply, dot, rounded_dot, int8, attend};

}  // namespace q::cpu::Q_ISA
