// linear: checks the arguments, chooses a kernel (choice.h) and lays out the problem for it.
#include <algorithm>
#include "elementwise/bounded_gate.h"
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

/// 4-bit weights, 8 rows at a time: for devices with little shared memory.
template <class T>
void launch_slices4(const LinearProblem& p, const LinearFacts& facts, Context& context) {
  for (int first = 0; first < p.rows; first += 8) {
    const LinearProblem slice = rows_of<T>(p, first, std::min(8, p.rows - first));
    const LinearChoice choice = choose_slice4(facts, slice.rows, machine_of(context));
    require(choice.kernel != LinearKernel::none, "linear: a slice of rows fits no kernel");
    choice.kernel == LinearKernel::row4 ? launch_row4<T>(slice, choice, context)
                                        : launch_batch4<T>(slice, choice, context);
  }
}

template <class T>
void launch_stream_of(const LinearArgs& a, const LinearProblem& p, Context& context) {
  switch (static_cast<WeightKind>(a.parts[0].kind)) {
    case WeightKind::dense:
      return a.parts[0].weight.dtype == DType::f32 ? launch_stream<StreamWeight::wide, T>(p, {}, context)
                                                   : launch_stream<StreamWeight::dense, T>(p, {}, context);
    case WeightKind::bnb4:
      return launch_stream<StreamWeight::bnb4, T>(p, {}, context);
    default: {
      const QuantizedRows q = quantize_rows<T>(p.x, p.rows, p.k, static_cast<float>(a.parts[0].threshold), context);
      return launch_stream<StreamWeight::int8, T>(p, q, context);
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

/// A kernel for few rows; T: f16 or bf16.
template <class T>
void run_few(const LinearChoice& choice, const LinearFacts& facts, const LinearArgs& a, const LinearProblem& p,
             Context& context) {
  switch (choice.kernel) {
    case LinearKernel::row4:
      return launch_row4<T>(p, choice, context);
    case LinearKernel::batch4:
      return launch_batch4<T>(p, choice, context);
    case LinearKernel::row8:
      return launch_row8<T>(p, static_cast<float>(a.parts[0].threshold), choice, context);
    case LinearKernel::slices4:
      return launch_slices4<T>(p, facts, context);
    default:
      return launch_stream_of<T>(a, p, context);
  }
}

void run_own(const LinearChoice& choice, const LinearFacts& facts, const LinearArgs& a, const LinearProblem& p,
             Context& context) {
  if (choice.kernel == LinearKernel::simple)
    return with_float(a.x.dtype, "linear", [&](auto zero) { run_simple<decltype(zero)>(a, p, context); });
  a.x.dtype == DType::f16 ? run_few<half_t>(choice, facts, a, p, context)
                          : run_few<bfloat_t>(choice, facts, a, p, context);
}

/// Parts that differ, each by its best few-row kernel into its columns of out.
void run_parts(const LinearArgs& all, Context& context) {
  const LinearProblem whole = problem_of(all);
  const int64_t size = all.x.dtype == DType::f32 ? 4 : 2;
  for (int i = 0; i < all.parts_count; ++i) {
    LinearArgs one = all;
    one.parts_count = 1;
    one.parts[0] = all.parts[i];
    if (one.parts[0].n == 0) continue;
    const LinearFacts facts = facts_of(one);
    LinearProblem p = problem_of(one);
    p.columns = whole.columns;
    p.out = static_cast<uint8_t*>(p.out) + whole.part[i].first * size;
    if (p.residual) p.residual = static_cast<const uint8_t*>(p.residual) + whole.part[i].first * size;
    run_own(choose_few_rows(facts, machine_of(context)), facts, one, p, context);
  }
}

bool bounded(const LinearArgs& a) { return a.gated && (a.limit > 0 || a.up_offset != 0); }

/// Gate and up side by side, rounded to act, and then what is done with them: no product does it in its own pass.
void run_bounded(const LinearArgs& a, Context& context) {
  const int64_t n = a.parts[0].n, bytes = 2 * a.rows * n * dtype_bytes(a.out.dtype);
  if (bytes == 0) return;
  LinearArgs product = a;
  product.gated = 0;
  product.activation = static_cast<int64_t>(ActivationKind::none);
  product.residual = Tensor{};
  product.out = {context.workspace.take_array<uint8_t>(static_cast<size_t>(bytes)), a.out.dtype, bytes};
  run(product, context);
  GatedActivationArgs gate{};
  gate.x = product.out;
  gate.out = a.out;
  gate.rows = a.rows;
  gate.width = n;
  gate.kind = a.activation;
  gate.limit = a.limit;
  gate.up_offset = a.up_offset;
  gate.dtype = static_cast<int64_t>(DType::f32);
  bounded_gate(gate, a.residual.data, context);
}

/// A norm and the product that reads it in one launch; false: nothing was launched.
bool run_with_norm(const RmsNormArgs& n, const LinearArgs& a, Context& context) {
  if (bounded(a)) return false;
  const LinearFacts facts = facts_of(a);
  const LinearChoice choice = choose_linear_with_norm(facts, facts_of(n, a), machine_of(context));
  if (choice.kernel == LinearKernel::none) return false;
  check_args(a);
  LinearProblem p = problem_of(a);
  p.x = n.x.data;
  p.norm = {n.weight.data, n.out.data, static_cast<float>(n.eps), static_cast<float>(n.weight_offset)};
  run_own(choice, facts, a, p, context);
  return true;
}

}  // namespace

void run(const RmsNormArgs& norm, const LinearArgs& args, Context& context) {
  if (run_with_norm(norm, args, context)) return;
  run(norm, context);
  run(args, context);
}

void run(const LinearArgs& args, Context& context) {
  if (bounded(args)) return run_bounded(args, context);
  const LinearFacts facts = facts_of(args);
  const LinearChoice choice = choose_linear(facts, machine_of(context));
  if (choice.kernel == LinearKernel::none) return;
  check_args(args);
  if (choice.kernel == LinearKernel::parts) return run_parts(args, context);
  if (choice.kernel >= LinearKernel::bnb4) return gemm(args, choice, context);
  run_own(choice, facts, args, problem_of(args), context);
}

}  // namespace q::cuda
