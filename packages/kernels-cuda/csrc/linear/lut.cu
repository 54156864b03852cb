// lut_linear: which problems it takes, and their way to the kernels (lut.cuh).
#include "arguments.h"
#include "lut.h"

namespace q::cuda {
namespace {

bool fits(const LinearArgsItem& p, const LinearArgsItem& first) { return p.kind == first.kind && aligned16(p.weight.data) && p.threshold == first.threshold; }

}  // namespace

bool lut_supports(const LinearArgs& a, const Context& context) {
  if (static_cast<WeightKind>(a.parts[0].kind) != WeightKind::int8) return false;
  if (context.compute_capability < 80 || a.rows < 1 || a.rows > kLutRows || a.k < 64 || a.k % 64 != 0) return false;
  if ((a.x.dtype != DType::f16 && a.x.dtype != DType::bf16) || !aligned16(a.x.data)) return false;
  // int8 keeps x's codes, and what marks its outliers, in shared memory beside at most 80 KB of sums and rows
  if (a.rows * (a.k + 192 + a.k / 8) + (80 << 10) > static_cast<int64_t>(context.shared_bytes_per_block)) return false;
  for (int i = 0; i < a.parts_count; ++i)
    if (!fits(a.parts[i], a.parts[0])) return false;
  return true;
}

void lut_linear(const LinearArgs& args, Context& context) {
  const LinearProblem p = problem_of(args);
  const auto threshold = static_cast<float>(args.parts[0].threshold);
  args.x.dtype == DType::f16 ? launch_lut<WeightKind::int8, half_t>(p, threshold, context) : launch_lut<WeightKind::int8, bfloat_t>(p, threshold, context);
}

}  // namespace q::cuda
