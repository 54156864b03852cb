// The linear with many rows: which product serves, and the passes around it.
//   bnb4    up to kFusedRows rows on sm_90a (from the limit of the few-row kernel on, choice.h): gemm_bnb4 (dequantizes
//           inside the product). Else the weights are dequantized into the workspace (26 us for 11008 x 4096, then
//           mostly in L2) and multiplied as dense ones.
//   int8    gemm_tma on sm_90a, gemm_mma elsewhere
//   dense   f16, bf16: cuBLASLt; gemm_tma on sm_90a when gating follows or cuBLASLt is absent; else gemm_mma. f32:
//           cuBLASLt, or gemm_plain.
// A product that cannot fuse what follows (see each path) writes its sums with the bias, and finish_rows does the rest.
#include "gemm.h"
#include "cublaslt.h"
#include "gemm_mma.cuh"
#include "gemm_plan.h"
#include "gemm_quantize.cuh"

namespace q::cuda {
namespace {

// Measured on an H200 (11008 x 4096, nf4): 256 rows 49 us fused, 67 dequantized first; 384 rows 88 and 79.
constexpr int64_t kFusedRows = 256;

bool aligned(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }
int64_t width_of(const LinearArgs& a) {
  int64_t n = 0;
  for (int i = 0; i < a.parts_count; ++i) n += a.parts[i].n;
  return n;
}
int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }
bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

std::string shape(const LinearArgs& a) {
  return "rows " + std::to_string(a.rows) + ", k " + std::to_string(a.k) + ", n " + std::to_string(width_of(a)) +
         " in " + std::to_string(a.parts_count) + " parts";
}

void validate(const LinearArgs& a) {
  const auto refuse = [&](const std::string& why) { throw CommandError("linear: " + why + " (" + shape(a) + ")"); };
  if (!is_float(a.x.dtype) || a.out.dtype != a.x.dtype) refuse("x and out must have one float dtype");
  if (a.parts_count < 1 || a.k < 1) refuse("needs at least one part and k >= 1");
  if (a.gated && (a.parts_count != 2 || a.parts[0].n != a.parts[1].n)) refuse("gated needs two parts of equal n");
  if (a.rows > INT32_MAX / 2 || width_of(a) > INT32_MAX / 2) refuse("more rows or outputs than a launch can index");
  for (int i = 0; i < a.parts_count; ++i) {
    const LinearArgsItem& part = a.parts[i];
    const auto kind = static_cast<WeightKind>(part.kind);
    if (kind == WeightKind::dense ? !is_float(part.weight.dtype) : kind != WeightKind::bnb4 && kind != WeightKind::int8)
      refuse("part " + std::to_string(i) + " has no known weight kind or dtype");
    if (kind != WeightKind::dense && !part.absmax) refuse("part " + std::to_string(i) + " has no absmax");
    if (kind == WeightKind::bnb4 && (part.block_size < 1 || !is_float(static_cast<DType>(part.compute_dtype))))
      refuse("part " + std::to_string(i) + " has no block size or compute dtype");
    if (kind == WeightKind::bnb4 && part.nested_absmax &&
        (!part.nested_code || !part.offset || part.nested_block_size < 1))
      refuse("part " + std::to_string(i) + " is nested but lacks code, offset or block size");
  }
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
  bool eights = aligned(f.out) && aligned(f.residual);
  for (int i = 0; i < f.parts; ++i) {
    const LinearArgsItem& part = a.parts[i];
    f.part[i] = {static_cast<int>(part.n), static_cast<int>(column), 0, part.bias.data, part.bias.dtype};
    eights = eights && part.n % 8 == 0 && aligned(part.bias.data) && (!part.bias || part.bias.dtype == dtype);
    column += part.n;
  }
  f.vectors = eights ? 1 : 0;
  return f;
}

/// What one product can take together: the same kind, dtypes and quantization settings.
bool alike(const LinearArgsItem& a, const LinearArgsItem& b) {
  if (a.kind != b.kind) return false;
  switch (static_cast<WeightKind>(a.kind)) {
    case WeightKind::dense:
      return a.weight.dtype == b.weight.dtype;
    case WeightKind::int8:
      return a.threshold == b.threshold;
    default:
      return a.block_size == b.block_size && a.nested_block_size == b.nested_block_size &&
             a.quant_type == b.quant_type && a.compute_dtype == b.compute_dtype;
  }
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
  bool vectors = p.k % (int8 ? 16 : 8) == 0 && aligned(m.x);
  for (int i = 0; i < p.parts; ++i) vectors = vectors && aligned(p.weight[i]);
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

bool biases_match(const Product& p) {
  for (int i = 0; i < p.parts; ++i) {
    if (p.finish.part[i].bias && p.finish.part[i].bias_dtype != p.dtype) return false;
  }
  return true;
}

/// The product itself by `path`, with as much of the finish as the path fuses.
void multiply(Context& context, GemmPath path, Product p, DType weight_dtype) {
  const Finish whole = p.finish;
  const bool plain_end = whole.activation == ActivationKind::none && !whole.gated;
  const bool fused = path == GemmPath::tma || path == GemmPath::bnb4 ? fuses(whole.activation)
                     : path == GemmPath::cublas                      ? plain_end
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
  if (path == GemmPath::bnb4) {
    multiply_bnb4(context, p);
  } else if (path == GemmPath::tma) {
    multiply_tma(context, p);
  } else if (path != GemmPath::cublas || !multiply_cublas(context, p)) {
    const bool no_bf16 = p.dtype == DType::bf16 && context.compute_capability < 80;
    multiply_mma(context, p, weight_dtype,
                 p.kind != WeightKind::int8 &&
                     (path == GemmPath::plain || weight_dtype != p.dtype || p.dtype == DType::f32 || no_bf16));
  }
  if (!fused) finish_rows(context, p.dtype, p.finish.out, width, p.dtype, whole);
}

/// Dense weights, given or dequantized. On an H200 cuBLASLt is up to 1.2 times as fast as gemm_tma while only a bias or
/// a residual follows; gating takes it a further pass, which costs more than that above some 256 rows.
GemmPath dense_path(const Context& context, const Product& p, DType weight_dtype) {
  if (weight_dtype != p.dtype) return GemmPath::plain;
  Product bare = p;  // an activation that is not fused becomes a pass of its own
  if (!fuses(p.finish.activation)) bare.finish.activation = ActivationKind::none;
  const bool hopper = hopper_takes(bare, context), library = context.cublaslt && biases_match(p);
  const bool more_follows =
      (p.finish.gated || p.finish.activation != ActivationKind::none) && fuses(p.finish.activation);
  if (hopper && (!library || (more_follows && p.rows > 256))) return GemmPath::tma;
  if (library) return GemmPath::cublas;
  return p.dtype == DType::f32 ? GemmPath::plain : GemmPath::mma;
}

/// All parts alike. `p.finish` may write another dtype's command: then x, out and residual are of p.dtype already.
void multiply_alike(Context& context, GemmPath wanted, Product p) {
  const LinearArgs& a = *p.args;
  for (int i = 0; i < p.parts; ++i) p.weight[i] = a.parts[i].weight.data;
  Product bare = p;
  if (!fuses(p.finish.activation)) bare.finish.activation = ActivationKind::none;
  const auto use = [&](GemmPath path, bool possible) {
    if (wanted == path && !possible)
      throw CommandError("linear: the path asked for does not take these arguments (" + shape(a) + ")");
    return wanted == path || (wanted == GemmPath::automatic && possible);
  };
  if (p.kind == WeightKind::int8) {
    if (use(GemmPath::tma, hopper_takes(bare, context))) return multiply(context, GemmPath::tma, p, DType::i8);
    return multiply(context, GemmPath::mma, p, DType::i8);
  }
  DType weight_dtype = a.parts[0].weight.dtype;
  if (p.kind == WeightKind::bnb4) {
    const bool fused = bnb4_takes(bare, context);
    if ((wanted == GemmPath::bnb4 || (wanted == GemmPath::automatic && p.rows <= kFusedRows)) &&
        use(GemmPath::bnb4, fused))
      return multiply(context, GemmPath::bnb4, p, DType::u8);
    weight_dtype = p.dtype;
    char* values = static_cast<char*>(context.workspace.take(width_of(a) * p.k * size_of(p.dtype)));
    for (int i = 0; i < p.parts; ++i) {
      p.weight[i] = values + p.finish.part[i].column * p.k * size_of(p.dtype);
      dequantize_weight(context, a.parts[i], a.parts[i].n * p.k, p.dtype, const_cast<void*>(p.weight[i]));
    }
    p.kind = bare.kind = WeightKind::dense;
    for (int i = 0; i < p.parts; ++i) bare.weight[i] = p.weight[i];
  }
  const GemmPath path = wanted == GemmPath::automatic ? dense_path(context, p, weight_dtype) : wanted;
  if (path == GemmPath::tma) use(path, weight_dtype == p.dtype && hopper_takes(bare, context));
  if (path == GemmPath::cublas) use(path, context.cublaslt && weight_dtype == p.dtype && biases_match(p));
  if (path == GemmPath::bnb4) use(path, false);
  multiply(context, path, p, weight_dtype);
}

/// Computes `a` (all parts alike) with its finish. Where the compute dtype is not x's, x is converted, and the product
/// converted back.
void run_alike(Context& context, GemmPath path, const LinearArgs& a) {
  Product p{static_cast<WeightKind>(a.parts[0].kind), a.x.dtype, a.x.data, a.rows, a.k,
            static_cast<int>(a.parts_count),          {},        &a,       {}};
  const DType compute = p.kind == WeightKind::bnb4 ? static_cast<DType>(a.parts[0].compute_dtype) : a.x.dtype;
  p.finish = finish_of(a, compute);
  if (compute == a.x.dtype) return multiply_alike(context, path, p);
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
  multiply_alike(context, path, p);
  finish_rows(context, compute, product, width, a.x.dtype, whole);
}

}  // namespace

bool gemm_supports(const LinearArgs& args, const Context&) {
  try {
    validate(args);
    return true;
  } catch (const CommandError&) {
    return false;
  }
}

void gemm_by(GemmPath path, const LinearArgs& a, Context& context) {
  if (a.rows == 0) return;
  validate(a);
  bool same = true;
  for (int i = 1; i < a.parts_count; ++i) same = same && alike(a.parts[0], a.parts[i]);
  if (same) return run_alike(context, path, a);
  // Parts of different kinds: each alone into its columns of a wide product, rows of one part gathered by its pitch
  // afterwards.
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
    run_alike(context, path, one);
    check(cudaMemcpy2DAsync(wide + column * element, width * element, one.out.data, n * element, n * element, a.rows,
                            cudaMemcpyDeviceToDevice, context.stream),
          "linear (parts)");
    column += n;
  }
  finish_rows(context, a.x.dtype, wide, width, a.x.dtype, finish_of(a, a.x.dtype));
}

void gemm(const LinearArgs& args, Context& context) { gemm_by(GemmPath::automatic, args, context); }

}  // namespace q::cuda
