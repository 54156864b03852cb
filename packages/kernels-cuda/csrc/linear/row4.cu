// Host side of row4.cuh and batch4.cuh: how rows are cut into groups and tiles.
#include "row4.h"
#include <algorithm>
#include "batch4.cuh"
#include "row4.cuh"

namespace q::cuda {
namespace {

/// More than half of a multiprocessor's shared memory (sm_90: 228 KiB). Two blocks of one launch would otherwise meet on multiprocessors that earlier
/// kernels leave first, while others stay empty (decode of Llama 2 7B: 385 tok/s; with this limit at first 490).
constexpr int kExclusiveBytes = 116 * 1024;

bool suits(const LinearProblem& p) {
  bool ok = p.k % 128 == 0 && p.k >= 512;
  for (int i = 0; i < p.parts; ++i) {
    const LinearPartView& w = p.part[i];
    ok = ok && w.n > 0 && p.k / 64 * (w.n + 256) < INT_MAX && w.block_shift == 6 && reinterpret_cast<uintptr_t>(w.absmax) % (w.nested_absmax ? 2 : 8) == 0 && !w.nested_absmax == !p.part[0].nested_absmax;
  }
  return ok;
}

/// What a kernel asks of its plan.
struct Cut {
  int chunk_steps, most_shares;  // of k: warps that share it have at least a chunk each
  int sums_bytes;                // of a tile and warp
};

/// Rows of W spread evenly over `blocks` blocks, in as few rounds as shared memory allows.
bool plan_row(RowPlan& plan, const LinearProblem& p, const Cut& cut, int blocks, int limit) {
  const int parts = p.gated ? 1 : p.parts, slots = p.gated ? 8 : 16;
  const int64_t steps = p.k / 128;
  while (2 << plan.split_shift <= cut.most_shares && steps >> (plan.split_shift + 1) >= cut.chunk_steps) ++plan.split_shift;
  const int split = 1 << plan.split_shift, sides = kRowWarps / split;
  plan.steps = static_cast<int>((steps + split - 1) / split);
  int64_t all = 0;
  for (int i = 0; i < parts; ++i) all += p.part[i].n;
  for (int rounds = 1;; ++rounds) {
    // each part gets its share of the blocks, what is left over goes to the parts with the largest groups
    int groups[kMaxRepeat] = {}, most = 0;
    int64_t left = std::max<int64_t>(static_cast<int64_t>(blocks) * rounds, parts);
    for (int i = 0; i < parts; ++i) left -= groups[i] = static_cast<int>(std::min<int64_t>(p.part[i].n, std::max<int64_t>(1, static_cast<int64_t>(blocks) * rounds * p.part[i].n / all)));
    for (; left > 0; --left) {
      int largest = 0;
      for (int i = 1; i < parts; ++i)
        if (static_cast<int64_t>(p.part[i].n) * groups[largest] > static_cast<int64_t>(p.part[largest].n) * groups[i]) largest = i;
      if (groups[largest] == p.part[largest].n) break;
      ++groups[largest];
    }
    plan.groups = 0;
    for (int i = 0; i < kMaxRepeat; ++i) {
      plan.part[i] = {INT_MAX, 0, 0};
      if (i >= parts) continue;
      plan.part[i] = {plan.groups, p.part[i].n / groups[i], p.part[i].n % groups[i]};
      plan.groups += groups[i];
      most = std::max(most, plan.part[i].rows + (plan.part[i].larger > 0));
    }
    plan.tiles = ((most + slots - 1) / slots + sides - 1) / sides * sides;
    plan.tile_rows = (most + plan.tiles - 1) / plan.tiles;
    plan.sums = kRingEnd;
    plan.nested = plan.sums + plan.tiles * split * cut.sums_bytes;
    plan.total = plan.nested + (p.part[0].nested_absmax ? p.parts * kRowNestedBytes : 0);
    plan.pitch = p.k / 2;
    plan.high = p.gated ? p.part[1].weight - p.part[0].weight : 8 * plan.pitch;
    plan.next_tile = static_cast<int64_t>(sides) * plan.tile_rows * plan.pitch;
    plan.group_bytes = plan.tiles / sides * plan.next_tile;
    plan.high_blocks = p.gated ? 0 : static_cast<int>(p.k / 64 * 8);
    plan.next_blocks = static_cast<int>(p.k / 64 * sides * plan.tile_rows);
    plan.group_blocks = plan.tiles / sides * plan.next_blocks;
    if (plan.total <= limit) return true;
    if (plan.tiles == sides) return false;
  }
}

template <class Kernel> bool launch(Kernel* kernel, const LinearProblem& p, const RowPlan& plan, Context& context) {
  const int shared = std::max(plan.total, std::min(kExclusiveBytes, static_cast<int>(context.shared_bytes_per_block)));
  launch(context, "linear", kernel, std::min(plan.groups, context.multiprocessors), kRowThreads, shared, p, plan);
  return true;
}

}  // namespace

template <class T> bool launch_row4(const LinearProblem& p, Context& context) {
  RowPlan plan{};
  if (p.rows != 1 || !suits(p) || !plan_row(plan, p, {kChunkSteps, 8, kRowSumsBytes}, context.multiprocessors, static_cast<int>(context.shared_bytes_per_block))) return false;
  // a warp must hold its part of x at once, and for good
  if (p.norm.weight && (p.k != (kChunkSteps * 128) << plan.split_shift || plan.groups > context.multiprocessors)) return false;
  return launch(p.part[0].nested_absmax ? row4_linear<T, true> : row4_linear<T, false>, p, plan, context);
}

template <class T> bool launch_batch4(const LinearProblem& p, Context& context) {
  RowPlan plan{};
  const Cut cut{kBatchChunkSteps, 16, kBatchSumsBytes};
  if (p.rows <= 8 || p.rows > kBatchColumns * 8 || !suits(p) || !plan_row(plan, p, cut, context.multiprocessors, static_cast<int>(context.shared_bytes_per_block))) return false;
  return launch(p.part[0].nested_absmax ? batch4_linear<T, true> : batch4_linear<T, false>, p, plan, context);
}

template bool launch_row4<half_t>(const LinearProblem&, Context&);
template bool launch_row4<bfloat_t>(const LinearProblem&, Context&);
template bool launch_batch4<half_t>(const LinearProblem&, Context&);
template bool launch_batch4<bfloat_t>(const LinearProblem&, Context&);

}  // namespace q::cuda
