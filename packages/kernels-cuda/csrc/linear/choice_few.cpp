// The kernels for few rows: which suits, and how it is laid out.
#include "choice_rules.h"

namespace q::cuda {
namespace {

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
template <StreamWeight Kind, int Columns>
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
  if (f.part[0].weight == DType::f32) {
    if (fit_stream<StreamWeight::wide>(f.rows, 0, false, m).columns)
      return {LinearKernel::stream, "few rows of f32 weights, whose products are exact"};
  } else if (fit_stream<StreamWeight::dense>(f.rows, 0, false, m).columns) {
    return {LinearKernel::stream, "few rows of dense weights in x's dtype"};
  }
  return simple("too little shared memory");
}

LinearChoice choose_few4(const LinearFacts& f, const Machine& m) {
  LinearChoice c;
  if (fit_row4(c, f, false, m) || fit_batch4(c, f, m)) return c;
  if (fit_stream<StreamWeight::bnb4>(f.rows, nested_parts(f), false, m).columns)
    return {LinearKernel::stream, f.rows > kBatch4Most ? "over 16 rows of 4-bit weights"
                                                       : "4-bit weights whose k, blocks or absmax row4 does not take"};
  if (choose_slice4(f, static_cast<int>(std::min<int64_t>(8, f.rows)), m).kernel != LinearKernel::none)
    return {LinearKernel::slices4, "more rows of 4-bit weights than batch4 and stream find shared memory for"};
  return simple("too little shared memory");
}

LinearChoice choose_few8(const LinearFacts& f, const Machine& m) {
  LinearChoice c;
  if (fit_row8(c, f, false, m)) return c;
  if (fit_stream<StreamWeight::int8>(f.rows, 0, f.part[0].threshold > 0, m).columns)
    return {LinearKernel::stream, f.rows > kRow8Most ? "over 16 rows of int8" : "int8 weights that row8 does not take"};
  return simple("too little shared memory");
}

/// Whether the streaming kernels can compute this part with x of dtype `act`. (f32 as compute dtype rounds the code,
/// not the product, to 16 bits: finer than the output is rounded.)
bool fits_stream(const LinearPartFacts& p, DType act) {
  if (p.kind == WeightKind::dense) return p.weight == act || p.weight == DType::f32;
  if (p.kind != WeightKind::bnb4) return true;
  return (p.compute == act || p.compute == DType::f32) && p.block_size >= 64 &&
         (!p.nested || p.nested_block_size >= 64);
}

bool same_kind(const LinearPartFacts& a, const LinearPartFacts& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == WeightKind::bnb4) return a.quant_type == b.quant_type;
  if (a.kind == WeightKind::dense) return a.weight == b.weight;
  return a.kind != WeightKind::int8 || a.threshold == b.threshold;
}

}  // namespace

const char* mixture(const LinearFacts& f) {
  for (int i = 0; i < f.parts; ++i) {
    if (!same_kind(f.part[0], f.part[i])) return "parts that differ in kind, dtype, code book or threshold";
  }
  for (int i = 0; i < f.parts; ++i) {
    if (fits_stream(f.part[i], f.act)) continue;
    return f.part[i].kind == WeightKind::dense ? "weights in another 16-bit dtype than x"
                                               : "blocks under 64 values, or another compute dtype than x's";
  }
  return nullptr;
}

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

template <StreamWeight Kind>
StreamFit fit_stream(int64_t rows_left, int nested, bool outliers, const Machine& m) {
  const auto fit = [&](auto columns) {
    const int rows = static_cast<int>(std::min<int64_t>(rows_left, columns.value * 8));
    return stream_tiles<Kind, columns.value>(outliers ? rows : 0, nested, m);
  };
  if (Kind != StreamWeight::wide && rows_left > 16) {  // x of 32 rows in f32 takes more registers than there are
    if (const int tiles = fit(std::integral_constant<int, 4>{})) return {4, tiles};
  }
  if (rows_left > 8) {
    if (const int tiles = fit(std::integral_constant<int, 2>{})) return {2, tiles};
  }
  const int tiles = fit(std::integral_constant<int, 1>{});
  return {tiles ? 1 : 0, tiles};
}
template StreamFit fit_stream<StreamWeight::dense>(int64_t, int, bool, const Machine&);
template StreamFit fit_stream<StreamWeight::wide>(int64_t, int, bool, const Machine&);
template StreamFit fit_stream<StreamWeight::bnb4>(int64_t, int, bool, const Machine&);
template StreamFit fit_stream<StreamWeight::int8>(int64_t, int, bool, const Machine&);

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

LinearChoice choose_linear_with_norm(const LinearFacts& f, const NormFacts& n, const Machine& m) {
  const auto apart = [](const char* reason) { return LinearChoice{LinearKernel::none, reason}; };
  if (f.rows == 0 || outputs_of(f) == 0) return apart("no rows or no outputs");
  if (const char* refusal = few_rows_refusal(f, m)) return apart(refusal);
  if (f.rows > most_few_rows(f.part[0].kind) && !many_rows_refusal(f)) return apart("many rows");
  if (f.rows != n.rows || f.k != n.width) return apart("the product reads x in another shape");
  if (!n.same_dtype || !n.aligned) return apart("the norm's dtypes or alignment");
  if (n.overlaps) return apart("an output lies in the norm's input");
  LinearChoice c;
  if (f.part[0].kind == WeightKind::int8 && fit_row8(c, f, true, m)) return c;
  if (f.part[0].kind == WeightKind::bnb4 && fit_row4(c, f, true, m)) return c;
  return apart("only row4 and row8 compute a norm, of some widths");
}

}  // namespace q::cuda
