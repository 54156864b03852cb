// Host side of row8.cuh.
#include "row8.cuh"
#include "row8.h"
#include "row_layout.h"

namespace q::cuda {
namespace {

template <class T, int Columns, bool Own> bool launch_rows(const LinearProblem& p, const QuantizedRows& q, Context& context) {
  using Kernel = Row8Kernel<T, Columns, Own>;
  using Shape = Row8Shape<Columns>;
  RowLaunch l;
  if (!lay_out(l, p, {Shape::kWarps, Kernel::Ring::kStepValues, Shape::kChunkSteps, Shape::kWarps, Kernel::Ring::kWarpBytes * Shape::kWarps, Shape::kTileBytes, 0, Kernel::table_bytes(static_cast<int>(p.k))}, context) || l.plan.tiles * 16 > Shape::kThreads) return false;
  launch(context, "linear", row8_linear<T, Columns, Own>, l.blocks, Shape::kThreads, l.shared, p, l.plan, q);
  return true;
}

}  // namespace

template <class T> bool launch_row8(const LinearProblem& p, float threshold, Context& context) {
  bool suits = p.rows <= kRow8Most && p.k % 64 == 0 && p.k >= 256 && context.counters;
  for (int i = 0; i < p.parts; ++i) suits = suits && p.part[i].n > 0;
  if (!suits) return false;
  QuantizedRows q{};
  q.threshold = threshold;
  if (p.rows == 1) return launch_rows<T, 1, true>(p, q, context);
  q.own = static_cast<uint8_t*>(context.workspace.take(BlockRows<T, Row8Shape<1>::kThreads, kRow8Most>::bytes(static_cast<int>(p.k))));
  q.arrived = context.counters + kCounters - 2;
  return p.rows <= 8 ? launch_rows<T, 1, false>(p, q, context) : launch_rows<T, 2, false>(p, q, context);
}
template bool launch_row8<half_t>(const LinearProblem&, float, Context&);
template bool launch_row8<bfloat_t>(const LinearProblem&, float, Context&);

}  // namespace q::cuda
