// Host side of stream.cuh: how rows are cut into groups and tiles.
#pragma once
#include <algorithm>
#include "stream.cuh"
#include "stream.h"

namespace q::cuda {

/// Rows of W spread evenly over `blocks` blocks, in as few rounds as `most_tiles` tiles a block allow.
inline StreamPlan plan_stream(const LinearProblem& p, int64_t blocks, int most_tiles) {
  StreamPlan plan{};
  for (int i = 0; i < p.parts; ++i) {
    plan.virtual_rows += p.part[i].n;
    if (p.part[i].nested_absmax) plan.nested_parts = p.parts;
  }
  plan.direct = (p.k & 255) == 0;
  for (int i = 0; i < p.parts; ++i) {
    const LinearPartView& w = p.part[i];
    plan.direct = plan.direct && w.block_shift == 6 &&
                  (reinterpret_cast<uintptr_t>(w.absmax) & (w.nested_absmax ? 3 : 15)) == 0 &&
                  w.nested_shift == p.part[0].nested_shift && !w.nested_absmax == !p.part[0].nested_absmax;
  }
  const int64_t most = blocks * most_tiles * 16;
  blocks *= std::max<int64_t>(1, (plan.virtual_rows + most - 1) / most);
  const int rows = static_cast<int>(std::max<int64_t>(1, (plan.virtual_rows + blocks - 1) / blocks));
  plan.tiles = (rows + 15) / 16;
  plan.tile_rows = (rows + plan.tiles - 1) / plan.tiles;
  if (p.gated) plan.tile_rows = (plan.tile_rows + 1) / 2 * 2;
  plan.group_rows = plan.tile_rows * plan.tiles;
  plan.groups = (plan.virtual_rows + plan.group_rows - 1) / plan.group_rows;
  return plan;
}

template <WeightKind Kind, class T, int ColumnTiles>
bool try_stream(const LinearProblem& p, const QuantizedRows& quantized, Context& context) {
  using S = StreamShape<Kind, ColumnTiles>;
  // 113 KiB: half of what a multiprocessor of sm_90 has. Where there is less, blocks simply run one after the other.
  const int limit = static_cast<int>(
      std::min<size_t>(context.shared_bytes_per_block, S::kBlocksPerMultiprocessor == 2 ? 113 * 1024 : SIZE_MAX));
  int nested_parts = 0;
  for (int i = 0; i < p.parts; ++i)
    if (p.part[i].nested_absmax) nested_parts = p.parts;
  const int outlier_rows = quantized.slices > 0 ? p.rows : 0;
  int tiles = S::kSumsInGaps ? 4 : kMostTiles;
  while (tiles > 0 && StreamLayout<S>(tiles, outlier_rows, nested_parts).total > limit) --tiles;
  if (tiles == 0) return false;
  const int blocks = context.multiprocessors * S::kBlocksPerMultiprocessor;
  const StreamPlan plan = plan_stream(p, blocks, tiles);
  launch(context, "linear", stream_linear<Kind, T, ColumnTiles>, std::min(plan.groups, blocks), kStreamThreads,
         StreamLayout<S>(plan.tiles, outlier_rows, nested_parts).total, p, plan, quantized);
  return true;
}

template <WeightKind Kind, class T>
bool launch_stream(const LinearProblem& problem, const QuantizedRows& quantized, Context& context) {
  int rows = 0;
  for (int first = 0; first < problem.rows; first += rows) {
    LinearProblem p = rows_of<T>(problem, first, problem.rows - first);
    QuantizedRows q = quantized;
    if (q.codes) {
      q.codes += first * p.k;
      q.scales += first;
      q.outlier_starts += first * static_cast<int64_t>(q.slices + 1);
      q.outlier_columns += first * p.k;
      q.outlier_values += first * p.k;
    }
    const auto attempt = [&](auto tiles) {
      p.rows = rows = std::min(problem.rows - first, tiles.value * 8);
      return try_stream<Kind, T, tiles.value>(p, q, context);
    };
    const int left = problem.rows - first;
    if (left > 16 && attempt(std::integral_constant<int, 4>{})) continue;
    if (left > 8 && attempt(std::integral_constant<int, 2>{})) continue;
    if (attempt(std::integral_constant<int, 1>{})) continue;
    return false;  // at first == 0 if at all: fewer rows need less
  }
  return true;
}

}  // namespace q::cuda
