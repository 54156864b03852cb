// multiply, eagerLinear, eagerRope, eagerHeadNorm and eagerAttention: splitting over threads; maths in eager.isa.cpp.
#include <cmath>
#include <cstring>
#include "../attention/arguments.h"
#include "../common/bnb_codes.h"
#include "../common/float_types.h"
#include "../memory/cells.h"
#include "eager.h"

namespace q::cpu {
namespace {

using Part = EagerLinearArgsItem;

const EagerKernels& kernels(Context& context) { return eager_kernels(context.features.isa); }

float rounded(float x, DType dtype) {
  if (dtype == DType::f16) return to_float(to_f16(x));
  return dtype == DType::bf16 ? to_float(to_bf16(x)) : x;
}

/// A copy of [count] as f32, rounded.
float* rounded_copy(const Tensor& t, int64_t at, int64_t count, DType dtype, Context& context, float* to) {
  cell_kernels(context.features.isa).cast(t.as<char>() + at * dtype_bytes(t.dtype), t.dtype, to, DType::f32, count);
  kernels(context).round(to, count, dtype);
  return to;
}

struct Problem {
  const EagerLinearArgs& a;
  DType dtype;
  int64_t width;
  float* out(int64_t first) const { return a.out.as<float>() + first; }
};

const float* bias_of(const Part& p, DType dtype, Context& context) {
  if (!p.bias) return nullptr;
  return rounded_copy(p.bias, 0, p.n, dtype, context, context.scratch.take_array<float>(size_t(p.n)));
}

void run_dense(const Problem& problem, const Part& p, int64_t first, Context& context) {
  const EagerLinearArgs& a = problem.a;
  const float* bias = bias_of(p, DType::f32, context);
  float* rows = context.scratch.take_array<float>(size_t(a.k * context.workers.threads()));
  context.workers.parallel(p.n, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; ++n) {
      const float* w = rounded_copy(p.weight, n * a.k, a.k, DType::f32, context, rows + thread * a.k);
      for (int64_t r = 0; r < a.rows; ++r) {
        problem.out(first)[r * problem.width + n] =
            rounded(kernels(context).dot(a.x.as<float>() + r * a.k, w, a.k) + (bias ? bias[n] : 0.f), problem.dtype);
      }
    }
  });
}

float absmax_of(const Part& p, int64_t block) {
  if (!p.nested_absmax) return p.absmax.as<float>()[block];
  const float product = p.nested_code.as<float>()[p.absmax.as<uint8_t>()[block]] *
                        p.nested_absmax.as<float>()[block / p.nested_block_size];
  return product + *p.offset.as<float>();
}

void run_bnb4(const Problem& problem, const Part& p, int64_t first, Context& context) {
  const EagerLinearArgs& a = problem.a;
  const DType compute = DType(p.compute_dtype);
  const bool few = a.rows <= 4 && a.k % p.block_size == 0;
  const float* book = p.quant_type == int64_t(QuantType::nf4) ? kNf4 : kFp4;
  const float* bias = bias_of(p, compute, context);
  const float* x =
      rounded_copy(a.x, 0, a.rows * a.k, compute, context, context.scratch.take_array<float>(size_t(a.rows * a.k)));
  float* rows = context.scratch.take_array<float>(size_t(a.k * context.workers.threads()));
  context.workers.parallel(p.n, 1, [&](int64_t begin, int64_t end, int thread) {
    float* w = rows + thread * a.k;
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t i = 0; i < a.k; ++i) {
        const int64_t at = n * a.k + i;
        const float code = book[p.weight.as<uint8_t>()[at / 2] >> (at % 2 ? 0 : 4) & 15],
                    absmax = absmax_of(p, at / p.block_size);
        w[i] = few ? rounded(code, compute) * rounded(absmax, compute) : code * absmax;
      }
      kernels(context).round(w, a.k, compute);
      for (int64_t r = 0; r < a.rows; ++r) {
        const float sum = few ? kernels(context).rounded_dot(x + r * a.k, w, a.k, compute)
                              : kernels(context).dot(x + r * a.k, w, a.k);
        problem.out(first)[r * problem.width + n] =
            rounded(rounded(sum + (bias ? bias[n] : 0.f), compute), problem.dtype);
      }
    }
  });
}

/// Codes and absmax of one row; elements of outlier columns get code 0, elements at or above the limit do not count for
/// the absmax. A NaN has no code: the absmax is NaN then, and with it every sum of the row.
float quantize_row(const float* x, const uint8_t* outlier, int64_t k, float limit, int16_t* codes) {
  float absmax = 0;
  bool nan = false;
  for (int64_t i = 0; i < k; ++i) {
    absmax = std::max(absmax, std::fabs(x[i]) < limit ? std::fabs(x[i]) : 0.f);
    nan |= std::isnan(x[i]);
  }
  const float scale = absmax > 0 ? 127.f * (1.f / absmax) : 0.f;
  for (int64_t i = 0; i < k; ++i)
    codes[i] = outlier[i] || std::isnan(x[i])
                   ? int16_t(0)
                   : int16_t(int32_t(x[i] * scale + 12582912.f - 12582912.f));  // 1.5 * 2^23: rounds to even
  return nan ? NAN : absmax;
}

void run_int8(const Problem& problem, const Part& p, int64_t first, Context& context) {
  const EagerLinearArgs& a = problem.a;
  const float limit = p.threshold > 0 ? float(p.threshold) : INFINITY;
  const int64_t count = a.rows * a.k;
  const float* x = rounded_copy(a.x, 0, count, DType::f16, context, context.scratch.take_array<float>(size_t(count)));
  uint8_t* outlier = context.scratch.take_array<uint8_t>(size_t(a.k));
  std::memset(outlier, 0, size_t(a.k));
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t i = 0; i < a.k; ++i) outlier[i] |= uint8_t(std::fabs(x[r * a.k + i]) >= limit);
  }
  int32_t* columns = context.scratch.take_array<int32_t>(size_t(a.k));
  int64_t column_count = 0;
  for (int64_t i = 0; i < a.k; ++i) {
    if (outlier[i]) columns[column_count++] = int32_t(i);
  }
  int16_t* codes = context.scratch.take_array<int16_t>(size_t(count));
  float* absmax = context.scratch.take_array<float>(size_t(a.rows));
  const int64_t column_ld = (column_count + 15) / 16 * 16;
  float* outliers = context.scratch.take_array<float>(size_t(a.rows * column_ld));
  context.workers.parallel(a.rows, rows_grain(a.k), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      absmax[r] = quantize_row(x + r * a.k, outlier, a.k, limit, codes + r * a.k);
      float* row = outliers + r * column_ld;
      for (int64_t i = 0; i < column_count; ++i) row[i] = rounded(a.x.as<float>()[r * a.k + columns[i]], problem.dtype);
      std::fill(row + column_count, row + column_ld, 0.f);
    }
  });
  const EagerInt8 part{p.weight.as<int8_t>(),
                       p.absmax.as<float>(),
                       bias_of(p, DType::f32, context),
                       codes,
                       absmax,
                       columns,
                       column_count,
                       column_ld,
                       outliers,
                       a.rows,
                       a.k,
                       problem.width,
                       problem.dtype == DType::f16,
                       problem.dtype};
  int16_t* weights = context.scratch.take_array<int16_t>(size_t(a.k * context.workers.threads()));
  float* dense = context.scratch.take_array<float>(size_t(column_ld * context.workers.threads()));
  context.workers.parallel(p.n, 1, [&](int64_t begin, int64_t end, int thread) {
    kernels(context).int8(part, begin, end, problem.out(first), weights + thread * a.k, dense + thread * column_ld);
  });
}

}  // namespace

void run(const MultiplyArgs& a, Context& context) {
  float* wide = context.scratch.take_array<float>(size_t(a.width * context.workers.threads()));
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int thread) {
    for (int64_t row = begin; row < end; ++row) {
      const float* b = a.b.as<float>() + row * a.b_stride;
      if (a.b.dtype != DType::f32)
        b = rounded_copy(a.b, row * a.b_stride, a.width, DType::f32, context, wide + thread * a.width);
      kernels(context).multiply(a.a.as<float>() + row * a.a_stride, b, a.out.as<float>() + row * a.width, a.width);
    }
  });
}

void run(const EagerLinearArgs& a, Context& context) {
  Problem problem{a, DType(a.dtype), 0};
  for (int64_t i = 0; i < a.parts_count; ++i) problem.width += a.parts[i].n;
  if (a.rows == 0) return;
  int64_t first = 0;
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const Part& p = a.parts[i];
    if (p.kind == int64_t(WeightKind::dense))
      run_dense(problem, p, first, context);
    else if (p.kind == int64_t(WeightKind::bnb4))
      run_bnb4(problem, p, first, context);
    else
      run_int8(problem, p, first, context);
    first += p.n;
  }
}

void run(const EagerRopeArgs& a, Context& context) {
  if (a.tokens == 0) return;
  const int64_t group = a.num_heads / a.num_kv_heads, half = a.rotary_dim / 2;
  const int32_t* sequences = a.sequence_of.as<int32_t>();
  for (int64_t t = 0; t < a.tokens; ++t) check(sequences[t] >= 0, "sequenceOf has a negative sequence");
  const int64_t tables = a.per_sequence ? *std::max_element(sequences, sequences + a.tokens) + int64_t(1) : 1;
  check_size(a.inverse_frequencies, tables * half, "inverseFrequencies");
  const DType dtype = DType(a.dtype);
  context.workers.parallel(
      a.tokens, rows_grain((a.num_heads + a.num_kv_heads) * a.head_dim), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          float* row = a.qkv.as<float>() + t * a.row_stride;
          for (int64_t i = 0; i < half; ++i) {
            const float angle = float(a.positions.as<int32_t>()[t]) *
                                a.inverse_frequencies.as<float>()[(a.per_sequence ? sequences[t] * half : 0) + i];
            const float cos = rounded(std::cos(angle) * float(a.rope_scale), dtype),
                        sin = rounded(std::sin(angle) * float(a.rope_scale), dtype);
            for (int64_t h = 0; h < a.num_heads + a.num_kv_heads; ++h) {
              float* head = row +
                            (h < a.num_heads ? a.q_offset + h / group * a.q_group_stride + h % group * a.head_dim
                                             : a.k_offset + (h - a.num_heads) * a.kv_stride) +
                            a.rotary_offset;
              float &x = head[a.interleaved ? 2 * i : i], &y = head[a.interleaved ? 2 * i + 1 : i + half];
              const float first = x, second = y;
              x = rounded(rounded(first * cos, dtype) - rounded(second * sin, dtype), dtype);
              y = rounded(rounded(second * cos, dtype) + rounded(first * sin, dtype), dtype);
            }
          }
          const float scaling = rounded(query_scaling(a, a.positions.as<int32_t>()[t]), dtype);
          for (int64_t h = 0; h < a.num_heads && a.scaling_beta != 0; ++h) {
            float* query = row + a.q_offset + h / group * a.q_group_stride + h % group * a.head_dim;
            for (int64_t i = 0; i < a.head_dim; ++i) query[i] = rounded(query[i] * scaling, dtype);
          }
        }
      });
}

void run(const EagerAttentionArgs& a, Context& context) {
  if (a.tokens == 0 || a.sequences == 0) return;
  const DType dtype = DType(a.dtype);
  const int32_t *starts = a.sequence_starts.as<int32_t>(), *lengths = a.context_lengths.as<int32_t>();
  int64_t longest = 0;
  for (int64_t b = 0; b < a.sequences; ++b) {
    check_sequence(a, b, starts[b], starts[b + 1], lengths[b]);
    longest = std::max<int64_t>(longest, lengths[b]);
  }
  const int64_t group = a.num_heads / a.num_kv_heads,
                per_thread = (longest + std::max(a.head_dim, a.value_dim) + 63) / 16 * 16;
  float* scratch = context.scratch.take_array<float>(size_t(per_thread * context.workers.threads()));
  const AttentionRule rule = rule_of(a);
  const float* sinks = sinks_of(a, context);
  for (int64_t b = 0; b < a.sequences; ++b) {
    const int64_t queries = starts[b + 1] - starts[b], length = lengths[b];
    const int32_t* table = a.block_tables.as<int32_t>() + b * a.max_blocks;
    context.workers.parallel(queries * a.num_heads, 4, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t item = begin; item < end && !context.workers.cancelled(); ++item) {
        const int64_t query = item / a.num_heads, head = item % a.num_heads, kv_head = head / group,
                      token = starts[b] + query, position = length - queries + query;
        const QueryRow row{a.qkv.as<float>() + token * a.row_stride + a.q_offset + kv_head * a.q_group_stride +
                               head % group * a.head_dim,
                           a.out.as<float>() + (token * a.num_heads + head) * a.value_dim,
                           bias_column(a, head),
                           position,
                           a.alibi_slopes ? a.alibi_slopes.as<float>()[head] : 0.f,
                           sinks[head]};
        const PagedHead keys{a.key_cache.as<char>(), a.key_cache.dtype, table, a.num_kv_heads, kv_head,
                             a.block_size,           a.head_dim};
        PagedHead values = keys;
        values.cache = a.value_cache.as<char>();
        values.head_dim = a.value_dim;
        kernels(context).attend(row, keys, values, rule, length, dtype, scratch + thread * per_thread);
      }
    });
  }
}

}  // namespace q::cpu
