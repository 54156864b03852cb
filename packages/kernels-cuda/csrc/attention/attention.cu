// attention: chooses the kernels. A sequence with one query takes the split-KV kernel, one with more the flash kernel,
// whatever else is in the batch, so that no row depends on its neighbours. attention_any is the simple kernel for what
// those do not take.
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
  const auto [context, query, table] = p.query_of(token);
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

}  // namespace

void attention_any(const AttentionParams& p, int64_t tokens, Context& c) {
  require(p.head_dim <= 32 * kMostPerLane, "attention: headDim is at most 512");
  launch(c, "attention", attention_any_kernel, blocks_for(tokens * p.heads, 4), 128, 0, p, tokens);
}

void run(const AttentionArgs& a, Context& c) {
  check_attention(a, "attention");
  if (a.tokens == 0 || a.sequences == 0) return;
  const AttentionParams p = attention_params(a);
  if (!attention_fast(p, c.compute_capability)) return attention_any(p, a.tokens, c);
  if (a.max_query > 1) attention_prefill(p, static_cast<int>(a.max_query), c);
  // With several sequences some may have one query; with one sequence maxQuery says it.
  if (a.max_query == 1 || a.sequences > 1) attention_decode(p, static_cast<int>(a.max_context), c);
}

}  // namespace q::cuda
