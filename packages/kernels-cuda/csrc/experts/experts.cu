// expertLinear: lays out the problem and launches the kernel that choice.h names. mixChoices: sums over choices
// maths   out[t, i] = sum over j of round(scores[t, j] x[t K + j, i]) + residual[t, i], in the order of j; f32
// floor   (K bytes read + bytes written) of T width elements        launch  a thread an element, block 256
// ref     tensor/src/reference/experts.ts
#include "experts.h"
#include "commands.h"
#include "launch.h"
#include "linear/arguments.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 256;

template <class X, class T>
__global__ void __launch_bounds__(kThreads) mix_kernel(const X* x, const float* scores, const T* residual, T* out,
                                                       int64_t count, int choices, int64_t width, DType round) {
  pdl_begin();
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= count) return;
  const int64_t row = at / width, column = at - row * width;
  float sum = 0.f;
  for (int j = 0; j < choices; ++j) {
    const int64_t choice = row * choices + j;
    sum += rounded(scores[choice] * to_float(x[choice * width + column]), round);
  }
  if (residual) sum += to_float(residual[at]);
  out[at] = from_float<T>(sum);
}

/// What the kernels ask beyond the rules of the command.
void check_args(const ExpertLinearArgs& a) {
  if (WeightKind(a.kind) != WeightKind::bnb4) return;
  if (log2_exact(a.block_size) < 1) throw CommandError("blockSize must be a power of two from 2");
  if (a.nested && log2_exact(a.nested_block_size) < 0) throw CommandError("nestedBlockSize must be a power of two");
}

template <int N>
ExpertTable<N> table_of(const ExpertLinearArgs& a) {
  ExpertTable<N> table{};
  for (size_t i = 0; i < a.parts.size(); ++i) {
    const auto& part = a.parts[i];
    table.weight[i] = part.weight.template as<uint8_t>();
    table.absmax[i] = part.absmax.data;
    if (a.nested) {
      table.nested_absmax[i] = part.nested_absmax.template as<float>();
      table.nested_code[i] = part.nested_code.template as<float>();
      table.offset[i] = part.offset.template as<float>();
    }
    table.bias[i] = part.bias.data;
    table.bias_dtype[i] = part.bias.dtype;
  }
  return table;
}

ExpertProblem problem_of(const ExpertLinearArgs& a, Context& context) {
  ExpertProblem p{};
  p.x = a.x.data;
  p.chosen = a.chosen.as<int32_t>();
  p.scores = a.scores.as<float>();
  p.residual = a.residual.data;
  p.out = a.out.data;
  p.rows = a.rows;
  p.choices = static_cast<int>(a.choices);
  p.experts = static_cast<int>(a.experts);
  p.per_expert = static_cast<int>(a.parts_count / a.experts);
  p.k = a.k;
  p.n = a.n;
  p.width = a.gated ? a.n : a.n * p.per_expert;
  p.activation = static_cast<ActivationKind>(a.activation);
  p.gated = a.gated != 0;
  p.limit = static_cast<float>(a.limit);
  p.up_offset = static_cast<float>(a.up_offset);
  p.kind = static_cast<WeightKind>(a.kind);
  p.weight_dtype = static_cast<DType>(a.weight_dtype);
  p.quant_type = static_cast<QuantType>(a.quant_type);
  if (p.kind == WeightKind::bnb4) p.block_shift = log2_exact(a.block_size);
  if (a.nested) p.nested_shift = log2_exact(a.nested_block_size);
  p.threshold = static_cast<float>(a.threshold);
  p.error = context.device_error;
  return p;
}

template <class T, int N>
void run_with(const ExpertLinearArgs& a, const ExpertChoice& choice, Context& context) {
  ExpertProblem p = problem_of(a, context);
  const ExpertTable<N> table = table_of<N>(a);
  if (choice.kernel == ExpertKernel::rows) {
    const int64_t x_rows = p.scores ? p.rows * p.choices : p.rows;
    if (p.kind == WeightKind::int8)
      p.quantized = quantize_rows<T>(p.x, static_cast<int>(x_rows), p.k, p.threshold, context);
    return launch_expert_rows<T, N>(p, table, choice.wide, context);
  }
  if constexpr (!std::is_same_v<T, float>) {
    if (!p.scores) return launch_expert_grouped<T, N>(p, table, nullptr, context);
    float* products = context.workspace.take_array<float>(static_cast<size_t>(p.rows * p.choices * p.n));
    launch_expert_grouped<T, N>(p, table, products, context);
    launch_mix<float, T>(products, p.scores, static_cast<const T*>(p.residual), static_cast<T*>(p.out), p.rows,
                         p.choices, p.n, DType::f32, context);
  }
}

}  // namespace

template <class X, class T>
void launch_mix(const X* x, const float* scores, const T* residual, T* out, int64_t rows, int choices, int64_t width,
                DType round, Context& context) {
  const int64_t count = rows * width;
  launch(context, "mix choices", mix_kernel<X, T>, blocks_for(count, kThreads), kThreads, 0, x, scores, residual, out,
         count, choices, width, round);
}

void run(const ExpertLinearArgs& a, Context& context) {
  check_args(a);
  const ExpertChoice choice = choose_experts(facts_of(a), machine_of(context));
  if (choice.kernel == ExpertKernel::none) return;
  with_float(a.x.dtype, "experts", [&](auto zero) {
    using T = decltype(zero);
    if (a.parts_count <= kFewParts)
      run_with<T, kFewParts>(a, choice, context);
    else
      run_with<T, kMostParts>(a, choice, context);
  });
}

void run(const MixChoicesArgs& a, Context& context) {
  if (a.rows == 0) return;
  with_float(a.x.dtype, "mixChoices", [&](auto zero) {
    using T = decltype(zero);
    launch_mix<T, T>(a.x.as<T>(), a.scores.as<float>(), nullptr, a.out.as<T>(), a.rows, static_cast<int>(a.choices),
                     a.width, static_cast<DType>(a.dtype), context);
  });
}

}  // namespace q::cuda
