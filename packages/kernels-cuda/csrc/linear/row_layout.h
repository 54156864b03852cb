// How the kernels that go through W by row_walk.cuh are laid out over a device: rows in groups and tiles, shared
// memory.
#pragma once
#include <algorithm>
#include <climits>
#include "q_ops.h"
#include "row_shapes.h"

namespace q::cuda {

/// Groups of rows. They differ by at most one row (gated: pair of rows), so that their sizes in bytes are no multiples
/// of a large power of two: blocks that walk in step would otherwise meet in the same channels of memory (12288 x 4096
/// in groups of 96 rows: 16.9 us instead of 10.6).
struct RowPart {
  int begin;         // first group
  int rows, larger;  // of a group; the first `larger` groups have one more. gated: pairs
};

struct RowPlan {
  RowPart part[kMaxRepeat];  // parts that are not there begin at INT_MAX
  int groups;
  int tiles, tile_rows;     // of any group; the last tiles may hold fewer rows. gated: pairs
  int split_shift;          // log2 of the warps that share k; the others are further sides, which share the tiles
  int steps;                // of a warp along k, at most
  int sums, tables, total;  // where shared memory's pieces start, in bytes
  int early;                // steps whose copies start before x is asked for
  uint32_t zero;            // 0, which the compiler does not know
  int64_t pitch;            // bytes of a row of W
  int64_t high;             // bytes from a tile's row r to its row r + 8; gated: to up's row r, which the launch says
  int64_t next_tile;        // bytes from a warp's tile to its next
  int64_t group_bytes;      // next_tile times the tiles of a warp
  int high_blocks, next_blocks, group_blocks;  // 4 bits: the last three in blocks of absmax
};

/// W as a layout sees it: how many rows its parts have.
struct WeightRows {
  int64_t k;
  int parts;
  bool gated;
  int n[kMaxRepeat];
};

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
inline bool plan_row(RowPlan& plan, const WeightRows& p, const RowCut& cut, int blocks, int limit) {
  plan = {};
  const int parts = p.gated ? 1 : p.parts, slots = p.gated ? 8 : 16;
  const int64_t steps = p.k / cut.step_values;
  while (2 << plan.split_shift <= cut.most_shares && steps >> (plan.split_shift + 1) >= cut.least_steps)
    ++plan.split_shift;
  const int split = 1 << plan.split_shift, sides = cut.warps / split;
  plan.steps = static_cast<int>((steps + split - 1) / split);
  int64_t all = 0;
  for (int i = 0; i < parts; ++i) all += p.n[i];
  for (int rounds = 1;; ++rounds) {
    // each part gets its share of the blocks, what is left over goes to the parts with the largest groups
    int groups[kMaxRepeat] = {}, most = 0;
    int64_t left = std::max<int64_t>(static_cast<int64_t>(blocks) * rounds, parts);
    for (int i = 0; i < parts; ++i)
      left -= groups[i] = static_cast<int>(
          std::min<int64_t>(p.n[i], std::max<int64_t>(1, static_cast<int64_t>(blocks) * rounds * p.n[i] / all)));
    for (; left > 0; --left) {
      int largest = 0;
      for (int i = 1; i < parts; ++i)
        if (static_cast<int64_t>(p.n[i]) * groups[largest] > static_cast<int64_t>(p.n[largest]) * groups[i])
          largest = i;
      if (groups[largest] == p.n[largest]) break;
      ++groups[largest];
    }
    plan.groups = 0;
    for (int i = 0; i < kMaxRepeat; ++i) {
      plan.part[i] = {INT_MAX, 0, 0};
      if (i >= parts) continue;
      plan.part[i] = {plan.groups, p.n[i] / groups[i], p.n[i] % groups[i]};
      plan.groups += groups[i];
      most = std::max(most, plan.part[i].rows + (plan.part[i].larger > 0));
    }
    plan.tiles = ((most + slots - 1) / slots + sides - 1) / sides * sides;
    plan.tile_rows = (most + plan.tiles - 1) / plan.tiles;
    plan.sums = cut.ring_bytes;
    plan.tables = plan.sums + plan.tiles * (cut.tile_bytes + split * cut.share_bytes);
    plan.total = plan.tables + cut.table_bytes;
    plan.pitch = p.k / cut.step_values * kStepBytes;
    plan.high = 8 * plan.pitch;
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
inline bool lay_out(RowLaunch& launch, const WeightRows& p, const RowCut& cut, const Machine& machine) {
  constexpr int kReserved = 1024;  // of shared memory, for each block
  const int limit = static_cast<int>(machine.shared_bytes_per_block), all = limit + kReserved;
  for (int each = 16 / cut.warps; each > 0; --each) {
    launch.blocks = machine.multiprocessors * each;
    if (!plan_row(launch.plan, p, cut, launch.blocks, all / each - kReserved)) continue;
    launch.shared = std::max(launch.plan.total, all / (each + 1));
    launch.blocks = std::min(launch.blocks, launch.plan.groups);
    return true;
  }
  return false;
}

}  // namespace q::cuda
