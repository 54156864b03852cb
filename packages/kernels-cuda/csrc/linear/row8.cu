// Launches of row8.cuh.
#include "row8.h"
#include "row8.cuh"

namespace q::cuda {
namespace {

template <class T, int Columns, bool Own, int Stages>
void launch_instance(const LinearProblem& p, const QuantizeX& q, const RowLaunch& l, Context& context) {
  launch(context, "linear", row8_linear<T, Columns, Own, Stages>, l.blocks, Row8Shape<Columns, Own>::kThreads, l.shared,
         p, plan_of(p, l), q);
}

template <class T, int Columns, bool Own>
void launch_stages(const LinearProblem& p, const QuantizeX& q, const LinearChoice& choice, Context& context) {
  if (choice.stages == 8) return launch_instance<T, Columns, Own, 8>(p, q, choice.row, context);
  if constexpr (Own)
    if (choice.stages == 6) return launch_instance<T, Columns, Own, 6>(p, q, choice.row, context);
  launch_instance<T, Columns, Own, 4>(p, q, choice.row, context);
}

}  // namespace

template <class T>
void launch_row8(const LinearProblem& p, float threshold, const LinearChoice& choice, Context& context) {
  QuantizeX q{};
  q.threshold = threshold;
  if (choice.own) return launch_stages<T, 1, true>(p, q, choice, context);
  const int bytes = Row8Rows<false>::bytes(static_cast<int>(p.k), threshold > 0);
  q.rows = static_cast<uint8_t*>(context.workspace.take(bytes));
  q.arrived = context.counters + kCounters - 2;
  choice.columns == 1 ? launch_stages<T, 1, false>(p, q, choice, context)
                      : launch_stages<T, 2, false>(p, q, choice, context);
}
template void launch_row8<half_t>(const LinearProblem&, float, const LinearChoice&, Context&);
template void launch_row8<bfloat_t>(const LinearProblem&, float, const LinearChoice&, Context&);

}  // namespace q::cuda
