// The products for many rows.
#include "choice_rules.h"

namespace q::cuda {
namespace {

/// Most rows of 4-bit weights that are dequantized inside the product. One H200 (11008 x 4096, nf4): 256 rows 49 us
/// fused, 67 dequantized first; 384 rows 88 and 79.
constexpr int64_t kFusedRows = 256;
/// From more rows on, gating takes cuBLASLt a pass that costs more than its product saves (up to 1.2 times as fast as
/// gemm_tma while only a bias or a residual follows), same machine.
constexpr int64_t kGatedRows = 256;

int log2_exact(int64_t x) {
  for (int s = 0; s < 31; ++s) {
    if (x == int64_t{1} << s) return s;
  }
  return -1;
}

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
  if (p.weight != p.dtype) return {LinearKernel::plain, "16-bit weights and f32 activations"};
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
  if (p.weight != p.dtype && sixteen_bits(p.dtype) && wanted != LinearKernel::plain) {
    // As all else of a product is in x's dtype; on CUDA cores, without rounding, t5-11b's encoder takes 6 times as long
    // (H200, 8 x 512 tokens).
    p.weight = p.dtype;
    p.weights_aligned = true;  // in the workspace
    c = chosen ? choose_dense(f, p, m) : demand(wanted, f, p, m);
    if (c.kernel == LinearKernel::plain || c.kernel == LinearKernel::none) return {c.kernel, c.reason};
    if (chosen) c.reason = "weights in another dtype, rounded to x's for tensor cores";
    c.rounded = true;
    return c;
  }
  return chosen ? choose_dense(f, p, m) : demand(wanted, f, p, m);
}

}  // namespace

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

LinearChoice choose_many_rows(const LinearFacts& f, const Machine& m, LinearKernel wanted) {
  for (int i = 1; i < f.parts; ++i) {
    if (!alike(f.part[0], f.part[i])) return {LinearKernel::many_parts, "parts that no product takes together"};
  }
  return choose_product(f, m, wanted);
}

}  // namespace q::cuda
