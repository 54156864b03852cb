// attention: chooses the kernels. A sequence with one query takes the split-KV kernel, one with more the flash kernel, whatever
// else is in the batch, so that no row depends on its neighbours. attention_any is the simple kernel for what those do not take.
#include "attention/params.h"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kMostPerLane = 16;  // head sizes up to 512

/// One warp a query and head: keys one after the other, online softmax in f32.
__global__ void __launch_bounds__(128) attention_any_kernel(AttentionParams p, int64_t tokens) {
  pdl_begin();
  const int lane = threadIdx.x & 31;
  const int64_t item = int64_t(blockIdx.x) * 4 + (threadIdx.x >> 5);
  if (item >= tokens * p.heads) return;
  const int64_t token = item / p.heads;
  const int head = static_cast<int>(item % p.heads);
  int low = 0, high = p.sequences;  // the sequence that holds the token: starts[low] <= token < starts[low + 1]
  while (high - low > 1) {
    const int mid = (low + high) / 2;
    if (p.starts[mid] <= token) low = mid;
    else high = mid;
  }
  const int context = p.contexts[low], length = p.starts[low + 1] - p.starts[low];
  const int query = context - length + static_cast<int>(token - p.starts[low]);
  const int32_t* table = p.tables + int64_t(low) * p.max_blocks;
  float q[kMostPerLane], o[kMostPerLane];
#pragma unroll
  for (int j = 0; j < kMostPerLane; ++j) {
    const int d = lane + 32 * j;
    q[j] = d < p.head_dim ? load_any(p.qkv, p.act, p.query_offset(token, head) + d) : 0.f;
    o[j] = 0.f;
  }
  float largest = -INFINITY, total = 0.f;
  const int last = p.causal && query + 1 < context ? query + 1 : context;
  for (int key = p.first_key(query); key < last; ++key) {
    const int64_t slot = p.slot(table, key, head / p.group_size);
    float product = 0.f;
#pragma unroll
    for (int j = 0; j < kMostPerLane; ++j) {
      const int d = lane + 32 * j;
      if (d < p.head_dim) product += q[j] * load_any(p.keys, p.cache, slot + d);
    }
    const float s = p.score(warp_reduce<Sum>(product), head, query, key);
    if (s == -INFINITY) continue;
    const float bigger = fmaxf(largest, s), keep = expf(largest - bigger), weight = expf(s - bigger);
    largest = bigger;
    total = total * keep + weight;
#pragma unroll
    for (int j = 0; j < kMostPerLane; ++j) {
      const int d = lane + 32 * j;
      if (d < p.head_dim) o[j] = o[j] * keep + weight * load_any(p.values, p.cache, slot + d);
    }
  }
  const float factor = total > 0.f ? 1.f / total : 0.f;
#pragma unroll
  for (int j = 0; j < kMostPerLane; ++j) {
    const int d = lane + 32 * j;
    if (d < p.head_dim) store_any(p.out, p.act, (token * p.heads + head) * p.head_dim + d, o[j] * factor);
  }
}

AttentionParams params_of(const AttentionArgs& a) {
  AttentionParams p{};
  p.qkv = a.qkv.data;
  p.keys = a.key_cache.data;
  p.values = a.value_cache.data;
  p.out = a.out.data;
  p.starts = a.sequence_starts.as<const int32_t>();
  p.contexts = a.context_lengths.as<const int32_t>();
  p.tables = a.block_tables.as<const int32_t>();
  p.slopes = a.alibi_slopes.as<const float>();
  p.bias = a.bias.as<const float>();
  p.bias_rows = a.bias_rows;
  p.bias_columns = a.bias_columns;
  p.sequences = static_cast<int>(a.sequences);
  p.heads = static_cast<int>(a.num_heads);
  p.kv_heads = static_cast<int>(a.num_kv_heads);
  p.group_size = p.heads / p.kv_heads;
  p.head_dim = static_cast<int>(a.head_dim);
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

}  // namespace

void attention_any(const AttentionParams& p, int64_t tokens, Context& c) {
  require(p.head_dim <= 32 * kMostPerLane, "attention: headDim is at most 512");
  launch(c, "attention", attention_any_kernel, blocks_for(tokens * p.heads, 4), 128, 0, p, tokens);
}

void run(const AttentionArgs& a, Context& c) {
  require(a.num_kv_heads > 0 && a.num_heads % a.num_kv_heads == 0, "attention: numHeads must be a multiple of numKvHeads");
  require(is_float(a.qkv.dtype) && a.out.dtype == a.qkv.dtype, "attention takes qkv and out of one float dtype");
  require(is_float(a.key_cache.dtype) && a.key_cache.dtype == a.value_cache.dtype, "attention takes key and value caches of one float dtype");
  require(a.block_size > 0, "attention: blockSize must be positive");
  if (a.tokens == 0 || a.sequences == 0) return;
  const AttentionParams p = params_of(a);
  if (!attention_fast(p, c.compute_capability)) return attention_any(p, a.tokens, c);
  if (a.max_query > 1) attention_prefill(p, static_cast<int>(a.max_query), c);
  // With several sequences some may have one query; with one sequence maxQuery says it.
  if (a.max_query == 1 || a.sequences > 1) attention_decode(p, static_cast<int>(a.max_context), c);
}

}  // namespace q::cuda
