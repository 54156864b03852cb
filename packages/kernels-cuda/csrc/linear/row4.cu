// Host side of row4.cuh and batch4.cuh.
#include "row4.h"
#include "batch4.cuh"
#include "row4.cuh"
#include "row_layout.h"

namespace q::cuda {
namespace {

/// Whether absmax can be loaded and copied by the pieces that the kernels take.
bool aligned(const LinearPartView& w) {
  const auto at = [](const void* p, int bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  return w.nested_absmax ? at(w.absmax, 2) && at(w.nested_code, 16) : at(w.absmax, 8);
}

bool suits(const LinearProblem& p) {
  bool ok = p.k % 128 == 0 && p.k >= 512;
  for (int i = 0; i < p.parts; ++i) {
    const LinearPartView& w = p.part[i];
    ok = ok && w.n > 0 && p.k / 64 * (w.n + 256) < INT_MAX && w.block_shift == 6 &&
         !w.nested_absmax == !p.part[0].nested_absmax && aligned(w);
  }
  return ok;
}

template <int Warps>
RowCut cut_of(const LinearProblem& p, int chunk_steps, int most_shares, int share_bytes) {
  using Ring = TableRing<Warps>;
  return {Warps,        Ring::kStepValues,
          chunk_steps,  most_shares,
          Ring::kBytes, 0,
          share_bytes,  p.part[0].nested_absmax ? p.parts * kNestedTableBytes : 0,
          INT_MAX};
}

template <class T, int Columns>
bool launch_columns(const LinearProblem& p, Context& context) {
  using Shape = BatchShape<Columns>;
  RowLaunch l;
  if (!suits(p) ||
      !lay_out(l, p, cut_of<Shape::kWarps>(p, Shape::kChunkSteps, Shape::kMostShares, Shape::kSumsBytes), context))
    return false;
  launch(context, "linear",
         p.part[0].nested_absmax ? batch4_linear<T, true, Columns> : batch4_linear<T, false, Columns>, l.blocks,
         Shape::kThreads, l.shared, p, l.plan);
  return true;
}

}  // namespace

template <class T>
bool launch_row4(const LinearProblem& p, Context& context) {
  RowLaunch l;
  if (p.rows != 1 || !suits(p) ||
      !lay_out(l, p, cut_of<kRowWarps>(p, kChunkSteps, kMostShares, kRowSumsBytes), context))
    return false;
  // a warp must hold its part of x at once, and for good
  if (p.norm.weight && (p.k != (kChunkSteps * 128) << l.plan.split_shift || l.plan.groups > l.blocks)) return false;
  launch(context, "linear", p.part[0].nested_absmax ? row4_linear<T, true> : row4_linear<T, false>, l.blocks,
         kRowThreads, l.shared, p, l.plan);
  return true;
}

template <class T>
bool launch_batch4(const LinearProblem& p, Context& context) {
  if (p.rows > 16) return false;
  return p.rows <= 8 ? launch_columns<T, 1>(p, context) : launch_columns<T, 2>(p, context);
}

template bool launch_row4<half_t>(const LinearProblem&, Context&);
template bool launch_row4<bfloat_t>(const LinearProblem&, Context&);
template bool launch_batch4<half_t>(const LinearProblem&, Context&);
template bool launch_batch4<bfloat_t>(const LinearProblem&, Context&);

}  // namespace q::cuda
