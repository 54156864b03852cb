// Which kernel computes a linear: a function of shape, weights, dtypes, alignment and machine, tested without a device
// (src/choice.test.ts). Launchers launch what it says. The kernels, by what they are for:
//   few rows   row4 (one row), batch4 (2 to 16), row8 (int8, 1 to 16), stream (1 to 32 a launch), slices4 (8 rows after
//              another by row4 and batch4, where stream's shared memory is not there)
//   many rows  bnb4, tma (sm_90a), cublas, mma, plain; many_parts: parts that differ, each by one of these
//   any        simple; parts: parts that differ and are too wide for those, each by a kernel for few rows
#pragma once
#include "row_layout.h"
#include "stream_shape.h"

namespace q::cuda {

enum class LinearKernel : int {
  none,  // there is nothing to compute
  row4,
  batch4,
  row8,
  stream,
  slices4,
  simple,
  parts,
  bnb4,
  tma,
  cublas,
  mma,
  plain,
  many_parts,
};
constexpr const char* kLinearKernelNames[] = {"none",  "row4", "batch4", "row8",   "stream", "slices4", "simple",
                                              "parts", "bnb4", "tma",    "cublas", "mma",    "plain",   "many_parts"};

/// A weight of a linear as far as a choice depends on it.
struct LinearPartFacts {
  WeightKind kind;
  int64_t n;
  DType weight;          // dense
  DType bias;            // where it is biased
  DType compute;         // bnb4
  QuantType quant_type;  // bnb4
  int64_t block_size, nested_block_size;
  float threshold;  // int8
  bool biased, nested;
  bool aligned;         // the weight, to 16 bytes
  bool absmax_aligned;  // to the pieces in which row4 and batch4 copy it: 8 bytes; nested: 2, and its code table 16
};

struct LinearFacts {
  DType act;
  int64_t rows, k;
  bool x_aligned;  // to 16 bytes
  bool gated;
  ActivationKind activation;
  int parts;
  LinearPartFacts part[kMaxRepeat];
};
LinearFacts facts_of(const LinearArgs& args);

/// A norm of x that could be computed with the product. Blocks read its input while others write, so that neither
/// output may lie in it.
struct NormFacts {
  int64_t rows, width;
  bool same_dtype;  // input, output and weight are in the product's act
  bool aligned;     // these three, to 16 bytes
  bool overlaps;    // its output or the product's lies in its input
};
NormFacts facts_of(const RmsNormArgs& norm, const LinearArgs& args);

struct LinearChoice {
  LinearKernel kernel;
  const char* reason;
  const char* passed = nullptr;  // many rows, simple: why no kernel for few rows
  // row4, batch4, row8: how W is laid out over the device, and the instance
  RowLaunch row = {};
  int columns = 1;   // of 8 rows of x
  int stages = 0;    // row8: of the ring
  bool own = false;  // row8: each block quantizes the only row for itself
  // many rows
  bool dequantized = false;                     // 4-bit weights are made dense first
  bool rounded = false;                         // dense weights go to x's dtype first; what cannot: gemm_round.h
  bool converted = false;                       // x goes to the compute dtype first, the product back
  LinearKernel otherwise = LinearKernel::none;  // cublas: where the library has no algorithm, which only it knows
};

LinearChoice choose_linear(const LinearFacts& facts, const Machine& machine);
/// The kernel that computes the norm of x as well; `none`: they are computed one after the other.
LinearChoice choose_linear_with_norm(const LinearFacts& facts, const NormFacts& norm, const Machine& machine);
/// One part by the kernels for few rows, whatever the number of rows: what `parts` takes.
LinearChoice choose_few_rows(const LinearFacts& facts, const Machine& machine);
/// A slice of what `slices4` takes: row4 or batch4, or `none`.
LinearChoice choose_slice4(const LinearFacts& facts, int rows, const Machine& machine);
/// The product for many rows. `wanted`: `none` to choose, or the kernel that must take it (tests, benches); the choice
/// is then `none` where it cannot.
LinearChoice choose_many_rows(const LinearFacts& facts, const Machine& machine,
                              LinearKernel wanted = LinearKernel::none);
/// One part of a product whose parts differ: alone, without what follows the product.
LinearFacts part_alone(const LinearFacts& facts, int part);

/// Why the kernels for many rows do not take these; null: they do.
const char* many_rows_refusal(const LinearFacts& facts);

/// Activations cheap enough to inline into a product's epilogue; the others run as a pass of their own (finish_rows).
constexpr bool fuses(ActivationKind kind) {
  return kind == ActivationKind::none || kind == ActivationKind::silu || kind == ActivationKind::relu;
}

/// How the streaming kernel takes the next rows.
struct StreamFit {
  int columns;  // of 8 rows of x; 0: shared memory does not suffice
  int tiles;    // of 16 rows of W, most of a group
};
template <StreamWeight Kind>
StreamFit fit_stream(int64_t rows_left, int nested_parts, bool outliers, const Machine& machine);

}  // namespace q::cuda
