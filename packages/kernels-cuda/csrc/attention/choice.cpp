#include "attention/choice.h"

namespace q::cuda {
namespace {

/// Why the tensor-core kernels do not take these; null: they do.
const char* tensor_core_refusal(const AttentionFacts& f, const Machine& m) {
  if (m.compute_capability < 80) return "compute capability below 8.0";
  if (f.act != f.cache) return "a cache in another dtype";
  if (f.act != DType::f16 && f.act != DType::bf16) return "activations of 32 bits";
  if (f.head_dim % 8 != 0 || f.head_dim > 256) return "headDim is no multiple of 8 up to 256";
  if (f.value_dim % 8 != 0 || f.value_dim > 256) return "valueDim is no multiple of 8 up to 256";
  return f.aligned ? nullptr : "rows or tensors that are not aligned";
}

/// What an instance must hold of a head.
int64_t wider(const AttentionFacts& f) { return f.head_dim > f.value_dim ? f.head_dim : f.value_dim; }

int least_of(int64_t head_dim, const int* widths, int count) {
  int i = 0;
  while (i + 1 < count && head_dim > widths[i]) ++i;
  return widths[i];
}

AttentionPick pick_prefill(const AttentionFacts& f, const Machine& m) {
  if (f.max_query <= 1) return {AttentionKernel::none, "no sequence has more than one query"};
  if (m.wgmma && wider(f) <= 128) return {AttentionKernel::hopper, "sm_90a, headDim to 128", wider(f) <= 64 ? 64 : 128};
  constexpr int kWidths[] = {64, 96, 128, 192, 256};
  return {AttentionKernel::mma, m.wgmma ? "headDim over 128" : "no wgmma", least_of(wider(f), kWidths, 5)};
}

AttentionPick pick_decode(const AttentionFacts& f) {
  // With several sequences some may have one query; with one sequence maxQuery says it.
  if (f.max_query != 1 && f.sequences <= 1) return {AttentionKernel::none, "the only sequence has more than one query"};
  constexpr int kWidths[] = {64, 96, 128, 256};
  return {AttentionKernel::split, f.max_query == 1 ? "one query a sequence" : "sequences that may have one query",
          least_of(wider(f), kWidths, 4)};
}

}  // namespace

AttentionFacts facts_of(const AttentionArgs& a) {
  return {a.qkv.dtype,
          a.key_cache.dtype,
          a.sequences,
          a.max_query,
          a.head_dim,
          a.value_dim,
          (a.q_offset | a.q_group_stride | a.row_stride) % 8 == 0 && aligned16(a.qkv.data) &&
              aligned16(a.key_cache.data) && aligned16(a.value_cache.data) && aligned16(a.out.data)};
}

AttentionChoice choose_attention(const AttentionFacts& f, const Machine& m) {
  if (const char* refusal = tensor_core_refusal(f, m)) {
    const AttentionPick any{AttentionKernel::any, refusal};
    return {any, any};
  }
  return {pick_prefill(f, m), pick_decode(f)};
}

RopeFacts facts_of(const RopeKvWriteArgs& a) {
  return {a.tokens,
          a.num_heads,
          a.num_kv_heads,
          a.head_dim,
          a.rotary_dim,
          a.interleaved != 0,
          a.q_offset | a.q_group_stride | a.k_offset | a.v_offset | a.kv_stride | a.row_stride | a.head_dim |
              a.value_dim | a.rotary_offset | (a.rotary_dim / 2),
          aligned16(a.qkv.data) && aligned16(a.key_cache.data) && aligned16(a.value_cache.data)};
}

RopeChoice choose_rope(const RopeFacts& f, const Machine& m) {
  const bool even =
      f.units % 2 == 0 && f.head_dim % 4 == 0 && f.rotary_dim % 4 == 0 && (!f.interleaved || f.units % 4 == 0);
  RopeChoice c{};
  c.kernel = even && f.aligned ? RopeKernel::pairs : RopeKernel::singles;
  c.reason = !even ? "odd sizes or offsets" : f.aligned ? "even sizes, aligned" : "tensors that are not aligned";
  c.lane_values = f.rotary_dim > 128 ? 8 : 2;
  // Few tokens: a head a warp. Many: four, which share the sines and cosines.
  c.heads_a_warp = f.tokens * (f.num_heads + 2 * f.num_kv_heads) > int64_t{128} * m.multiprocessors ? 4 : 1;
  return c;
}

}  // namespace q::cuda
