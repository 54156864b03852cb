// Host side of stream.cuh: how rows are cut into groups and tiles.
#pragma once
#include <algorithm>
#include "choice.h"
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

/// tiles: most of a group.
template <StreamWeight Kind, class T, int ColumnTiles>
void launch_columns(const LinearProblem& p, const QuantizedRows& quantized, int tiles, Context& context) {
  using S = StreamShape<Kind, ColumnTiles>;
  const int blocks = context.multiprocessors * S::kBlocksPerMultiprocessor;
  const StreamPlan plan = plan_stream(p, blocks, tiles);
  const StreamLayout<S> layout(plan.tiles, quantized.slices > 0 ? p.rows : 0, plan.nested_parts);
  launch(context, "linear", stream_linear<Kind, T, ColumnTiles>, std::min(plan.groups, blocks), kStreamThreads,
         layout.total, p, plan, quantized);
}

inline QuantizedRows rows_from(QuantizedRows q, int first, int64_t k) {
  if (!q.codes) return q;
  q.codes += first * k;
  q.scales += first;
  q.outlier_starts += first * static_cast<int64_t>(q.slices + 1);
  q.outlier_columns += first * k;
  q.outlier_values += first * k;
  return q;
}

template <StreamWeight Kind, class T>
void launch_stream(const LinearProblem& problem, const QuantizedRows& quantized, Context& context) {
  const Machine machine = machine_of(context);
  int nested_parts = 0;
  for (int i = 0; i < problem.parts; ++i)
    if (problem.part[i].nested_absmax) nested_parts = problem.parts;
  int rows = 0;
  for (int first = 0; first < problem.rows; first += rows) {
    const int left = problem.rows - first;
    const StreamFit fit = fit_stream<Kind>(left, nested_parts, quantized.slices > 0, machine);
    require(fit.columns > 0, "linear: too little shared memory for the streaming kernel");
    rows = std::min(left, fit.columns * 8);
    const LinearProblem p = rows_of<T>(problem, first, rows);
    const QuantizedRows q = rows_from(quantized, first, p.k);
    if (fit.columns == 1)
      launch_columns<Kind, T, 1>(p, q, fit.tiles, context);
    else if (fit.columns == 2)
      launch_columns<Kind, T, 2>(p, q, fit.tiles, context);
    else if constexpr (Kind != StreamWeight::wide)  // fit_stream
      launch_columns<Kind, T, 4>(p, q, fit.tiles, context);
  }
}

}  // namespace q::cuda
