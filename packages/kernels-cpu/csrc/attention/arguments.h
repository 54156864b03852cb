// Checks of the arguments that attention and eagerAttention share.
#pragma once
#include "../common/checks.h"

namespace q::cpu {

template <class Args>
void check_arguments(const Args& a) {
  check(a.num_heads > 0 && a.num_kv_heads > 0 && a.num_heads % a.num_kv_heads == 0,
        "numHeads must be a multiple of numKvHeads");
  check(a.head_dim > 0 && a.block_size > 0 && a.max_blocks > 0, "headDim, blockSize and maxBlocks must be positive");
  const int64_t group = a.num_heads / a.num_kv_heads;
  check(a.q_offset >= 0 && a.q_group_stride >= 0 &&
            a.q_offset + (a.num_kv_heads - 1) * a.q_group_stride + group * a.head_dim <= a.row_stride,
        "the queries reach past their row");
  check_tensor(a.qkv, DType::f32, area(a.tokens, a.row_stride), "qkv");
  check_tensor(a.out, DType::f32, area(a.tokens, a.num_heads * a.head_dim), "out");
  check_float(a.key_cache, 0, "keyCache");
  check(a.key_cache.dtype == a.value_cache.dtype && a.key_cache.bytes == a.value_cache.bytes,
        "keyCache and valueCache differ");
  check_tensor(a.sequence_starts, DType::i32, a.sequences + 1, "sequenceStarts");
  check_tensor(a.context_lengths, DType::i32, a.sequences, "contextLengths");
  check_tensor(a.block_tables, DType::i32, area(a.sequences, a.max_blocks), "blockTables");
  if (a.alibi_slopes) check_tensor(a.alibi_slopes, DType::f32, a.num_heads, "alibiSlopes");
  if (a.bias) check_tensor(a.bias, DType::f32, area(area(a.num_heads, a.bias_rows), a.bias_columns), "bias");
}

/// Every index that the kernels will follow.
template <class Args>
void check_sequence(const Args& a, int64_t b, int64_t start, int64_t end, int64_t context) {
  const auto name = [&] { return "sequence " + std::to_string(b); };
  if (start < 0 || end < start || end > a.tokens)
    refuse(name() + " has rows " + std::to_string(start) + " to " + std::to_string(end) + " of " +
           std::to_string(a.tokens));
  if (context < 0 || context > a.max_blocks * a.block_size)
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
  if (a.bias && (context > a.bias_rows || context > a.bias_columns))
    refuse(name() + " has " + std::to_string(context) + " keys, the bias is for " + std::to_string(a.bias_rows) +
           " x " + std::to_string(a.bias_columns));
}

}  // namespace q::cpu
