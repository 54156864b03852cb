// The linear with many rows: the product that choice.h chose, and the passes around it.
//   bnb4    gemm_bnb4, which dequantizes inside the product. Else 4-bit weights are dequantized into the workspace (26
//           us for 11008 x 4096, then mostly in L2) and multiplied as dense ones.
//   tma, cublas, mma, plain
// Dense weights in another dtype than x are rounded to x's in the workspace and multiplied there. Those that x's dtype
// does not hold (f16: beyond 65504) must not become infinite: where the device found one, gemm_plain computes the
// product once more from the weights as they are.
// A product that cannot fuse what follows (see each) writes its sums with the bias, and finish_rows does the rest.
#include "gemm.h"
#include "cublaslt.h"
#include "gemm_mma.cuh"
#include "gemm_plan.h"
#include "gemm_quantize.cuh"
#include "gemm_round.h"

namespace q::cuda {
namespace {

int64_t width_of(const LinearArgs& a) {
  int64_t n = 0;
  for (int i = 0; i < a.parts_count; ++i) n += a.parts[i].n;
  return n;
}
int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

std::string shape(const LinearArgs& a) {
  return "rows " + std::to_string(a.rows) + ", k " + std::to_string(a.k) + ", n " + std::to_string(width_of(a)) +
         " in " + std::to_string(a.parts_count) + " parts";
}

/// `dtype`: of what the product writes.
Finish finish_of(const LinearArgs& a, DType dtype) {
  Finish f{};
  f.out = a.out.data;
  f.residual = a.residual.data;
  f.ldo = a.gated ? a.parts[0].n : width_of(a);
  f.rows = static_cast<int>(a.rows);
  f.gated = a.gated ? 1 : 0;
  f.activation = static_cast<ActivationKind>(a.activation);
  f.parts = static_cast<int>(a.parts_count);
  int64_t column = 0;
  bool eights = aligned16(f.out) && aligned16(f.residual);
  for (int i = 0; i < f.parts; ++i) {
    const LinearArgsItem& part = a.parts[i];
    f.part[i] = {static_cast<int>(part.n), static_cast<int>(column), 0, part.bias.data, part.bias.dtype};
    eights = eights && part.n % 8 == 0 && aligned16(part.bias.data) && (!part.bias || part.bias.dtype == dtype);
    column += part.n;
  }
  f.vectors = eights ? 1 : 0;
  return f;
}

void multiply_mma(Context& context, const Product& p, DType weight_dtype, bool plain) {
  MmaParams m{};
  m.x = p.x;
  m.x_pitch = m.k = p.k;
  m.finish = p.finish;
  const int tile = plain ? 64 : 128;
  m.row_tiles = static_cast<int>((p.rows + tile - 1) / tile);
  int tiles = 0;
  for (int i = 0; i < p.parts; ++i) {
    m.weight[i] = p.weight[i];
    m.finish.part[i].first_tile = tiles;
    tiles += (m.finish.part[i].n + tile - 1) / tile;
  }
  m.only_if = plain ? p.beyond : nullptr;
  if (plain) return gemm_plain(context, p.dtype, weight_dtype, m, tiles);
  const bool int8 = p.kind == WeightKind::int8;
  if (int8) {
    const Int8Activations a = quantize_activations(context, *p.args, false);
    m.x = a.codes;
    m.x_pitch = a.pitch;
    m.row_scale = a.scale;
    m.groups = a.groups;
    m.x_float = p.x;
    m.threshold = static_cast<float>(p.args->parts[0].threshold);
    for (int i = 0; i < p.parts; ++i) m.scale[i] = p.args->parts[i].absmax.as<float>();
  }
  bool vectors = p.k % (int8 ? 16 : 8) == 0 && aligned16(m.x);
  for (int i = 0; i < p.parts; ++i) vectors = vectors && aligned16(p.weight[i]);
  m.vectors = vectors ? 1 : 0;
  gemm_mma(context, int8 ? DType::i8 : p.dtype, p.dtype, m, tiles);
}

/// One call when the parts lie side by side in memory, else one for each.
bool multiply_cublas(Context& context, const Product& p) {
  const Finish& f = p.finish;
  const int64_t element = size_of(p.dtype);
  bool joined = true;
  for (int i = 0; i < f.parts; ++i) {
    joined = joined && !f.part[i].bias &&
             p.weight[i] == static_cast<const char*>(p.weight[0]) + f.part[i].column * p.k * element;
  }
  const int calls = joined ? 1 : f.parts;
  for (int i = 0; i < calls; ++i) {
    const int64_t at = f.part[i].column * element;
    CublasProduct c{p.x,
                    p.weight[i],
                    f.part[i].bias,
                    f.residual ? static_cast<const char*>(f.residual) + at : nullptr,
                    static_cast<char*>(f.out) + at,
                    p.rows,
                    joined ? f.part[f.parts - 1].column + f.part[f.parts - 1].n : f.part[i].n,
                    p.k,
                    f.ldo,
                    p.dtype};
    if (!cublas_product(context, c)) {
      if (i == 0) return false;
      throw CommandError("linear: cuBLASLt takes the first part but not the next");
    }
  }
  return true;
}

// / Once more without rounding, only where rounding made weights infinite: which the device knows, and no host waits
// for.
void multiply_beyond(Context& context, Product p) {
  for (int i = 0; i < p.parts; ++i) p.weight[i] = p.args->parts[i].weight.data;
  multiply_mma(context, p, p.args->parts[0].weight.dtype, true);
}

/// The product itself by the kernel chosen, with as much of the finish as that fuses.
void multiply(Context& context, const LinearChoice& choice, Product p, DType weight_dtype) {
  const LinearKernel kernel = choice.kernel;
  const Finish whole = p.finish;
  const bool plain_end = whole.activation == ActivationKind::none && !whole.gated;
  // What computes again must find x and the residual, and gemm_plain does not gate.
  const bool apart = p.beyond && (whole.gated || whole.residual == whole.out);
  const bool fused = apart                                                         ? false
                     : kernel == LinearKernel::tma || kernel == LinearKernel::bnb4 ? fuses(whole.activation)
                     : kernel == LinearKernel::cublas                              ? plain_end
                                                                                   : !whole.gated;
  const int64_t width = whole.part[whole.parts - 1].column + whole.part[whole.parts - 1].n;
  if (!fused) {
    // In place unless out is narrower than the product or still holds the residual.
    const bool in_place = !whole.gated && whole.residual != whole.out;
    p.finish.out = in_place ? whole.out : context.workspace.take(p.rows * width * size_of(p.dtype));
    p.finish.ldo = width;
    p.finish.residual = nullptr;
    p.finish.gated = 0;
    p.finish.activation = ActivationKind::none;
  }
  if (kernel == LinearKernel::bnb4) {
    multiply_bnb4(context, p);
  } else if (kernel == LinearKernel::tma) {
    multiply_tma(context, p);
  } else if (kernel != LinearKernel::cublas || !multiply_cublas(context, p)) {
    const LinearKernel own = kernel == LinearKernel::cublas ? choice.otherwise : kernel;
    multiply_mma(context, p, weight_dtype, own == LinearKernel::plain);
  }
  if (p.beyond) multiply_beyond(context, p);
  if (!fused) finish_rows(context, p.dtype, p.finish.out, width, p.dtype, whole);
}

/// Dense weights in x's dtype, in the workspace.
void round_weights(Context& context, Product& p) {
  int* beyond = context.workspace.take_array<int>(1);
  check(cudaMemsetAsync(beyond, 0, sizeof(int), context.stream), "linear (round weight)");
  char* values = static_cast<char*>(context.workspace.take(width_of(*p.args) * p.k * size_of(p.dtype)));
  for (int i = 0; i < p.parts; ++i) {
    const LinearArgsItem& part = p.args->parts[i];
    p.weight[i] = values + p.finish.part[i].column * p.k * size_of(p.dtype);
    round_weight(context, part.weight.dtype, part.weight.data, p.dtype, const_cast<void*>(p.weight[i]), part.n * p.k,
                 beyond);
  }
  p.beyond = beyond;
}

/// All parts alike. `p.finish` may write another dtype's command: then x, out and residual are of p.dtype already.
void multiply_alike(Context& context, const LinearChoice& choice, Product p) {
  const LinearArgs& a = *p.args;
  for (int i = 0; i < p.parts; ++i) p.weight[i] = a.parts[i].weight.data;
  if (choice.rounded) {
    round_weights(context, p);
    return multiply(context, choice, p, p.dtype);
  }
  if (!choice.dequantized) return multiply(context, choice, p, a.parts[0].weight.dtype);
  char* values = static_cast<char*>(context.workspace.take(width_of(a) * p.k * size_of(p.dtype)));
  for (int i = 0; i < p.parts; ++i) {
    p.weight[i] = values + p.finish.part[i].column * p.k * size_of(p.dtype);
    dequantize_weight(context, a.parts[i], a.parts[i].n * p.k, p.dtype, const_cast<void*>(p.weight[i]));
  }
  p.kind = WeightKind::dense;
  multiply(context, choice, p, p.dtype);
}

/// Computes `a` (all parts alike) with its finish. Where the compute dtype is not x's, x is converted, and the product
/// converted back.
void run_alike(Context& context, const LinearChoice& choice, const LinearArgs& a) {
  if (choice.kernel == LinearKernel::none)
    throw CommandError("linear: the path asked for does not take these arguments (" + shape(a) + ")");
  Product p{static_cast<WeightKind>(a.parts[0].kind), a.x.dtype, a.x.data, a.rows, a.k,
            static_cast<int>(a.parts_count),          {},        nullptr,  &a,     {}};
  const DType compute = p.kind == WeightKind::bnb4 ? static_cast<DType>(a.parts[0].compute_dtype) : a.x.dtype;
  p.finish = finish_of(a, compute);
  if (!choice.converted) return multiply_alike(context, choice, p);
  const int64_t width = width_of(a);
  void* x = context.workspace.take(a.rows * a.k * size_of(compute));
  void* product = context.workspace.take(a.rows * width * size_of(compute));
  convert(context, a.x.dtype, a.x.data, compute, x, a.rows * a.k);
  const Finish whole = p.finish;
  p.dtype = compute;
  p.x = x;
  p.finish.out = product;
  p.finish.residual = nullptr;
  p.finish.ldo = width;
  p.finish.gated = 0;
  p.finish.activation = ActivationKind::none;
  multiply_alike(context, choice, p);
  finish_rows(context, compute, product, width, a.x.dtype, whole);
}

/// Parts that differ: each alone into its columns of a wide product, rows of one part gathered by its pitch afterwards.
void run_each(Context& context, LinearKernel wanted, const LinearArgs& a) {
  const LinearFacts facts = facts_of(a);
  const int64_t width = width_of(a), element = size_of(a.x.dtype);
  char* wide = static_cast<char*>(context.workspace.take(a.rows * width * element));
  int64_t column = 0;
  for (int i = 0; i < a.parts_count; ++i) {
    const int64_t n = a.parts[i].n;
    LinearArgs one = a;
    one.parts_count = 1;
    one.parts[0] = a.parts[i];
    one.gated = 0;
    one.activation = static_cast<int64_t>(ActivationKind::none);
    one.residual = {};
    one.out.data = context.workspace.take(a.rows * n * element);
    run_alike(context, choose_many_rows(part_alone(facts, i), machine_of(context), wanted), one);
    check(cudaMemcpy2DAsync(wide + column * element, width * element, one.out.data, n * element, n * element, a.rows,
                            cudaMemcpyDeviceToDevice, context.stream),
          "linear (parts)");
    column += n;
  }
  finish_rows(context, a.x.dtype, wide, width, a.x.dtype, finish_of(a, a.x.dtype));
}

LinearKernel kernel_of(GemmPath path) {
  switch (path) {
    case GemmPath::bnb4:
      return LinearKernel::bnb4;
    case GemmPath::tma:
      return LinearKernel::tma;
    case GemmPath::cublas:
      return LinearKernel::cublas;
    case GemmPath::mma:
      return LinearKernel::mma;
    case GemmPath::plain:
      return LinearKernel::plain;
    default:
      return LinearKernel::none;
  }
}

}  // namespace

void gemm(const LinearArgs& a, const LinearChoice& choice, Context& context) {
  if (choice.kernel == LinearKernel::many_parts) return run_each(context, LinearKernel::none, a);
  run_alike(context, choice, a);
}

void gemm_by(GemmPath path, const LinearArgs& a, Context& context) {
  if (a.rows == 0) return;
  const LinearFacts facts = facts_of(a);
  if (const char* refusal = many_rows_refusal(facts))
    throw CommandError(std::string("linear: ") + refusal + " (" + shape(a) + ")");
  const LinearKernel wanted = kernel_of(path);
  const LinearChoice choice = choose_many_rows(facts, machine_of(context), wanted);
  if (choice.kernel == LinearKernel::many_parts) return run_each(context, wanted, a);
  run_alike(context, choice, a);
}

}  // namespace q::cuda
