// multiply, eagerLinear, eagerRope, eagerAttention: the steps of an unfused PyTorch model, for comparison with it; no
// fast path
// maths   what is rounded where is said in tensor/src/driver/schema.ts
// launch  linear: a warp an output; attention: a warp a query and head, its scores in global scratch; rope: a thread a
//         pair and head
// exact   fixed order: same bits each run; int8 outlier columns are those of the whole matrix; ref
//         tensor/src/reference/eager.ts
#include "../attention/params.h"
#include "../quant/codebook.h"
#include "../quant/rounding.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__constant__ float kEagerBooks[2][16] = {
    {kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8], kNf4[9], kNf4[10], kNf4[11],
     kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8], kFp4[9], kFp4[10], kFp4[11],
     kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

__global__ void multiply_kernel(const void* a, const void* b, void* out, DType act, DType b_dtype, int64_t rows,
                                int64_t width, int64_t a_stride, int64_t b_stride) {
  pdl_begin();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * width) return;
  const int64_t row = i / width, column = i % width;
  store_any(out, act, i, load_any(a, act, row * a_stride + column) * load_any(b, b_dtype, row * b_stride + column));
}

// ---- linear

struct EagerPart {
  const void *x, *bias, *absmax;
  const uint8_t* weight;
  const float *nested_absmax, *nested_code, *offset;
  void* out;  // first column of the part
  int64_t rows, k, n, width, block_size, nested_block_size;
  DType act, weight_dtype, bias_dtype, dtype, compute;
  int book;
  bool few;
  // int8
  const int8_t* codes;      // [rows, k]
  const float* row_absmax;  // [rows]
  const int* outlier;       // [k], 1 in outlier columns
};

/// An output of this warp, or none past the last.
__device__ __forceinline__ bool own_output(const EagerPart& p, int64_t& row, int64_t& column) {
  const int64_t item = int64_t(blockIdx.x) * kWarps + (threadIdx.x >> 5);
  row = item / p.n;
  column = item % p.n;
  return item < p.rows * p.n;
}

__device__ __forceinline__ float bias_at(const EagerPart& p, int64_t column) {
  return p.bias ? load_any(p.bias, p.bias_dtype, column) : 0.f;
}

__global__ void __launch_bounds__(kThreads) eager_dense(EagerPart p) {
  pdl_begin();
  int64_t row, column;
  if (!own_output(p, row, column)) return;
  float sum = 0.f;
  for (int64_t i = threadIdx.x & 31; i < p.k; i += 32)
    sum = fmaf(load_any(p.x, p.act, row * p.k + i), load_any(p.weight, p.weight_dtype, column * p.k + i), sum);
  sum = warp_reduce<Sum>(sum);
  if ((threadIdx.x & 31) == 0)
    store_any(p.out, p.act, row * p.width + column, rounded(sum + bias_at(p, column), p.dtype));
}

__device__ __forceinline__ float absmax_of(const EagerPart& p, int64_t block) {
  if (!p.nested_absmax) return static_cast<const float*>(p.absmax)[block];
  return __fadd_rn(__fmul_rn(p.nested_code[static_cast<const uint8_t*>(p.absmax)[block]],
                             p.nested_absmax[block / p.nested_block_size]),
                   *p.offset);
}

__global__ void __launch_bounds__(kThreads) eager_bnb4(EagerPart p) {
  pdl_begin();
  int64_t row, column;
  if (!own_output(p, row, column)) return;
  float sum = 0.f;
  for (int64_t i = threadIdx.x & 31; i < p.k; i += 32) {
    const int64_t at = column * p.k + i;
    const float code = kEagerBooks[p.book][p.weight[at >> 1] >> (at & 1 ? 0 : 4) & 15],
                absmax = absmax_of(p, at / p.block_size);
    const float w = p.few ? rounded(__fmul_rn(rounded(code, p.compute), rounded(absmax, p.compute)), p.compute)
                          : rounded(__fmul_rn(code, absmax), p.compute);
    const float product = __fmul_rn(rounded(load_any(p.x, p.act, row * p.k + i), p.compute), w);
    sum = __fadd_rn(sum, p.few ? rounded(product, p.compute) : product);
  }
  sum = warp_reduce<Sum>(sum);
  if ((threadIdx.x & 31) == 0) {
    const float y = rounded(sum + rounded(bias_at(p, column), p.compute), p.compute);
    store_any(p.out, p.act, row * p.width + column, rounded(y, p.dtype));
  }
}

/// outlier[i] = 1 where any row has |x| >= limit; a thread a column.
__global__ void eager_outliers(const void* x, DType act, int64_t rows, int64_t k, float limit, int* outlier) {
  pdl_begin();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= k) return;
  bool any = false;
  for (int64_t row = 0; row < rows && !any; ++row)
    any = fabsf(rounded(load_any(x, act, row * k + i), DType::f16)) >= limit;
  outlier[i] = any;
}

/// Codes and absmax of a row; a block a row. Elements of outlier columns get code 0, elements at or above the limit do
/// not count for the absmax.
__global__ void __launch_bounds__(kThreads) eager_quantize(const void* x, DType act, int64_t k, float limit,
                                                           const int* outlier, int8_t* codes, float* row_absmax) {
  __shared__ float shared[32];
  pdl_begin();
  const int64_t row = blockIdx.x;
  float absmax = 0.f;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    const float magnitude = fabsf(rounded(load_any(x, act, row * k + i), DType::f16));
    if (magnitude < limit) absmax = fmaxf(absmax, magnitude);
  }
  absmax = block_reduce<Max>(absmax, shared);
  const float scale = absmax > 0.f ? fast_divide(127.f, absmax) : 0.f;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    const float v = rounded(load_any(x, act, row * k + i), DType::f16);
    codes[row * k + i] = outlier[i] ? int8_t(0) : static_cast<int8_t>(__float2int_rn(v * scale));
  }
  if (threadIdx.x == 0) row_absmax[row] = absmax;
}

__global__ void __launch_bounds__(kThreads) eager_int8(EagerPart p) {
  pdl_begin();
  int64_t row, column;
  if (!own_output(p, row, column)) return;
  const float scb = static_cast<const float*>(p.absmax)[column];
  bool mixed = false;
  int integer = 0;
  float sum = 0.f;
  for (int64_t i = threadIdx.x & 31; i < p.k; i += 32) {
    const int code = reinterpret_cast<const int8_t*>(p.weight)[column * p.k + i];
    integer += code * p.codes[row * p.k + i];
    if (p.outlier[i]) {
      mixed = true;
      const float dense = rounded(__fmul_rn(__fmul_rn(static_cast<float>(code), scb), 1.f / 127.f), p.dtype);
      sum = fmaf(rounded(load_any(p.x, p.act, row * p.k + i), p.dtype), dense, sum);
    }
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) integer += __shfl_xor_sync(0xffffffffu, integer, o);
  sum = warp_reduce<Sum>(sum);
  mixed = __any_sync(0xffffffffu, mixed);
  if ((threadIdx.x & 31) != 0) return;
  const bool fused = p.dtype == DType::f16;
  const float scaled = __fmul_rn(__fmul_rn(static_cast<float>(integer), p.row_absmax[row]), scb);
  float y = rounded(fmaf(scaled, 6.200012e-05f, fused ? bias_at(p, column) : 0.f), DType::f16);
  if (p.bias && !fused) y = rounded(y + bias_at(p, column), DType::f16);
  y = rounded(y, p.dtype);
  store_any(p.out, p.act, row * p.width + column, mixed ? rounded(y + sum, p.dtype) : y);
}

void run_int8(EagerPart p, float threshold, Context& c) {
  int* outlier = c.workspace.take_array<int>(static_cast<size_t>(p.k));
  int8_t* codes = c.workspace.take_array<int8_t>(static_cast<size_t>(p.rows * p.k));
  float* row_absmax = c.workspace.take_array<float>(static_cast<size_t>(p.rows));
  const float limit = threshold > 0.f ? threshold : INFINITY;
  launch(c, "eagerLinear", eager_outliers, blocks_for(p.k, kThreads), kThreads, 0, p.x, p.act, p.rows, p.k, limit,
         outlier);
  launch(c, "eagerLinear", eager_quantize, static_cast<unsigned>(p.rows), kThreads, 0, p.x, p.act, p.k, limit, outlier,
         codes, row_absmax);
  p.codes = codes;
  p.row_absmax = row_absmax;
  p.outlier = outlier;
  launch(c, "eagerLinear", eager_int8, blocks_for(p.rows * p.n, kWarps), kThreads, 0, p);
}

// ---- rope

__global__ void __launch_bounds__(kThreads)
    eager_rope(EagerRopeArgs a, const int32_t* positions, const int32_t* sequences, const float* frequencies,
               DType dtype) {
  pdl_begin();
  const DType act = a.qkv.dtype;
  const int64_t half = a.rotary_dim / 2, heads = a.num_heads + a.num_kv_heads, group = a.num_heads / a.num_kv_heads;
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.tokens * heads * half) return;
  const int64_t i = item % half, h = item / half % heads, token = item / half / heads;
  const int64_t sequence = a.per_sequence ? sequences[token] : 0;
  const float angle = __fmul_rn(static_cast<float>(positions[token]), frequencies[sequence * half + i]);
  float sin, cos;
  sincosf(angle, &sin, &cos);
  sin = rounded(sin * static_cast<float>(a.rope_scale), dtype);
  cos = rounded(cos * static_cast<float>(a.rope_scale), dtype);
  const int64_t head = token * a.row_stride +
                       (h < a.num_heads ? a.q_offset + h / group * a.q_group_stride + h % group * a.head_dim
                                        : a.k_offset + (h - a.num_heads) * a.kv_stride) +
                       a.rotary_offset;
  const int64_t x = head + (a.interleaved ? 2 * i : i), y = head + (a.interleaved ? 2 * i + 1 : i + half);
  const float first = load_any(a.qkv.data, act, x), second = load_any(a.qkv.data, act, y);
  store_any(a.qkv.data, act, x,
            rounded(__fsub_rn(rounded(__fmul_rn(first, cos), dtype), rounded(__fmul_rn(second, sin), dtype)), dtype));
  store_any(a.qkv.data, act, y,
            rounded(__fadd_rn(rounded(__fmul_rn(second, cos), dtype), rounded(__fmul_rn(first, sin), dtype)), dtype));
}

/// Rotated queries times their position's scaling.
__global__ void __launch_bounds__(kThreads) eager_scale(EagerRopeArgs a, const int32_t* positions, DType dtype) {
  pdl_begin();
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.tokens * a.num_heads * a.head_dim) return;
  const int64_t i = item % a.head_dim, h = item / a.head_dim % a.num_heads, token = item / a.head_dim / a.num_heads;
  const int64_t group = a.num_heads / a.num_kv_heads;
  const int64_t at = token * a.row_stride + a.q_offset + h / group * a.q_group_stride + h % group * a.head_dim + i;
  const float steps = static_cast<float>(positions[token] / static_cast<int>(a.scaling_length));
  const float scaling = rounded(1.f + static_cast<float>(a.scaling_beta) * logf(1.f + steps), dtype);
  store_any(a.qkv.data, a.qkv.dtype, at, rounded(load_any(a.qkv.data, a.qkv.dtype, at) * scaling, dtype));
}

// ---- attention

constexpr int kMostPerLane = 16;  // head sizes up to 512

/// A warp walks over (token, head) items; its scores lie in `scratch`, maxContext floats a warp.
__global__ void __launch_bounds__(128)
    eager_attention(AttentionParams p, int64_t tokens, DType dtype, float* scratch, int64_t most, int64_t warps) {
  pdl_begin();
  const int lane = threadIdx.x & 31;
  const int64_t warp = int64_t(blockIdx.x) * 4 + (threadIdx.x >> 5);
  if (warp >= warps) return;
  float* scores = scratch + warp * most;
  for (int64_t item = warp; item < tokens * p.heads; item += warps) {
    const int64_t token = item / p.heads;
    const int head = static_cast<int>(item % p.heads);
    const auto [context, query, table] = p.query_of(token);
    const int first = p.first_key(query), visible = p.causal && query + 1 < context ? query + 1 : context,
              last = visible < first + most ? visible : first + static_cast<int>(most);  // scores end there
    float q[kMostPerLane], o[kMostPerLane];
#pragma unroll
    for (int j = 0; j < kMostPerLane; ++j) {
      const int d = lane + 32 * j;
      q[j] = d < p.head_dim ? load_any(p.qkv, p.act, p.query_offset(token, head) + d) : 0.f;
      o[j] = 0.f;
    }
    const float sink = p.sinks ? load_any(p.sinks, p.sinks_dtype, head) : -INFINITY;
    float largest = sink, total = 0.f;
    for (int key = first; key < last; ++key) {
      const int64_t slot = p.slot(table, key, head / p.group_size) * p.head_dim;
      float product = 0.f;
#pragma unroll
      for (int j = 0; j < kMostPerLane; ++j) {
        const int d = lane + 32 * j;
        if (d < p.head_dim) product = fmaf(q[j], load_any(p.keys, p.cache, slot + d), product);
      }
      const float s = p.score(warp_reduce<Sum>(product), head, query, key);
      largest = fmaxf(largest, s);
      if (lane == 0) scores[key - first] = s;
    }
    __syncwarp();
    if (p.sinks) total = expf(sink - (largest == -INFINITY ? 0.f : largest));
    for (int key = first; key < last; ++key) {
      const float weight = expf(scores[key - first] - largest), narrow = rounded(weight, dtype);
      total += weight;
      const int64_t slot = p.slot(table, key, head / p.group_size) * p.value_dim;
#pragma unroll
      for (int j = 0; j < kMostPerLane; ++j) {
        const int d = lane + 32 * j;
        if (d < p.value_dim) o[j] = fmaf(narrow, load_any(p.values, p.cache, slot + d), o[j]);
      }
    }
    __syncwarp();
    const float factor = total == 0.f ? 0.f : 1.f / total;
#pragma unroll
    for (int j = 0; j < kMostPerLane; ++j) {
      const int d = lane + 32 * j;
      if (d < p.value_dim)
        store_any(p.out, p.act, (token * p.heads + head) * p.value_dim + d, rounded(o[j] * factor, dtype));
    }
  }
}

}  // namespace

void run(const MultiplyArgs& a, Context& c) {
  if (a.rows * a.width == 0) return;
  launch(c, "multiply", multiply_kernel, blocks_for(a.rows * a.width, kThreads), kThreads, 0, a.a.data, a.b.data,
         a.out.data, a.out.dtype, a.b.dtype, a.rows, a.width, a.a_stride, a.b_stride);
}

void run(const EagerLinearArgs& a, Context& c) {
  const DType dtype = static_cast<DType>(a.dtype);
  if (a.rows == 0) return;
  int64_t width = 0, first = 0;
  for (int64_t i = 0; i < a.parts_count; ++i) width += a.parts[i].n;
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const EagerLinearArgsItem& part = a.parts[i];
    EagerPart p{};
    p.x = a.x.data;
    p.bias = part.bias.data;
    p.absmax = part.absmax.data;
    p.weight = part.weight.as<const uint8_t>();
    p.nested_absmax = part.nested_absmax.as<const float>();
    p.nested_code = part.nested_code.as<const float>();
    p.offset = part.offset.as<const float>();
    p.out = a.out.as<char>() + first * dtype_bytes(a.out.dtype);
    p.rows = a.rows;
    p.k = a.k;
    p.n = part.n;
    p.width = width;
    p.block_size = part.block_size;
    p.nested_block_size = part.nested_block_size;
    p.act = a.x.dtype;
    p.weight_dtype = part.weight.dtype;
    p.bias_dtype = part.bias.dtype;
    p.dtype = dtype;
    first += part.n;
    if (part.n == 0) continue;
    const unsigned blocks = blocks_for(a.rows * part.n, kWarps);
    switch (static_cast<WeightKind>(part.kind)) {
      case WeightKind::dense:
        launch(c, "eagerLinear", eager_dense, blocks, kThreads, 0, p);
        continue;
      case WeightKind::bnb4:
        p.compute = static_cast<DType>(part.compute_dtype);
        p.book = static_cast<int>(part.quant_type);
        p.few = a.rows <= 4 && a.k % part.block_size == 0;
        launch(c, "eagerLinear", eager_bnb4, blocks, kThreads, 0, p);
        continue;
      case WeightKind::int8:
        run_int8(p, static_cast<float>(part.threshold), c);
        continue;
    }
  }
}

void run(const EagerRopeArgs& a, Context& c) {
  const DType dtype = static_cast<DType>(a.dtype);
  if (a.tokens == 0) return;
  const int64_t items = a.tokens * (a.num_heads + a.num_kv_heads) * (a.rotary_dim / 2);
  launch(c, "eagerRope", eager_rope, blocks_for(items, kThreads), kThreads, 0, a, a.positions.as<const int32_t>(),
         a.sequence_of.as<const int32_t>(), a.inverse_frequencies.as<const float>(), dtype);
  if (a.scaling_beta != 0 && a.num_heads > 0)
    launch(c, "eagerRope", eager_scale, blocks_for(a.tokens * a.num_heads * a.head_dim, kThreads), kThreads, 0, a,
           a.positions.as<const int32_t>(), dtype);
}

void run(const EagerAttentionArgs& a, Context& c) {
  require(a.head_dim <= 32 * kMostPerLane && a.value_dim <= 32 * kMostPerLane,
          "eagerAttention: headDim and valueDim are at most 512");
  const DType dtype = static_cast<DType>(a.dtype);
  if (a.tokens == 0 || a.sequences == 0) return;
  const int64_t items = a.tokens * a.num_heads, most = a.max_context;
  const int64_t warps = items < 64ll * c.multiprocessors ? items : 64ll * c.multiprocessors;
  float* scratch = c.workspace.take_array<float>(static_cast<size_t>(warps * most));
  launch(c, "eagerAttention", eager_attention, blocks_for(warps, 4), 128, 0, attention_params(a), a.tokens, dtype,
         scratch, most, warps);
}

}  // namespace q::cuda
