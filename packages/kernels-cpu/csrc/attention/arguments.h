// What attention and eagerAttention share: the rule of the scores, and checks of what the index tensors hold.
#pragma once
#include <cmath>
#include "attention.h"
#include "../common/checks.h"
#include "../memory/cells.h"

namespace q::cpu {

template <class Args>
AttentionRule rule_of(const Args& a) {
  return {float(a.scale),       float(a.softcap), a.window,      a.causal != 0,
          bool(a.alibi_slopes), a.distances,      a.bias_offset, a.num_heads};
}

/// What rotated queries are multiplied by. Args: of ropeKvWrite or eagerRope.
template <class Args>
float query_scaling(const Args& a, int32_t position) {
  if (a.scaling_beta == 0) return 1;
  return 1 + float(a.scaling_beta) * std::log(1 + std::floor(float(position) / float(a.scaling_length)));
}

/// The head's column of the distance bias, or null.
template <class Args>
const float* bias_column(const Args& a, int64_t head) {
  return a.distance_bias ? a.distance_bias.template as<float>() + head : nullptr;
}

/// The sinks as f32 [num_heads], minus infinity where there are none.
template <class Args>
const float* sinks_of(const Args& a, Context& context) {
  float* sinks = context.scratch.take_array<float>(size_t(a.num_heads));
  if (a.sinks)
    cell_kernels(context.features.isa).cast(a.sinks.data, a.sinks.dtype, sinks, DType::f32, a.num_heads);
  else
    std::fill(sinks, sinks + a.num_heads, -INFINITY);
  return sinks;
}

/// Every index that the kernels will follow.
template <class Args>
void check_sequence(const Args& a, int64_t b, int64_t start, int64_t end, int64_t context) {
  const auto name = [&] { return "sequence " + std::to_string(b); };
  if (start < 0 || end < start || end > a.tokens)
    refuse(name() + " has rows " + std::to_string(start) + " to " + std::to_string(end) + " of " +
           std::to_string(a.tokens));
  if (a.causal && context < end - start)
    refuse(name() + " has " + std::to_string(end - start) + " rows and context length " + std::to_string(context) +
           ", which counts them");
  if (context < 1 && end > start) refuse(name() + " has " + std::to_string(end - start) + " rows and no keys");
  if (context > a.max_blocks * a.block_size)
    refuse(name() + " has context length " + std::to_string(context) + ", its block table holds " +
           std::to_string(a.max_blocks * a.block_size));
  const int64_t blocks =
      a.key_cache.bytes / dtype_bytes(a.key_cache.dtype) / (a.num_kv_heads * a.block_size * a.head_dim);
  const int32_t* table = a.block_tables.template as<int32_t>() + b * a.max_blocks;
  for (int64_t i = 0; i * a.block_size < context && end > start; ++i) {
    if (table[i] < 0 || table[i] >= blocks)
      refuse("block " + std::to_string(table[i]) + " of " + name() + " is outside the cache of " +
             std::to_string(blocks));
  }
}

}  // namespace q::cpu
