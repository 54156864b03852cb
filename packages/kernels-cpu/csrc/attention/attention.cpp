// attention over the paged cache: checks, and the work of each sequence for the kernel that choice.h chose.
#include <cmath>
#include "arguments.h"
#include "attention.h"

namespace q::cpu {
namespace {

struct Sequence {
  int64_t start, queries, context, rows;  // rows: queries * group
  bool split;
  int64_t first_split, splits, row_blocks;
  int64_t first_item;     // of split items, or of lane items
  int64_t first_partial;  // rows * kv heads * splits of them
};

struct Plan {
  const AttentionArgs& a;
  const AttentionKernels& kernels;
  AttentionRule rule;
  const float* sinks;
  int64_t group;
  Sequence* sequences;
  int64_t split_items = 0, lane_items = 0, partials = 0, combined = 0;
};

Plan make_plan(const AttentionArgs& a, Context& context) {
  Plan plan{a,
            attention_kernels(context.features.isa),
            rule_of(a),
            sinks_of(a, context),
            a.num_heads / a.num_kv_heads,
            context.scratch.take_array<Sequence>(size_t(a.sequences))};
  const int32_t* starts = a.sequence_starts.as<int32_t>();
  for (int64_t b = 0; b < a.sequences; ++b) {
    Sequence& s = plan.sequences[b];
    s = Sequence{starts[b], starts[b + 1] - starts[b], a.context_lengths.as<int32_t>()[b]};
    check_sequence(a, b, starts[b], starts[b + 1], s.context);
    s.rows = s.queries * plan.group;
    s.split = choose_attention(s.queries, plan.group).kernel == AttentionKernel::split;
    s.first_item = s.split ? plan.split_items : plan.lane_items;
    if (!s.split) {
      s.row_blocks = (s.rows + plan.kernels.lane_rows - 1) / plan.kernels.lane_rows;
      plan.lane_items += s.row_blocks * a.num_kv_heads;
      continue;
    }
    s.row_blocks = (s.rows + kSplitRows - 1) / kSplitRows;
    s.first_split = plan.rule.first(std::max<int64_t>(s.context - s.queries, 0)) / kSplitKeys;
    s.splits = std::max<int64_t>((s.context + kSplitKeys - 1) / kSplitKeys - s.first_split, 0);
    s.first_partial = plan.partials;
    plan.partials += s.rows * a.num_kv_heads * s.splits;
    plan.split_items += s.row_blocks * a.num_kv_heads * s.splits;
    plan.combined += s.rows * a.num_kv_heads;
  }
  return plan;
}

/// The sequence of an item of one kind: the last one that begins at or before it (those without items begin where the
/// next does).
int64_t find_sequence(const Plan& plan, int64_t item, bool split) {
  int64_t found = -1;
  for (int64_t b = 0; b < plan.a.sequences; ++b) {
    if (plan.sequences[b].split == split && plan.sequences[b].first_item <= item) found = b;
  }
  return found;
}

/// Rows `first` ... of a KV head of a sequence: row r is query r / group, head r % group of the group.
int64_t fill_rows(const Plan& plan, const Sequence& s, int64_t kv_head, int64_t first, int64_t most, QueryRow* rows) {
  const AttentionArgs& a = plan.a;
  const int64_t count = std::min(most, s.rows - first);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t query = (first + i) / plan.group, in_group = (first + i) % plan.group,
                  head = kv_head * plan.group + in_group;
    const int64_t token = s.start + query, position = s.context - s.queries + query;
    rows[i] = {
        a.qkv.as<float>() + token * a.row_stride + a.q_offset + kv_head * a.q_group_stride + in_group * a.head_dim,
        a.out.as<float>() + (token * a.num_heads + head) * a.value_dim,
        bias_column(a, head),
        position,
        a.alibi_slopes ? a.alibi_slopes.as<float>()[head] : 0.f,
        plan.sinks[head]};
  }
  return count;
}

PagedHead paged(const Plan& plan, const Tensor& cache, int64_t head_dim, int64_t b, int64_t kv_head) {
  const AttentionArgs& a = plan.a;
  return {cache.as<char>(), cache.dtype, a.block_tables.as<int32_t>() + b * a.max_blocks, a.num_kv_heads, kv_head,
          a.block_size,     head_dim};
}

void run_lanes(const Plan& plan, Context& context) {
  const int64_t floats = plan.kernels.lanes_scratch(plan.a.head_dim, plan.a.value_dim);
  float* scratch = context.scratch.take_array<float>(size_t(floats * context.workers.threads()));
  context.workers.parallel(plan.lane_items, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end && !context.workers.cancelled(); ++i) {
      const int64_t item =
          plan.lane_items - 1 - i;  // the longest first: blocks late in a causal sequence see more keys
      const int64_t b = find_sequence(plan, item, false);
      const Sequence& s = plan.sequences[b];
      const int64_t local = item - s.first_item, kv_head = local % plan.a.num_kv_heads;
      QueryRow rows[kMostRows];
      const int64_t count = fill_rows(plan, s, kv_head, local / plan.a.num_kv_heads * plan.kernels.lane_rows,
                                      plan.kernels.lane_rows, rows);
      plan.kernels.lanes(rows, count, paged(plan, plan.a.key_cache, plan.a.head_dim, b, kv_head),
                         paged(plan, plan.a.value_cache, plan.a.value_dim, b, kv_head), plan.rule, s.context,
                         scratch + floats * thread);
    }
  });
}

void run_splits(const Plan& plan, Context& context) {
  const AttentionArgs& a = plan.a;
  Partial* partials = context.scratch.take_array<Partial>(size_t(plan.partials));
  float* values = context.scratch.take_array<float>(size_t(plan.partials * a.value_dim));
  for (int64_t i = 0; i < plan.partials; ++i) partials[i].values = values + i * a.value_dim;
  context.workers.parallel(plan.split_items, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end && !context.workers.cancelled(); ++item) {
      const int64_t b = find_sequence(plan, item, true);
      const Sequence& s = plan.sequences[b];
      const int64_t local = item - s.first_item, split = local % s.splits, block = local / s.splits % s.row_blocks,
                    kv_head = local / s.splits / s.row_blocks;
      QueryRow rows[kSplitRows];
      const int64_t first = block * kSplitRows, count = fill_rows(plan, s, kv_head, first, kSplitRows, rows);
      Partial parts[kSplitRows];
      Partial* at[kSplitRows];
      for (int64_t r = 0; r < count; ++r) {
        at[r] = partials + s.first_partial + ((kv_head * s.rows + first + r) * s.splits + split);
        parts[r].values = at[r]->values;
      }
      const int64_t from = (s.first_split + split) * kSplitKeys;
      plan.kernels.split(rows, count, paged(plan, a.key_cache, a.head_dim, b, kv_head),
                         paged(plan, a.value_cache, a.value_dim, b, kv_head), plan.rule, from,
                         std::min(from + kSplitKeys, s.context), parts);
      for (int64_t r = 0; r < count; ++r) *at[r] = parts[r];
    }
  });
  for (int64_t b = 0; b < a.sequences; ++b) {
    const Sequence& s = plan.sequences[b];
    if (!s.split) continue;
    context.workers.parallel(
        s.rows * a.num_kv_heads, std::max<int64_t>(1, 65536 / (a.value_dim * std::max<int64_t>(s.splits, 1))),
        [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            QueryRow row;
            fill_rows(plan, s, i / s.rows, i % s.rows, 1, &row);
            plan.kernels.combine(partials + s.first_partial + i * s.splits, s.splits, row.out, a.value_dim, row.sink);
          }
        });
  }
}

}  // namespace

void run(const AttentionArgs& a, Context& context) {
  if (a.tokens == 0 || a.sequences == 0) return;
  const Plan plan = make_plan(a, context);
  if (plan.lane_items > 0) run_lanes(plan, context);
  if (plan.combined > 0) run_splits(plan, context);
}

}  // namespace q::cpu
