// Host side of stream.cuh: how rows are cut into groups and tiles, how deep the ring is.
#pragma once
#include <algorithm>
#include "stream.cuh"
#include "stream.h"

namespace q::cuda {

/// Rows of W spread evenly over the multiprocessors, in as few rounds as kMaxTiles tiles a block allow.
inline StreamPlan plan_stream(const LinearProblem& p, int multiprocessors) {
  StreamPlan plan{};
  for (int i = 0; i < p.parts; ++i) plan.virtual_rows += p.part[i].n;
  const int64_t most = static_cast<int64_t>(multiprocessors) * kMaxTiles * 16;
  const int64_t rounds = std::max<int64_t>(1, (plan.virtual_rows + most - 1) / most);
  const int64_t blocks = multiprocessors * rounds;
  const int64_t rows = std::max<int64_t>(1, (plan.virtual_rows + blocks - 1) / blocks);
  const int64_t tiles = (rows + 15) / 16;
  plan.tile_rows = static_cast<int>((rows + tiles - 1) / tiles);
  if (p.gated) plan.tile_rows = (plan.tile_rows + 1) / 2 * 2;
  plan.group_rows = static_cast<int>(plan.tile_rows * tiles);
  plan.groups = static_cast<int>((plan.virtual_rows + plan.group_rows - 1) / plan.group_rows);
  return plan;
}

/// Deepest ring that fits.
template <class S> int ring_stages(int rows, size_t limit, int ring_bytes) {
  int stages = std::min<int>(12, std::max<int>(2, ring_bytes / S::kStageBytes));
  while (stages > 0 && static_cast<size_t>(StreamShared<S>::total(stages, rows)) > limit) --stages;
  return stages;
}

template <WeightKind Kind, class T, int ColumnTiles> bool try_stream(const LinearProblem& p, const QuantizedRows& quantized, Context& context, const StreamTuning& tuning) {
  using S = StreamShape<Kind, ColumnTiles>;
  StreamPlan plan = plan_stream(p, context.multiprocessors * tuning.blocks_per_multiprocessor);
  const size_t limit = ColumnTiles == 1 ? std::min<size_t>(context.shared_bytes_per_block, tuning.shared_limit) : context.shared_bytes_per_block;
  plan.stages = ring_stages<S>(p.rows, limit, tuning.ring_bytes);
  if (plan.stages < 2) return false;
  launch(context, "linear", stream_linear<Kind, T, ColumnTiles>, std::min(plan.groups, context.multiprocessors * tuning.blocks_per_multiprocessor), kStreamThreads,
         StreamShared<S>::total(plan.stages, p.rows), p, plan, quantized);
  return true;
}

template <WeightKind Kind, class T> void launch_stream(const LinearProblem& problem, const QuantizedRows& quantized, Context& context, const StreamTuning& tuning) {
  int rows = 0;
  for (int first = 0; first < problem.rows; first += rows) {
    LinearProblem p = problem;
    QuantizedRows q = quantized;
    p.x = static_cast<const T*>(p.x) + first * p.k;
    p.out = static_cast<T*>(p.out) + first * p.columns;
    if (p.residual) p.residual = static_cast<const T*>(p.residual) + first * p.columns;
    if (q.codes) {
      q.codes += first * p.k;
      q.scales += first;
      q.outlier_starts += first * static_cast<int64_t>(q.chunks + 1);
      q.outlier_columns += first * p.k;
      q.outlier_values += first * p.k;
    }
    const auto attempt = [&](auto tiles) {
      p.rows = rows = std::min(problem.rows - first, tiles.value * 8);
      return try_stream<Kind, T, tiles.value>(p, q, context, tuning);
    };
    const int left = problem.rows - first;
    if (left > 16 && attempt(std::integral_constant<int, 4>{})) continue;
    if (left > 8 && attempt(std::integral_constant<int, 2>{})) continue;
    if (attempt(std::integral_constant<int, 1>{})) continue;
    throw CommandError("linear: " + std::to_string(context.shared_bytes_per_block) + " bytes of shared memory a block are too few for the streaming kernel");
  }
}

}  // namespace q::cuda
