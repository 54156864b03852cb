// linear: checks the arguments, chooses a kernel (choice.h) and lays out the problem for it.
#include <algorithm>
#include "arguments.h"
#include "choice.h"
#include "commands.h"
#include "gemm.h"
#include "row4.h"
#include "row8.h"
#include "simple.h"

namespace q::cuda {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw CommandError(what); }

/// What the kernels ask beyond the rules of the command.
void check_args(const LinearArgs& a) {
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const LinearArgsItem& p = a.parts[i];
    const std::string part = "parts[" + std::to_string(i) + "].";
    if (static_cast<WeightKind>(p.kind) != WeightKind::bnb4) continue;
    if (log2_exact(p.block_size) < 1)
      refuse(part + "blockSize must be a power of two from 2, got " + std::to_string(p.block_size));
    if (p.nested_absmax && log2_exact(p.nested_block_size) < 0)
      refuse(part + "nestedBlockSize must be a power of two, got " + std::to_string(p.nested_block_size));
  }
}

/// Whether the stream kernel can compute this part with x of dtype `act`.
bool fits_stream(const LinearArgsItem& p, DType act) {
  const auto compute = static_cast<DType>(p.compute_dtype);
  switch (static_cast<WeightKind>(p.kind)) {
    case WeightKind::dense:
      return p.weight.dtype == act;
    // f32 compute rounds the code (not the product) to 16 bits, finer than the output is rounded
    case WeightKind::bnb4:
      return (compute == act || compute == DType::f32) && p.block_size >= 64 &&
             (!p.nested_absmax || p.nested_block_size >= 64);
    default:
      return true;
  }
}

bool same_kind(const LinearArgsItem& a, const LinearArgsItem& b) {
  if (a.kind != b.kind) return false;
  if (static_cast<WeightKind>(a.kind) == WeightKind::bnb4) return a.quant_type == b.quant_type;
  return static_cast<WeightKind>(a.kind) != WeightKind::int8 || a.threshold == b.threshold;
}

LinearTraits traits_of(const LinearArgs& a, Context& context) {
  LinearTraits t{};
  t.kind = static_cast<WeightKind>(a.parts[0].kind);
  t.act = a.x.dtype;
  t.uniform = true;
  t.aligned = aligned16(a.x.data);
  for (int i = 0; i < a.parts_count; ++i) {
    t.uniform = t.uniform && same_kind(a.parts[0], a.parts[i]) && fits_stream(a.parts[i], a.x.dtype);
    t.aligned = t.aligned && aligned16(a.parts[i].weight.data);
  }
  t.rows = a.rows;
  t.k = a.k;
  t.capability = context.compute_capability;
  t.gemm = gemm_supports(a, context);
  return t;
}

/// 4-bit weights, 8 rows at a time: for devices with little shared memory.
template <class T>
bool launch_slices4(const LinearProblem& p, Context& context) {
  for (int first = 0; first < p.rows; first += 8) {
    const LinearProblem slice = rows_of<T>(p, first, std::min(8, p.rows - first));
    if (!launch_row4<T>(slice, context) && !launch_batch4<T>(slice, context))
      return false;  // for the first slice if at all
  }
  return true;
}

/// false: no kernel for few rows suits, and out is as it was.
template <class T>
bool run_stream(const LinearArgs& a, const LinearProblem& p, Context& context) {
  switch (static_cast<WeightKind>(a.parts[0].kind)) {
    case WeightKind::dense:
      return launch_stream<WeightKind::dense, T>(p, {}, context);
    case WeightKind::bnb4:
      if (launch_row4<T>(p, context) || launch_batch4<T>(p, context)) return true;
      return launch_stream<WeightKind::bnb4, T>(p, {}, context) || launch_slices4<T>(p, context);
    default: {
      const float threshold = static_cast<float>(a.parts[0].threshold);
      if (launch_row8<T>(p, threshold, context)) return true;
      const QuantizedRows q = quantize_rows<T>(p.x, p.rows, p.k, threshold, context);
      return launch_stream<WeightKind::int8, T>(p, q, context);
    }
  }
}

template <class T>
void run_simple(const LinearArgs& a, const LinearProblem& linear, Context& context) {
  SimpleProblem p{};
  p.linear = linear;
  for (int i = 0; i < a.parts_count; ++i) {
    const LinearArgsItem& s = a.parts[i];
    p.part[i] = {static_cast<WeightKind>(s.kind), static_cast<QuantType>(s.quant_type),
                 static_cast<DType>(s.compute_dtype), static_cast<float>(s.threshold)};
    if (p.part[i].kind == WeightKind::int8)
      p.quantized[i] = quantize_rows<T>(a.x.data, p.linear.rows, a.k, p.part[i].threshold, context);
  }
  launch_simple<T>(p, context);
}

void run_own(LinearRoute route, const LinearArgs& a, const LinearProblem& p, Context& context) {
  if (route == LinearRoute::stream &&
      (a.x.dtype == DType::f16 ? run_stream<half_t>(a, p, context) : run_stream<bfloat_t>(a, p, context)))
    return;
  with_float(a.x.dtype, "linear", [&](auto zero) { run_simple<decltype(zero)>(a, p, context); });
}

/// Parts that differ in kind, each by its best few-row kernel into its columns of out.
void run_parts(const LinearArgs& all, Context& context) {
  const LinearProblem whole = problem_of(all);
  const int64_t size = all.x.dtype == DType::f32 ? 4 : 2;
  for (int i = 0; i < all.parts_count; ++i) {
    LinearArgs one = all;
    one.parts_count = 1;
    one.parts[0] = all.parts[i];
    if (one.parts[0].n == 0) continue;
    LinearTraits traits = traits_of(one, context);
    traits.gemm = false;  // it writes whole outputs only
    LinearProblem p = problem_of(one);
    p.columns = whole.columns;
    p.out = static_cast<uint8_t*>(p.out) + whole.part[i].first * size;
    if (p.residual) p.residual = static_cast<const uint8_t*>(p.residual) + whole.part[i].first * size;
    run_own(choose_linear(traits), one, p, context);
  }
}

bool overlap(const Tensor& a, const Tensor& b) {
  return static_cast<const uint8_t*>(a.data) < static_cast<const uint8_t*>(b.data) + b.bytes &&
         static_cast<const uint8_t*>(b.data) < static_cast<const uint8_t*>(a.data) + a.bytes;
}

/// A norm and the product that reads it in one launch; false: nothing was launched. Blocks read the norm's input while
/// others write, so that neither output may lie in it.
bool run_with_norm(const RmsNormArgs& n, const LinearArgs& a, Context& context) {
  const LinearTraits traits = traits_of(a, context);
  if (choose_linear(traits) != LinearRoute::stream || a.rows != n.rows || n.x.dtype != a.x.dtype ||
      n.out.dtype != a.x.dtype || n.weight.dtype != a.x.dtype || a.k != n.width || !aligned16(n.x.data) ||
      !aligned16(n.out.data) || !aligned16(n.weight.data) || overlap(n.out, n.x) || overlap(a.out, n.x))
    return false;
  check_args(a);
  LinearProblem p = problem_of(a);
  p.x = n.x.data;
  p.norm = {n.weight.data, n.out.data, static_cast<float>(n.eps), static_cast<float>(n.weight_offset)};
  const auto launched = [&](auto zero) {
    using T = decltype(zero);
    if (traits.kind == WeightKind::int8) return launch_row8<T>(p, static_cast<float>(a.parts[0].threshold), context);
    return traits.kind == WeightKind::bnb4 && launch_row4<T>(p, context);
  };
  return a.x.dtype == DType::f16 ? launched(half_t{}) : launched(bfloat_t{});
}

}  // namespace

void run(const RmsNormArgs& norm, const LinearArgs& args, Context& context) {
  if (run_with_norm(norm, args, context)) return;
  run(norm, context);
  run(args, context);
}

void run(const LinearArgs& args, Context& context) {
  int64_t outputs = 0;
  for (int i = 0; i < args.parts_count; ++i) outputs += args.parts[i].n;
  if (args.rows == 0 || outputs == 0) return;
  check_args(args);
  const LinearTraits traits = traits_of(args, context);
  const LinearRoute route = choose_linear(traits);
  if (route == LinearRoute::gemm) return gemm(args, context);
  if (!traits.uniform && !args.gated && args.parts_count > 1) return run_parts(args, context);
  run_own(route, args, problem_of(args), context);
}

}  // namespace q::cuda
