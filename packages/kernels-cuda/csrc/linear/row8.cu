// Host side of row8.cuh.
#include "row8.cuh"
#include "row8.h"
#include "row_layout.h"

namespace q::cuda {
namespace {

/// Of shared memory, for columns of outliers. With all that is left, 16 rows of 11008 values would find less of the L1 cache (17.6 us instead of 16.6).
constexpr int kColumnBytes = 48 << 10;

template <class T, int Columns, bool Own, int Stages> bool try_rows(const LinearProblem& p, const QuantizeX& q, Context& context) {
  using Kernel = Row8Kernel<T, Columns, Own, Stages>;
  using Shape = Row8Shape<Columns>;
  using Outliers = typename Kernel::Outliers;
  const int columns_at = Kernel::columns_at(p);
  RowCut cut{Shape::kWarps, PlainRing<Stages>::kStepValues, Shape::kChunkSteps, Shape::kWarps, PlainRing<Stages>::kWarpBytes * Shape::kWarps, Shape::kTileBytes};
  cut.table_bytes = columns_at + Outliers::kLeastKept * Outliers::column_bytes(p.rows, 0);
  cut.table_tile_bytes = Outliers::kLeastKept * Outliers::column_bytes(0, 16);
  cut.most_tiles = Shape::kMostTiles;
  RowLaunch l;
  if (!lay_out(l, p, cut, context)) return false;
  // x waits behind copies that have started: where there is much to copy, that costs less than to start late
  const int steps = (l.plan.tiles * l.plan.steps << l.plan.split_shift) / Shape::kWarps;  // of a warp
  l.plan.early = std::min(steps < (Own ? 16 : 32) ? 3 : Own ? 7 : 5, Stages - 1);
  QuantizeX quantize = q;
  const int start = l.plan.tables + columns_at, column = Outliers::column_bytes(p.rows, l.plan.tiles * 16);
  quantize.kept = std::max(Outliers::kLeastKept, std::min(kColumnBytes, static_cast<int>(context.shared_bytes_per_block) - start) / column);
  l.shared = std::max(l.shared, start + quantize.kept * column);
  launch(context, "linear", row8_linear<T, Columns, Own, Stages>, l.blocks, Shape::kThreads, l.shared, p, l.plan, quantize);
  return true;
}

/// A ring of four stages is for devices with little shared memory, and for long rows.
template <class T, int Columns, bool Own> bool launch_rows(const LinearProblem& p, const QuantizeX& q, Context& context) {
  return try_rows<T, Columns, Own, 8>(p, q, context) || try_rows<T, Columns, Own, 4>(p, q, context);
}

}  // namespace

template <class T> bool launch_row8(const LinearProblem& p, float threshold, Context& context) {
  using Rows = BlockRows<T, Row8Shape<1>::kThreads, kRow8Most>;
  bool suits = p.rows <= kRow8Most && p.k % 64 == 0 && p.k >= 256 && context.counters && (!p.norm.weight || p.k <= Rows::kMostNormed);
  for (int i = 0; i < p.parts; ++i) suits = suits && p.part[i].n > 0;
  if (!suits) return false;
  QuantizeX q{};
  q.threshold = threshold;
  if (p.rows == 1 && launch_rows<T, 1, true>(p, q, context)) return true;  // a very long row does not fit into little shared memory
  q.rows = static_cast<uint8_t*>(context.workspace.take(Rows::bytes(static_cast<int>(p.k))));
  q.arrived = context.counters + kCounters - 2;
  return p.rows <= 8 ? launch_rows<T, 1, false>(p, q, context) : launch_rows<T, 2, false>(p, q, context);
}
template bool launch_row8<half_t>(const LinearProblem&, float, Context&);
template bool launch_row8<bfloat_t>(const LinearProblem&, float, Context&);

}  // namespace q::cuda
