// What the attention kernels share: arguments as the device sees them, the paged cache, scores and masks.
#pragma once
#include "device.cuh"

namespace q::cuda {

struct AttentionParams {
  const void* qkv;
  const void *keys, *values;
  void* out;
  const int32_t *starts, *contexts, *tables;
  const float* slopes;  // may be null
  const float* bias;    // [distances, heads], may be null
  const void* sinks;    // float [heads], may be null
  DType sinks_dtype;
  int distances, bias_offset;
  int sequences, heads, kv_heads, group_size;
  int head_dim, value_dim;  // of queries and keys; of values and out
  float scale, softcap;
  bool causal;
  int window;  // 0: none
  int64_t q_offset, q_group_stride, row_stride;
  int block_size, block_shift;  // shift -1: block_size is no power of two
  int max_blocks;
  DType act, cache;

  /// Row of position p of a sequence, head g, in a cache layer; rows are head_dim or value_dim values apart.
  __device__ __forceinline__ int64_t slot(const int32_t* table, int p, int g) const {
    const int block = block_shift >= 0 ? p >> block_shift : p / block_size;
    const int within = block_shift >= 0 ? p & (block_size - 1) : p % block_size;
    return (int64_t(table[block]) * kv_heads + g) * block_size + within;
  }
  __device__ __forceinline__ int64_t query_offset(int64_t token, int head) const {
    return token * row_stride + q_offset + (head / group_size) * q_group_stride + int64_t(head % group_size) * head_dim;
  }
  /// Where a token of the batch is: its sequence's context and block table, and its own position.
  struct Query {
    int context, position;
    const int32_t* table;
  };
  __device__ __forceinline__ Query query_of(int64_t token) const {
    int low = 0, high = sequences;  // the sequence that holds the token: starts[low] <= token < starts[low + 1]
    while (high - low > 1) {
      const int mid = (low + high) / 2;
      if (starts[mid] <= token)
        low = mid;
      else
        high = mid;
    }
    const int context = contexts[low], length = starts[low + 1] - starts[low];
    return {context, context - length + static_cast<int>(token - starts[low]), tables + int64_t(low) * max_blocks};
  }
  /// Whether a block of a prefill keeps its head's column of the distance bias in shared memory.
  __host__ __device__ bool staged() const { return bias && distances <= 2048; }
  /// Whether scores need more than scaling.
  __host__ __device__ bool modified() const { return slopes || bias || softcap > 0.f; }
  /// The row of the distance bias that a key has for a query.
  __device__ __forceinline__ int distance(int query, int key) const {
    const int row = key - query + bias_offset;
    return row < 0 ? 0 : row < distances ? row : distances - 1;
  }
  /// A raw product as a score: scaled, with ALiBi and distance bias, softcapped.
  __device__ __forceinline__ float score(float product, int head, int query, int key) const {
    return score(product, head, query, key, bias + head, heads);
  }
  /// The same with the head's column of the distance bias elsewhere, its rows `stride` apart.
  __device__ __forceinline__ float score(float product, int head, int query, int key, const float* column,
                                         int stride) const {
    float s = product * scale;
    if (slopes) s += slopes[head] * static_cast<float>(key - query);
    if (bias) s += column[int64_t(distance(query, key)) * stride];
    if (softcap > 0.f) s = softcap * tanhf(s / softcap);
    return s;
  }
  /// The sum of a row's weights with that of its head's sink: weights are relative to `largest`, in log2 units. Not in
  /// any loop over keys. A sink far above all scores makes the sum infinite, and the row zeros, as it should.
  __device__ __forceinline__ float with_sink(float total, float largest, int head) const {
    if (!sinks) return total;
    const float sink = load_any(sinks, sinks_dtype, head) * 1.4426950408889634f;
    return total + exp2f(largest == -INFINITY ? sink : sink - largest);
  }
  __device__ __forceinline__ bool visible(int query, int key, int context) const {
    return key < context && !(causal && key > query) && !(window > 0 && key <= query - window);
  }
  /// First key that a query sees.
  __device__ __forceinline__ int first_key(int query) const {
    return window > 0 && query - window + 1 > 0 ? query - window + 1 : 0;
  }
};

/// Args: of attention or eagerAttention; checked already.
template <class Args>
AttentionParams attention_params(const Args& a) {
  AttentionParams p{};
  p.qkv = a.qkv.data;
  p.keys = a.key_cache.data;
  p.values = a.value_cache.data;
  p.out = a.out.data;
  p.starts = static_cast<const int32_t*>(a.sequence_starts.data);
  p.contexts = static_cast<const int32_t*>(a.context_lengths.data);
  p.tables = static_cast<const int32_t*>(a.block_tables.data);
  p.slopes = static_cast<const float*>(a.alibi_slopes.data);
  p.bias = static_cast<const float*>(a.distance_bias.data);
  p.sinks = a.sinks.data;
  p.sinks_dtype = a.sinks.dtype;
  p.distances = static_cast<int>(a.distances);
  p.bias_offset = static_cast<int>(a.bias_offset);
  p.sequences = static_cast<int>(a.sequences);
  p.heads = static_cast<int>(a.num_heads);
  p.kv_heads = static_cast<int>(a.num_kv_heads);
  p.group_size = p.heads / p.kv_heads;
  p.head_dim = static_cast<int>(a.head_dim);
  p.value_dim = static_cast<int>(a.value_dim);
  p.scale = static_cast<float>(a.scale);
  p.softcap = static_cast<float>(a.softcap);
  p.causal = a.causal != 0;
  p.window = static_cast<int>(a.window);
  p.q_offset = a.q_offset;
  p.q_group_stride = a.q_group_stride;
  p.row_stride = a.row_stride;
  p.block_size = static_cast<int>(a.block_size);
  p.block_shift = -1;
  for (int shift = 0; shift < 31; ++shift) {
    if (p.block_size == 1 << shift) p.block_shift = shift;
  }
  p.max_blocks = static_cast<int>(a.max_blocks);
  p.act = a.qkv.dtype;
  p.cache = a.key_cache.dtype;
  return p;
}

/// Every query of every sequence, any dtypes: one warp a query and head. For f32, mixed dtypes and odd head sizes.
void attention_any(const AttentionParams& p, int64_t tokens, Context& context);
// As choose_attention says (choice.h); `width`: head size of the instance.
/// Sequences with more than one query.
void attention_prefill(const AttentionParams& p, int max_query, int width, Context& context);
/// The same with wgmma.
void attention_prefill_hopper(const AttentionParams& p, int max_query, int width, Context& context);
/// Sequences with one query.
void attention_decode(const AttentionParams& p, int max_context, int width, Context& context);

}  // namespace q::cuda
