// How the kernels that go through W by row_walk.cuh are laid out over a device: rows in groups and tiles, shared
// memory.
#pragma once
#include <algorithm>
#include "context.h"
#include "row_walk.cuh"

namespace q::cuda {

/// What a kernel asks of its plan.
struct RowCut {
  int warps;                     // of a block, 8 or 16
  int step_values;               // of k, in a step
  int least_steps, most_shares;  // of k: warps that share it have at least so many steps each
  int ring_bytes;                // of a block
  int tile_bytes, share_bytes;   // of sums: of a tile, and of a tile and a warp of those that share k
  int table_bytes;               // of a block
  int most_tiles;                // of a group
};

/// Rows of W spread evenly over `blocks` blocks, in as few rounds as `limit` bytes of shared memory and the most tiles
/// allow.
inline bool plan_row(RowPlan& plan, const LinearProblem& p, const RowCut& cut, int blocks, int limit) {
  plan = {};
  const int parts = p.gated ? 1 : p.parts, slots = p.gated ? 8 : 16;
  const int64_t steps = p.k / cut.step_values;
  while (2 << plan.split_shift <= cut.most_shares && steps >> (plan.split_shift + 1) >= cut.least_steps)
    ++plan.split_shift;
  const int split = 1 << plan.split_shift, sides = cut.warps / split;
  plan.steps = static_cast<int>((steps + split - 1) / split);
  int64_t all = 0;
  for (int i = 0; i < parts; ++i) all += p.part[i].n;
  for (int rounds = 1;; ++rounds) {
    // each part gets its share of the blocks, what is left over goes to the parts with the largest groups
    int groups[kMaxRepeat] = {}, most = 0;
    int64_t left = std::max<int64_t>(static_cast<int64_t>(blocks) * rounds, parts);
    for (int i = 0; i < parts; ++i)
      left -= groups[i] = static_cast<int>(std::min<int64_t>(
          p.part[i].n, std::max<int64_t>(1, static_cast<int64_t>(blocks) * rounds * p.part[i].n / all)));
    for (; left > 0; --left) {
      int largest = 0;
      for (int i = 1; i < parts; ++i)
        if (static_cast<int64_t>(p.part[i].n) * groups[largest] > static_cast<int64_t>(p.part[largest].n) * groups[i])
          largest = i;
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
    plan.sums = cut.ring_bytes;
    plan.tables = plan.sums + plan.tiles * (cut.tile_bytes + split * cut.share_bytes);
    plan.total = plan.tables + cut.table_bytes;
    plan.pitch = p.k / cut.step_values * kStepBytes;
    plan.high = p.gated ? p.part[1].weight - p.part[0].weight : 8 * plan.pitch;
    plan.next_tile = static_cast<int64_t>(sides) * plan.tile_rows * plan.pitch;
    plan.group_bytes = plan.tiles / sides * plan.next_tile;
    plan.high_blocks = p.gated ? 0 : static_cast<int>(p.k / 64 * 8);
    plan.next_blocks = static_cast<int>(p.k / 64 * sides * plan.tile_rows);
    plan.group_blocks = plan.tiles / sides * plan.next_blocks;
    if (plan.total <= limit && plan.tiles <= cut.most_tiles) return true;
    if (plan.tiles == sides) return false;
  }
}

struct RowLaunch {
  RowPlan plan;
  int blocks, shared;  // bytes
};

/// 16 warps a multiprocessor, in one or two blocks. Shared memory is asked for so that no more of them fit: blocks of
/// one launch would otherwise meet on multiprocessors that earlier kernels leave first, while others stay empty (decode
/// of Llama 2 7B: 385 tok/s; with this limit at first 490).
inline bool lay_out(RowLaunch& launch, const LinearProblem& p, const RowCut& cut, const Context& context) {
  constexpr int kReserved = 1024;  // of shared memory, for each block
  const int limit = static_cast<int>(context.shared_bytes_per_block), all = limit + kReserved;
  for (int each = 16 / cut.warps; each > 0; --each) {
    launch.blocks = context.multiprocessors * each;
    if (!plan_row(launch.plan, p, cut, launch.blocks, all / each - kReserved)) continue;
    launch.shared = std::max(launch.plan.total, all / (each + 1));
    launch.blocks = std::min(launch.blocks, launch.plan.groups);
    return true;
  }
  return false;
}

}  // namespace q::cuda
