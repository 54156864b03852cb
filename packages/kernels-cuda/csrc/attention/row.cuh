// One query and head by one warp: keys one after the other, online softmax in f32. For what the tensor-core kernels do
// not take, and for rows that came out as NaN or infinity there: a tile's hidden keys have a weight of 0, which brings
// in the NaN of their values; here nothing of a hidden key is read.
#pragma once
#include "attention/params.h"

namespace q::cuda {

/// The whole warp calls. PER_LANE: for head sizes up to 32 * PER_LANE.
template <int PER_LANE>
__device__ __forceinline__ void attend_row(const AttentionParams& p, int64_t token, int head, int context, int query,
                                           const int32_t* table) {
  const int lane = threadIdx.x & 31;
  float q[PER_LANE], o[PER_LANE];
#pragma unroll
  for (int j = 0; j < PER_LANE; ++j) {
    const int d = lane + 32 * j;
    q[j] = d < p.head_dim ? load_any(p.qkv, p.act, p.query_offset(token, head) + d) : 0.f;
    o[j] = 0.f;
  }
  float largest = -INFINITY, total = 0.f;
  const int last = p.causal && query + 1 < context ? query + 1 : context;
#pragma unroll 1
  for (int key = p.first_key(query); key < last; ++key) {
    const int64_t row = p.slot(table, key, head / p.group_size), slot = row * p.head_dim, values = row * p.value_dim;
    float product = 0.f;
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
      const int d = lane + 32 * j;
      if (d < p.head_dim) product += q[j] * load_any(p.keys, p.cache, slot + d);
    }
    const float s = p.score(warp_reduce<Sum>(product), head, query, key);
    if (s == -INFINITY) continue;
    const float bigger = fmaxf(largest, s), keep = expf(largest - bigger), weight = expf(s - bigger);
    largest = bigger;
    total = total * keep + weight;
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
      const int d = lane + 32 * j;
      if (d < p.value_dim) o[j] = o[j] * keep + weight * load_any(p.values, p.cache, values + d);
    }
  }
  total = p.with_sink(total, largest * 1.4426950408889634f, head);
  const float factor = total == 0.f ? 0.f : 1.f / total;
#pragma unroll
  for (int j = 0; j < PER_LANE; ++j) {
    const int d = lane + 32 * j;
    if (d < p.value_dim) store_any(p.out, p.act, (token * p.heads + head) * p.value_dim + d, o[j] * factor);
  }
}

}  // namespace q::cuda
