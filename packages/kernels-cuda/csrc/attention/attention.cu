// attention: launches what choice.h chose. attention_any is the simple kernel for what the others do not take.
#include "attention/choice.h"
#include "attention/row.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kMostPerLane = 16;  // head sizes up to 512

/// One warp a query and head: keys one after the other, online softmax in f32.
__global__ void __launch_bounds__(128) attention_any_kernel(AttentionParams p, int64_t tokens) {
  pdl_begin();
  const int64_t item = int64_t(blockIdx.x) * 4 + (threadIdx.x >> 5);
  if (item >= tokens * p.heads) return;
  const int64_t token = item / p.heads;
  const int head = static_cast<int>(item % p.heads);
  const auto [context, query, table] = p.query_of(token);
  attend_row<kMostPerLane>(p, token, head, context, query, table);
}

}  // namespace

void attention_any(const AttentionParams& p, int64_t tokens, Context& c) {
  require(p.head_dim <= 32 * kMostPerLane && p.value_dim <= 32 * kMostPerLane,
          "attention: headDim and valueDim are at most 512");
  launch(c, "attention", attention_any_kernel, blocks_for(tokens * p.heads, 4), 128, 0, p, tokens);
}

void run(const AttentionArgs& a, Context& c) {
  if (a.tokens == 0 || a.sequences == 0) return;
  const AttentionParams p = attention_params(a);
  const auto [prefill, decode] = choose_attention(facts_of(a), machine_of(c));
  if (prefill.kernel == AttentionKernel::any) return attention_any(p, a.tokens, c);
  const int max_query = static_cast<int>(a.max_query);
  if (prefill.kernel == AttentionKernel::hopper) attention_prefill_hopper(p, max_query, prefill.width, c);
  if (prefill.kernel == AttentionKernel::mma) attention_prefill(p, max_query, prefill.width, c);
  if (decode.kernel == AttentionKernel::split) attention_decode(p, static_cast<int>(a.max_context), decode.width, c);
}

}  // namespace q::cuda
