// The prefill kernel, declared for the table in attention.isa.cpp. For .isa.cpp sources.
#pragma once
#include "attention.h"
#include "../common/vmath.h"

namespace q::cpu::Q_ISA {

/// Vectors of queries that a block has side by side, and blocks that share the tiles of keys and values.
constexpr int kLaneVectors = 2, kLaneBlocks = 4;

int64_t lanes_scratch(int64_t head_dim, int64_t value_dim);
void lanes(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
           const AttentionRule& rule, int64_t context, float* scratch);

/// Where a position's row begins in the cache.
inline const char* paged_row(const PagedHead& h, int64_t position, int64_t element_bytes) {
  const int64_t block = h.blocks[position / h.block_size];
  return h.cache +
         ((block * h.num_kv_heads + h.head) * h.block_size + position % h.block_size) * h.head_dim * element_bytes;
}

}  // namespace q::cpu::Q_ISA
