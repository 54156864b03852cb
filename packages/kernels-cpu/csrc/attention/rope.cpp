// ropeKvWrite: rotates the queries in place, and the keys on their way into the paged cache, where keys and values are
// stored
// maths   angle = position * inverseFrequency in f32; (a, b) -> (a cos - b sin, b cos + a sin) * ropeScale;
//         queries then times 1 + scalingBeta ln(1 + floor(position / scalingLength))
// floor   reads and writes the query part, reads the key and value parts, writes both to the cache in its dtype
// ref     tensor/src/reference/attention.ts
#include <cmath>
#include "arguments.h"

namespace q::cpu {
namespace {

/// Row of the cache (of head 0) for every token; all are checked before anything is written.
int64_t* cache_rows(const RopeKvWriteArgs& a, Context& context) {
  const int64_t per_block = a.num_kv_heads * a.block_size;
  const int64_t blocks = a.key_cache.bytes / dtype_bytes(a.key_cache.dtype) / (per_block * a.head_dim);
  const int64_t sequences = a.block_tables.bytes / 4 / a.max_blocks;
  int64_t* rows = context.scratch.take_array<int64_t>(size_t(a.tokens));
  for (int64_t t = 0; t < a.tokens; ++t) {
    const int64_t position = a.positions.as<int32_t>()[t], sequence = a.sequence_of.as<int32_t>()[t];
    if (sequence < 0 || sequence >= sequences)
      refuse("token " + std::to_string(t) + " belongs to sequence " + std::to_string(sequence) + " of " +
             std::to_string(sequences));
    if (position < 0 || position / a.block_size >= a.max_blocks)
      refuse("position " + std::to_string(position) + " of token " + std::to_string(t) + " is outside the block table");
    const int64_t block = a.block_tables.as<int32_t>()[sequence * a.max_blocks + position / a.block_size];
    if (block < 0 || block >= blocks)
      refuse("block " + std::to_string(block) + " of sequence " + std::to_string(sequence) +
             " is outside the cache of " + std::to_string(blocks));
    rows[t] = block * per_block + position % a.block_size;
  }
  return rows;
}

}  // namespace

void run(const RopeKvWriteArgs& a, Context& context) {
  if (a.tokens == 0) return;
  const int64_t half = a.inverse_frequencies ? a.rotary_dim / 2 : 0, group = a.num_heads / a.num_kv_heads;
  const int64_t* rows = cache_rows(a, context);
  if (half > 0) {
    const int64_t tables =
        a.per_sequence ? *std::max_element(a.sequence_of.as<int32_t>(), a.sequence_of.as<int32_t>() + a.tokens) + 1 : 1;
    check_size(a.inverse_frequencies, tables * half, "inverseFrequencies");
  }
  float* angles = context.scratch.take_array<float>(size_t(2 * half * context.workers.threads()));
  const auto rotate = attention_kernels(context.features.isa).rotate;
  const auto cast = cell_kernels(context.features.isa).cast;
  const int64_t bytes = dtype_bytes(a.key_cache.dtype);
  const auto token = [&](int64_t t, float* cos, float* sin) {
    float* row = a.qkv.as<float>() + t * a.row_stride;
    const int32_t position = a.positions.as<int32_t>()[t];
    const float* frequency =
        a.inverse_frequencies.as<float>() + (a.per_sequence ? a.sequence_of.as<int32_t>()[t] * half : 0);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = float(position) * frequency[i];
      cos[i] = std::cos(angle) * float(a.rope_scale);
      sin[i] = std::sin(angle) * float(a.rope_scale);
    }
    const float scaling = query_scaling(a, position);
    for (int64_t h = 0; h < a.num_heads && (half > 0 || a.scaling_beta != 0); ++h) {
      float* query = row + a.q_offset + h / group * a.q_group_stride + h % group * a.head_dim;
      if (half > 0) rotate(query + a.rotary_offset, cos, sin, half, a.interleaved != 0);
      if (a.scaling_beta != 0)
        for (int64_t i = 0; i < a.head_dim; ++i) query[i] *= scaling;
    }
    for (int64_t h = 0; h < a.num_kv_heads; ++h) {
      const int64_t to = (rows[t] + h * a.block_size) * bytes;
      float* key = row + a.k_offset + h * a.kv_stride;
      if (half > 0) rotate(key + a.rotary_offset, cos, sin, half, a.interleaved != 0);
      cast(key, DType::f32, a.key_cache.as<char>() + to * a.head_dim, a.key_cache.dtype, a.head_dim);
      cast(row + a.v_offset + h * a.kv_stride, DType::f32, a.value_cache.as<char>() + to * a.value_dim,
           a.key_cache.dtype, a.value_dim);
    }
  };
  context.workers.parallel(a.tokens, rows_grain((a.num_heads + 2 * a.num_kv_heads) * a.head_dim),
                           [&](int64_t begin, int64_t end, int thread) {
                             float* cos = angles + 2 * half * thread;
                             for (int64_t t = begin; t < end; ++t) token(t, cos, cos + half);
                           });
}

}  // namespace q::cpu
