// Host side of row8.cuh.
#include "row8.cuh"
#include "row8.h"
#include "row_layout.h"

namespace q::cuda {
namespace {

template <class T, int Columns, bool Own, int Stages>
bool try_rows(const LinearProblem& p, const QuantizeX& q, Context& context) {
  using Kernel = Row8Kernel<T, Columns, Own, Stages>;
  using Shape = Row8Shape<Columns, Own>;
  constexpr int kRingBytes = PlainRing<Stages>::kWarpBytes * Shape::kWarps, kLeastSteps = 2;  // of a warp
  const int table_bytes = Kernel::table_bytes(p, q.threshold);
  const RowCut cut{Shape::kWarps,
                   PlainRing<Stages>::kStepValues,
                   kLeastSteps,
                   Shape::kWarps,
                   kRingBytes,
                   Shape::kTileBytes,
                   0,
                   table_bytes,
                   Shape::kMostTiles};
  RowLaunch l;
  if (!lay_out(l, p, cut, context)) return false;
  // x waits behind copies that have started: where there is much to copy, that costs less than to start late
  const int steps = (l.plan.tiles * l.plan.steps << l.plan.split_shift) / Shape::kWarps;  // of a warp
  l.plan.early = std::min(steps < (Own ? 16 : 32) ? 3 : Own ? 7 : 5, Stages - 1);
  launch(context, "linear", row8_linear<T, Columns, Own, Stages>, l.blocks, Shape::kThreads, l.shared, p, l.plan, q);
  return true;
}

/// A shorter ring is for long rows, and for devices with little shared memory.
template <class T, int Columns, bool Own>
bool launch_rows(const LinearProblem& p, const QuantizeX& q, Context& context) {
  if (try_rows<T, Columns, Own, 8>(p, q, context)) return true;
  if constexpr (Own)
    if (try_rows<T, Columns, Own, 6>(p, q, context)) return true;
  return try_rows<T, Columns, Own, 4>(p, q, context);
}

}  // namespace

template <class T>
bool launch_row8(const LinearProblem& p, float threshold, Context& context) {
  using Rows = BlockRows<T, Row8Shape<1, false>::kThreads, kRow8Most>;
  bool suits = p.rows <= kRow8Most && p.k % 64 == 0 && p.k >= 256 && context.counters &&
               (!p.norm.weight || p.k <= Rows::kMostNormed);
  for (int i = 0; i < p.parts; ++i) suits = suits && p.part[i].n > 0;
  if (!suits) return false;
  QuantizeX q{};
  q.threshold = threshold;
  if (p.rows == 1 && launch_rows<T, 1, true>(p, q, context))
    return true;  // a very long row does not fit into little shared memory
  q.rows = static_cast<uint8_t*>(context.workspace.take(Rows::bytes(static_cast<int>(p.k), threshold > 0)));
  q.arrived = context.counters + kCounters - 2;
  return p.rows <= 8 ? launch_rows<T, 1, false>(p, q, context) : launch_rows<T, 2, false>(p, q, context);
}
template bool launch_row8<half_t>(const LinearProblem&, float, Context&);
template bool launch_row8<bfloat_t>(const LinearProblem&, float, Context&);

}  // namespace q::cuda
