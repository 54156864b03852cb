#include "choice.h"

namespace q::cuda {
namespace {

/// Most rows of x that the kernels for few rows take before those for many. One H200, driver 580.159, 2026-11-21, 11008
/// x 4096 (linear_bench.cu): at 32 rows stream takes 31.9 us dense (cuBLAS 25.6), 21.4 us nf4 (the many-row product
/// 20.6, at 17 rows 20.5 beside 18.7), 36 us int8; a second launch for rows over 32 doubles that.
constexpr int64_t few_rows(WeightKind kind) { return kind == WeightKind::bnb4 ? 32 : 16; }

/// Most rows of 4-bit weights that are dequantized inside the product. One H200 (11008 x 4096, nf4): 256 rows 49 us
/// fused, 67 dequantized first; 384 rows 88 and 79.
constexpr int64_t kFusedRows = 256;
/// From more rows on, gating takes cuBLASLt a pass that costs more than its product saves (up to 1.2 times as fast as
/// gemm_tma while only a bias or a residual follows), same machine.
constexpr int64_t kGatedRows = 256;

bool sixteen_bits(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }

int log2_exact(int64_t x) {
  for (int s = 0; s < 31; ++s) {
    if (x == int64_t{1} << s) return s;
  }
  return -1;
}

int64_t outputs_of(const LinearFacts& f) {
  int64_t n = 0;
  for (int i = 0; i < f.parts; ++i) n += f.part[i].n;
  return n;
}

WeightRows rows_of_weight(const LinearFacts& f) {
  WeightRows w{f.k, f.parts, f.gated, {}};
  for (int i = 0; i < f.parts; ++i) w.n[i] = static_cast<int>(f.part[i].n);
  return w;
}

int nested_parts(const LinearFacts& f) {
  for (int i = 0; i < f.parts; ++i) {
    if (f.part[i].nested) return f.parts;
  }
  return 0;
}

// ---- few rows

/// Whether the streaming kernels can compute this part with x of dtype `act`. (f32 as compute dtype rounds the code,
/// not the product, to 16 bits: finer than the output is rounded.)
bool fits_stream(const LinearPartFacts& p, DType act) {
  if (p.kind == WeightKind::dense) return p.weight == act;
  if (p.kind != WeightKind::bnb4) return true;
  return (p.compute == act || p.compute == DType::f32) && p.block_size >= 64 &&
         (!p.nested || p.nested_block_size >= 64);
}

bool same_kind(const LinearPartFacts& a, const LinearPartFacts& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == WeightKind::bnb4) return a.quant_type == b.quant_type;
  return a.kind != WeightKind::int8 || a.threshold == b.threshold;
}

/// Why the parts cannot go through one kernel for few rows; null: they can.
const char* mixture(const LinearFacts& f) {
  for (int i = 0; i < f.parts; ++i) {
    if (!same_kind(f.part[0], f.part[i])) return "parts that differ in kind, code book or threshold";
  }
  for (int i = 0; i < f.parts; ++i) {
    if (fits_stream(f.part[i], f.act)) continue;
    return f.part[i].kind == WeightKind::dense ? "weights in another dtype than x"
                                               : "blocks under 64 values, or another compute dtype than x's";
  }
  return nullptr;
}

/// Why no kernel for few rows but `simple` takes these; null: one may.
const char* few_rows_refusal(const LinearFacts& f, const Machine& m) {
  if (m.compute_capability < 80) return "compute capability below 8.0";
  if (!sixteen_bits(f.act)) return "activations of 32 bits";
  if (const char* mixed = mixture(f)) return mixed;
  if (!f.x_aligned) return "x is not aligned to 16 bytes";
  for (int i = 0; i < f.parts; ++i) {
    if (!f.part[i].aligned) return "a weight is not aligned to 16 bytes";
  }
  return f.k % 64 == 0 && f.k > 0 ? nullptr : "k is not a multiple of 64";
}

bool suits4(const LinearFacts& f) {
  bool ok = f.k % 128 == 0 && f.k >= 512;
  for (int i = 0; i < f.parts; ++i) {
    const LinearPartFacts& p = f.part[i];
    ok = ok && p.n > 0 && f.k / 64 * (p.n + 256) < INT_MAX && p.block_size == 64 && p.nested == f.part[0].nested &&
         p.absmax_aligned;
  }
  return ok;
}

template <int Warps>
RowCut cut4(const LinearFacts& f, int chunk_steps, int most_shares, int share_bytes) {
  using Ring = TableRingShape<Warps>;
  return {Warps,        Ring::kStepValues,
          chunk_steps,  most_shares,
          Ring::kBytes, 0,
          share_bytes,  f.part[0].nested ? f.parts * kNestedTableBytes : 0,
          INT_MAX};
}

bool fit_row4(LinearChoice& c, const LinearFacts& f, bool normed, const Machine& m) {
  c = {LinearKernel::row4, "one row, blocks of 64 values"};
  if (f.rows != 1 || !suits4(f) ||
      !lay_out(c.row, rows_of_weight(f), cut4<kRowWarps>(f, kChunkSteps, kMostShares, kRowSumsBytes), m))
    return false;
  // a warp must hold its part of x at once, and for good
  return !normed || (f.k == (kChunkSteps * 128) << c.row.plan.split_shift && c.row.plan.groups <= c.row.blocks);
}

template <int Columns>
bool fit_columns4(LinearChoice& c, const LinearFacts& f, const Machine& m) {
  using Shape = BatchShape<Columns>;
  c = {LinearKernel::batch4, "up to 16 rows, blocks of 64 values"};
  c.columns = Columns;
  const RowCut cut = cut4<Shape::kWarps>(f, Shape::kChunkSteps, Shape::kMostShares, Shape::kSumsBytes);
  return suits4(f) && lay_out(c.row, rows_of_weight(f), cut, m);
}

bool fit_batch4(LinearChoice& c, const LinearFacts& f, const Machine& m) {
  if (f.rows > kBatch4Most) return false;
  return f.rows <= 8 ? fit_columns4<1>(c, f, m) : fit_columns4<2>(c, f, m);
}

template <int Columns, bool Own, int Stages>
bool fit_stages8(LinearChoice& c, const LinearFacts& f, bool normed, const Machine& m) {
  using Shape = Row8Shape<Columns, Own>;
  using Ring = PlainRingShape<Stages>;
  constexpr int kLeastSteps = 2;  // of a warp
  c = {LinearKernel::row8, Own ? "one row of int8, quantized by each block" : "up to 16 rows of int8"};
  c.columns = Columns;
  c.stages = Stages;
  c.own = Own;
  const RowCut cut{Shape::kWarps,
                   Ring::kStepValues,
                   kLeastSteps,
                   Shape::kWarps,
                   Ring::kWarpBytes * Shape::kWarps,
                   Shape::kTileBytes,
                   0,
                   row8_table_bytes<Own>(f.k, normed, f.part[0].threshold > 0),
                   Shape::kMostTiles};
  if (!lay_out(c.row, rows_of_weight(f), cut, m)) return false;
  // x waits behind copies that have started: where there is much to copy, that costs less than to start late
  RowPlan& plan = c.row.plan;
  const int steps = (plan.tiles * plan.steps << plan.split_shift) / Shape::kWarps;  // of a warp
  plan.early = std::min(steps < (Own ? 16 : 32) ? 3 : Own ? 7 : 5, Stages - 1);
  return true;
}

/// A shorter ring is for long rows, and for devices with little shared memory.
bool fit_row8(LinearChoice& c, const LinearFacts& f, bool normed, const Machine& m) {
  bool suits = f.rows <= kRow8Most && f.k % 64 == 0 && f.k >= 256 && m.counters &&
               (!normed || f.k <= Row8Rows<false>::kMostNormed);
  for (int i = 0; i < f.parts; ++i) suits = suits && f.part[i].n > 0;
  if (!suits) return false;
  // a very long row does not fit into little shared memory
  if (f.rows == 1 && (fit_stages8<1, true, 8>(c, f, normed, m) || fit_stages8<1, true, 6>(c, f, normed, m) ||
                      fit_stages8<1, true, 4>(c, f, normed, m)))
    return true;
  if (f.rows <= 8) return fit_stages8<1, false, 8>(c, f, normed, m) || fit_stages8<1, false, 4>(c, f, normed, m);
  return fit_stages8<2, false, 8>(c, f, normed, m) || fit_stages8<2, false, 4>(c, f, normed, m);
}

/// Most tiles of a group whose shared memory there is.
template <WeightKind Kind, int Columns>
int stream_tiles(int outlier_rows, int nested, const Machine& m) {
  using S = StreamShape<Kind, Columns>;
  // 113 KiB: half of what a multiprocessor of sm_90 has. Where there is less, blocks simply run one after the other.
  const int64_t limit = S::kBlocksPerMultiprocessor == 2 ? std::min<int64_t>(m.shared_bytes_per_block, 113 * 1024)
                                                         : m.shared_bytes_per_block;
  int tiles = S::kSumsInGaps ? 4 : kMostTiles;
  while (tiles > 0 && StreamLayout<S>(tiles, outlier_rows, nested).total > limit) --tiles;
  return tiles;
}

LinearChoice simple(const char* passed) {
  return {LinearKernel::simple, "takes every shape, dtype and alignment", passed};
}

LinearChoice choose_few_dense(const LinearFacts& f, const Machine& m) {
  if (fit_stream<WeightKind::dense>(f.rows, 0, false, m).columns)
    return {LinearKernel::stream, "few rows of dense weights in x's dtype"};
  return simple("too little shared memory");
}

LinearChoice choose_few4(const LinearFacts& f, const Machine& m) {
  LinearChoice c;
  if (fit_row4(c, f, false, m) || fit_batch4(c, f, m)) return c;
  if (fit_stream<WeightKind::bnb4>(f.rows, nested_parts(f), false, m).columns)
    return {LinearKernel::stream, f.rows > kBatch4Most ? "over 16 rows of 4-bit weights"
                                                       : "4-bit weights whose k, blocks or absmax row4 does not take"};
  if (choose_slice4(f, static_cast<int>(std::min<int64_t>(8, f.rows)), m).kernel != LinearKernel::none)
    return {LinearKernel::slices4, "more rows of 4-bit weights than batch4 and stream find shared memory for"};
  return simple("too little shared memory");
}

LinearChoice choose_few8(const LinearFacts& f, const Machine& m) {
  LinearChoice c;
  if (fit_row8(c, f, false, m)) return c;
  if (fit_stream<WeightKind::int8>(f.rows, 0, f.part[0].threshold > 0, m).columns)
    return {LinearKernel::stream, f.rows > kRow8Most ? "over 16 rows of int8" : "int8 weights that row8 does not take"};
  return simple("too little shared memory");
}

// ---- many rows

/// What one product can take together: the same kind, dtypes and quantization settings.
bool alike(const LinearPartFacts& a, const LinearPartFacts& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == WeightKind::dense) return a.weight == b.weight;
  if (a.kind == WeightKind::int8) return a.threshold == b.threshold;
  return a.block_size == b.block_size && a.nested_block_size == b.nested_block_size && a.quant_type == b.quant_type &&
         a.compute == b.compute;
}

/// A product of parts that are alike, in the dtype it is computed in.
struct Product {
  DType dtype, weight;
  bool int8, x_aligned, weights_aligned, biases_match;
  ActivationKind activation;
  bool gated;
};

/// Tensor maps read rows of 16 bytes.
bool tma_takes(const Product& p, int64_t k, const Machine& m) {
  return m.wgmma && sixteen_bits(p.dtype) && k % (p.int8 ? 16 : 8) == 0 && (p.int8 || p.x_aligned) && p.weights_aligned;
}

bool bnb4_takes(const LinearFacts& f, const Product& p, const Machine& m) {
  const LinearPartFacts& first = f.part[0];
  if (!m.wgmma || !sixteen_bits(p.dtype) || f.k % 64 != 0 || !p.x_aligned || !p.weights_aligned) return false;
  if (first.block_size % 64 != 0 || f.k % first.block_size != 0 || log2_exact(first.block_size) < 0) return false;
  if (first.nested_block_size > 0 && log2_exact(first.nested_block_size) < 0) return false;
  for (int i = 0; i < f.parts; ++i) {
    if (f.part[i].n * (f.k / first.block_size) > INT32_MAX) return false;
  }
  return true;
}

/// The products that run everywhere.
LinearKernel mma_or_plain(const Product& p, const Machine& m) {
  const bool no_bf16 = p.dtype == DType::bf16 && m.compute_capability < 80;
  return !p.int8 && (p.weight != p.dtype || p.dtype == DType::f32 || no_bf16) ? LinearKernel::plain : LinearKernel::mma;
}

LinearChoice choose_dense(const LinearFacts& f, const Product& p, const Machine& m) {
  if (p.weight != p.dtype) return {LinearKernel::plain, "weights in another dtype than x"};
  const bool tma = tma_takes(p, f.k, m), library = m.cublaslt && p.biases_match;
  const bool more_follows = (p.gated || p.activation != ActivationKind::none) && fuses(p.activation);
  if (tma && !library) return {LinearKernel::tma, m.cublaslt ? "biases in another dtype" : "cuBLASLt is not there"};
  if (tma && more_follows && f.rows > kGatedRows) return {LinearKernel::tma, "gate or activation in the same pass"};
  if (library) {
    LinearChoice c{LinearKernel::cublas, "dense weights in x's dtype"};
    c.otherwise = mma_or_plain(p, m);
    return c;
  }
  const LinearKernel kernel = mma_or_plain(p, m);
  return {kernel,
          kernel == LinearKernel::mma ? "no cuBLASLt for it, no tensor maps" : "no tensor cores for this dtype"};
}

/// What a test or bench asked for, or `none` where it cannot be.
LinearChoice demand(LinearKernel wanted, const LinearFacts& f, const Product& p, const Machine& m) {
  constexpr const char* kReason = "asked for";
  switch (wanted) {
    case LinearKernel::tma:
      return {p.weight == p.dtype && tma_takes(p, f.k, m) ? wanted : LinearKernel::none, kReason};
    case LinearKernel::cublas: {
      LinearChoice c{m.cublaslt && p.weight == p.dtype && p.biases_match ? wanted : LinearKernel::none, kReason};
      c.otherwise = mma_or_plain(p, m);
      return c;
    }
    case LinearKernel::mma:
      return {mma_or_plain(p, m), kReason};
    case LinearKernel::plain:
      return {wanted, kReason};
    default:
      return {LinearKernel::none, kReason};
  }
}

Product product_of(const LinearFacts& f, bool converted) {
  Product p{};
  const LinearPartFacts& first = f.part[0];
  p.dtype = first.kind == WeightKind::bnb4 ? first.compute : f.act;
  p.weight = first.weight;
  p.int8 = first.kind == WeightKind::int8;
  p.x_aligned = converted || f.x_aligned;
  p.weights_aligned = p.biases_match = true;
  p.activation = converted ? ActivationKind::none : f.activation;
  p.gated = !converted && f.gated;
  for (int i = 0; i < f.parts; ++i) {
    p.weights_aligned = p.weights_aligned && f.part[i].aligned;
    p.biases_match = p.biases_match && (!f.part[i].biased || f.part[i].bias == p.dtype);
  }
  return p;
}

/// All parts alike.
LinearChoice choose_product(const LinearFacts& f, const Machine& m, LinearKernel wanted) {
  const bool chosen = wanted == LinearKernel::none;
  LinearChoice c;
  const bool converted = f.part[0].kind == WeightKind::bnb4 && f.part[0].compute != f.act;
  Product p = product_of(f, converted);
  if (p.int8) {
    const bool tma = tma_takes(p, f.k, m);
    if (wanted == LinearKernel::tma && !tma) return {LinearKernel::none, "asked for"};
    if (tma && (chosen || wanted == LinearKernel::tma)) return {LinearKernel::tma, "int8 weights on sm_90a"};
    return {LinearKernel::mma, "int8 weights"};
  }
  if (f.part[0].kind == WeightKind::bnb4) {
    const bool takes = bnb4_takes(f, p, m);
    if (takes && (wanted == LinearKernel::bnb4 || (chosen && f.rows <= kFusedRows))) {
      c = {LinearKernel::bnb4, "up to 256 rows of 4-bit weights on sm_90a"};
      c.converted = converted;
      return c;
    }
    if (wanted == LinearKernel::bnb4) return {LinearKernel::none, "asked for"};
    p.weight = p.dtype;  // dequantized into the workspace, where a row that tensor maps can read is aligned
    p.weights_aligned = true;
    c = chosen ? choose_dense(f, p, m) : demand(wanted, f, p, m);
    c.dequantized = true;
    c.converted = converted;
    return c;
  }
  return chosen ? choose_dense(f, p, m) : demand(wanted, f, p, m);
}

}  // namespace

LinearFacts facts_of(const LinearArgs& a) {
  LinearFacts f{};
  f.act = a.x.dtype;
  f.rows = a.rows;
  f.k = a.k;
  f.x_aligned = aligned16(a.x.data);
  f.gated = a.gated != 0;
  f.activation = static_cast<ActivationKind>(a.activation);
  f.parts = static_cast<int>(a.parts_count);
  for (int i = 0; i < f.parts; ++i) {
    const LinearArgsItem& s = a.parts[i];
    LinearPartFacts& p = f.part[i];
    p.kind = static_cast<WeightKind>(s.kind);
    p.n = s.n;
    p.weight = s.weight.dtype;
    p.bias = s.bias.dtype;
    p.compute = static_cast<DType>(s.compute_dtype);
    p.quant_type = static_cast<QuantType>(s.quant_type);
    p.block_size = s.block_size;
    p.nested_block_size = s.nested_block_size;
    p.threshold = static_cast<float>(s.threshold);
    p.biased = static_cast<bool>(s.bias);
    p.nested = static_cast<bool>(s.nested_absmax);
    p.aligned = aligned16(s.weight.data);
    p.absmax_aligned =
        p.nested ? aligned_to(s.absmax.data, 2) && aligned16(s.nested_code.data) : aligned_to(s.absmax.data, 8);
  }
  return f;
}

NormFacts facts_of(const RmsNormArgs& n, const LinearArgs& a) {
  const auto overlap = [](const Tensor& a, const Tensor& b) {
    return a.as<const uint8_t>() < b.as<const uint8_t>() + b.bytes &&
           b.as<const uint8_t>() < a.as<const uint8_t>() + a.bytes;
  };
  return {n.rows, n.width, n.x.dtype == a.x.dtype && n.out.dtype == a.x.dtype && n.weight.dtype == a.x.dtype,
          aligned16(n.x.data) && aligned16(n.out.data) && aligned16(n.weight.data),
          overlap(n.out, n.x) || overlap(a.out, n.x)};
}

LinearFacts part_alone(const LinearFacts& facts, int part) {
  LinearFacts f = facts;
  f.parts = 1;
  f.part[0] = facts.part[part];
  f.gated = false;
  f.activation = ActivationKind::none;
  return f;
}

const char* many_rows_refusal(const LinearFacts& f) {
  if (f.parts < 1 || f.k < 1) return "needs at least one part and k >= 1";
  if (f.gated && (f.parts != 2 || f.part[0].n != f.part[1].n)) return "gated needs two parts of equal n";
  if (f.rows > INT32_MAX / 2 || outputs_of(f) > INT32_MAX / 2) return "more rows or outputs than a launch can index";
  return nullptr;
}

template <WeightKind Kind>
StreamFit fit_stream(int64_t rows_left, int nested, bool outliers, const Machine& m) {
  const auto fit = [&](auto columns) {
    const int rows = static_cast<int>(std::min<int64_t>(rows_left, columns.value * 8));
    return stream_tiles<Kind, columns.value>(outliers ? rows : 0, nested, m);
  };
  if (rows_left > 16) {
    if (const int tiles = fit(std::integral_constant<int, 4>{})) return {4, tiles};
  }
  if (rows_left > 8) {
    if (const int tiles = fit(std::integral_constant<int, 2>{})) return {2, tiles};
  }
  const int tiles = fit(std::integral_constant<int, 1>{});
  return {tiles ? 1 : 0, tiles};
}
template StreamFit fit_stream<WeightKind::dense>(int64_t, int, bool, const Machine&);
template StreamFit fit_stream<WeightKind::bnb4>(int64_t, int, bool, const Machine&);
template StreamFit fit_stream<WeightKind::int8>(int64_t, int, bool, const Machine&);

LinearChoice choose_slice4(const LinearFacts& facts, int rows, const Machine& m) {
  LinearFacts f = facts;
  f.rows = rows;
  LinearChoice c;
  if (fit_row4(c, f, false, m) || fit_batch4(c, f, m)) return c;
  return {LinearKernel::none, "row4 and batch4 do not take it"};
}

LinearChoice choose_few_rows(const LinearFacts& f, const Machine& m) {
  if (const char* refusal = few_rows_refusal(f, m)) return simple(refusal);
  switch (f.part[0].kind) {
    case WeightKind::dense:
      return choose_few_dense(f, m);
    case WeightKind::bnb4:
      return choose_few4(f, m);
    default:
      return choose_few8(f, m);
  }
}

LinearChoice choose_many_rows(const LinearFacts& f, const Machine& m, LinearKernel wanted) {
  for (int i = 1; i < f.parts; ++i) {
    if (!alike(f.part[0], f.part[i])) return {LinearKernel::many_parts, "parts that no product takes together"};
  }
  return choose_product(f, m, wanted);
}

LinearChoice choose_linear(const LinearFacts& f, const Machine& m) {
  if (f.rows == 0 || outputs_of(f) == 0) return {LinearKernel::none, "no rows or no outputs"};
  const char* refusal = few_rows_refusal(f, m);
  const bool few = !refusal && f.rows <= few_rows(f.part[0].kind);
  if (!few && !many_rows_refusal(f)) {
    LinearChoice c = choose_many_rows(f, m);
    c.passed = refusal ? refusal : "more rows than the kernels for few take";
    return c;
  }
  if (mixture(f) && !f.gated && f.parts > 1)
    return {LinearKernel::parts, "parts that differ, and more outputs than a product of many rows can index"};
  return choose_few_rows(f, m);
}

LinearChoice choose_linear_with_norm(const LinearFacts& f, const NormFacts& n, const Machine& m) {
  const auto apart = [](const char* reason) { return LinearChoice{LinearKernel::none, reason}; };
  if (f.rows == 0 || outputs_of(f) == 0) return apart("no rows or no outputs");
  if (const char* refusal = few_rows_refusal(f, m)) return apart(refusal);
  if (f.rows > few_rows(f.part[0].kind) && !many_rows_refusal(f)) return apart("many rows");
  if (f.rows != n.rows || f.k != n.width) return apart("the product reads x in another shape");
  if (!n.same_dtype || !n.aligned) return apart("the norm's dtypes or alignment");
  if (n.overlaps) return apart("an output lies in the norm's input");
  LinearChoice c;
  if (f.part[0].kind == WeightKind::int8 && fit_row8(c, f, true, m)) return c;
  if (f.part[0].kind == WeightKind::bnb4 && fit_row4(c, f, true, m)) return c;
  return apart("only row4 and row8 compute a norm, of some widths");
}

}  // namespace q::cuda
