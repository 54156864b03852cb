// Host side of row4.cuh and batch4.cuh.
#include "row4.h"
#include "batch4.cuh"
#include "row4.cuh"
#include "row_layout.h"

namespace q::cuda {
namespace {

bool suits(const LinearProblem& p) {
  bool ok = p.k % 128 == 0 && p.k >= 512;
  for (int i = 0; i < p.parts; ++i) {
    const LinearPartView& w = p.part[i];
    ok = ok && w.n > 0 && p.k / 64 * (w.n + 256) < INT_MAX && w.block_shift == 6 && reinterpret_cast<uintptr_t>(w.absmax) % (w.nested_absmax ? 2 : 8) == 0 && !w.nested_absmax == !p.part[0].nested_absmax && (!w.nested_absmax || reinterpret_cast<uintptr_t>(w.nested_code) % 16 == 0);
  }
  return ok;
}

int nested_bytes(const LinearProblem& p) { return p.part[0].nested_absmax ? p.parts * kRowNestedBytes : 0; }

}  // namespace

template <class T> bool launch_row4(const LinearProblem& p, Context& context) {
  RowLaunch l;
  if (p.rows != 1 || !suits(p) || !lay_out(l, p, {kRowWarps, TableRing<kRowWarps>::kStepValues, kChunkSteps, kMostShares, TableRing<kRowWarps>::kBytes, 0, kRowSumsBytes, nested_bytes(p)}, context)) return false;
  // a warp must hold its part of x at once, and for good
  if (p.norm.weight && (p.k != (kChunkSteps * 128) << l.plan.split_shift || l.plan.groups > l.blocks)) return false;
  launch(context, "linear", p.part[0].nested_absmax ? row4_linear<T, true> : row4_linear<T, false>, l.blocks, kRowThreads, l.shared, p, l.plan);
  return true;
}

template <class T, int Columns> bool launch_columns(const LinearProblem& p, Context& context) {
  using Shape = BatchShape<Columns>;
  using Ring = TableRing<Shape::kWarps>;
  RowLaunch l;
  if (!suits(p) || !lay_out(l, p, {Shape::kWarps, Ring::kStepValues, Shape::kChunkSteps, Shape::kMostShares, Ring::kBytes, 0, Shape::kSumsBytes, nested_bytes(p)}, context)) return false;
  launch(context, "linear", p.part[0].nested_absmax ? batch4_linear<T, true, Columns> : batch4_linear<T, false, Columns>, l.blocks, Shape::kThreads, l.shared, p, l.plan);
  return true;
}

template <class T> bool launch_batch4(const LinearProblem& p, Context& context) {
  if (p.rows > 16) return false;
  return p.rows <= 8 ? launch_columns<T, 1>(p, context) : launch_columns<T, 2>(p, context);
}

template bool launch_row4<half_t>(const LinearProblem&, Context&);
template bool launch_row4<bfloat_t>(const LinearProblem&, Context&);
template bool launch_batch4<half_t>(const LinearProblem&, Context&);
template bool launch_batch4<bfloat_t>(const LinearProblem&, Context&);

}  // namespace q::cuda
