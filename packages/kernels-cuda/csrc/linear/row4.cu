// Launches of row4.cuh and batch4.cuh.
#include "row4.h"
#include "batch4.cuh"
#include "row4.cuh"

namespace q::cuda {
namespace {

template <class T, int Columns>
void launch_columns(const LinearProblem& p, const RowLaunch& l, Context& context) {
  launch(context, "linear",
         p.part[0].nested_absmax ? batch4_linear<T, true, Columns> : batch4_linear<T, false, Columns>, l.blocks,
         BatchShape<Columns>::kThreads, l.shared, p, plan_of(p, l));
}

}  // namespace

template <class T>
void launch_row4(const LinearProblem& p, const LinearChoice& choice, Context& context) {
  const RowLaunch& l = choice.row;
  launch(context, "linear", p.part[0].nested_absmax ? row4_linear<T, true> : row4_linear<T, false>, l.blocks,
         kRowThreads, l.shared, p, plan_of(p, l));
}

template <class T>
void launch_batch4(const LinearProblem& p, const LinearChoice& choice, Context& context) {
  choice.columns == 1 ? launch_columns<T, 1>(p, choice.row, context) : launch_columns<T, 2>(p, choice.row, context);
}

template void launch_row4<half_t>(const LinearProblem&, const LinearChoice&, Context&);
template void launch_row4<bfloat_t>(const LinearProblem&, const LinearChoice&, Context&);
template void launch_batch4<half_t>(const LinearProblem&, const LinearChoice&, Context&);
template void launch_batch4<bfloat_t>(const LinearProblem&, const LinearChoice&, Context&);

}  // namespace q::cuda
