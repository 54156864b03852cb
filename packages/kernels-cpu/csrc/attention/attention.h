// What the attention kernels are given: one block of work each, pointers resolved and checked by attention.cpp.
#pragma once
#include <algorithm>
#include "../common/isa.h"
#include "choice.h"

namespace q::cpu {

/// Rows that `lanes` takes at most with any instruction set.
constexpr int64_t kMostRows = 128;
/// Keys that both kernels take at a time.
constexpr int64_t kTileKeys = 64;

/// Keys or values of one KV head of one sequence, in the paged cache; head_dim is that of keys, or of values.
struct PagedHead {
  const char* cache;
  DType dtype;
  const int32_t* blocks;  // the sequence's row of the block table
  int64_t num_kv_heads, head, block_size, head_dim;
};

/// One query row: a token and a head.
struct QueryRow {
  const float* query;  // [head_dim]
  float* out;          // [head_dim of the values]
  const float* bias;   // the head's column of the distance bias, or null
  int64_t position;
  float slope;  // 0: no ALiBi
  float sink;   // one more score, of no key; minus infinity: none
};

struct AttentionRule {
  float scale, softcap;
  int64_t window;
  bool causal, alibi;
  int64_t distances, bias_offset, bias_stride;  // of the distance bias
  /// Keys [first, last) that a query at this position sees, of a context of this length.
  int64_t first(int64_t position) const { return window > 0 && position >= window ? position - window + 1 : 0; }
  int64_t last(int64_t position, int64_t context) const {
    return causal && position + 1 < context ? position + 1 : context;
  }
  /// What a key adds to the score of a query by its distance.
  float bias(const QueryRow& row, int64_t key) const {
    return row.bias[std::clamp<int64_t>(key - row.position + bias_offset, 0, distances - 1) * bias_stride];
  }
};

/// A part of the softmax over some keys: its maximum, sum of weights, and weighted values (not divided by the sum).
struct Partial {
  float max, sum;
  float* values;
};

struct AttentionKernels {
  /// Rows that `lanes` takes at most.
  int64_t lane_rows;
  /// Floats of scratch that `lanes` needs for these head sizes, for each thread.
  int64_t (*lanes_scratch)(int64_t head_dim, int64_t value_dim);
  /// Attention of up to lane_rows rows of one KV head, queries side by side in the lanes of a vector (prefill).
  void (*lanes)(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
                const AttentionRule& rule, int64_t context, float* scratch);
  /// Partial attention of up to kSplitRows rows over keys [begin, end) (decode).
  void (*split)(const QueryRow* rows, int64_t count, const PagedHead& keys, const PagedHead& values,
                const AttentionRule& rule, int64_t begin, int64_t end, Partial* partials);
  /// out = the softmax over the keys of all parts, and the sink.
  void (*combine)(const Partial* partials, int64_t count, float* out, int64_t value_dim, float sink);
  /// head[i], head[i + half] (or head[2i], head[2i + 1]) rotated by the angle whose cosine and sine are given.
  void (*rotate)(float* head, const float* cos, const float* sin, int64_t half, bool interleaved);
};
Q_ISA_TABLE(AttentionKernels, attention_kernels)

}  // namespace q::cpu
