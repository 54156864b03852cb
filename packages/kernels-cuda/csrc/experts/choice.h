// Which kernel computes the products of routed experts: a function of shape, weights, alignment and machine, tested
// without a device (src/choice.test.ts).
#pragma once
#include "machine.h"
#include "q_ops.h"

namespace q::cuda {

/// rows: a pass over its expert's weights for each choice; grouped: the choices of an expert together, on tensor cores.
enum class ExpertKernel : int { none, rows, grouped };
constexpr const char* kExpertKernelNames[] = {"none", "rows", "grouped"};

struct ExpertFacts {
  DType act;
  int64_t rows, choices, k, n;
  WeightKind kind;
  DType weight;        // dense
  int64_t block_size;  // bnb4
  bool aligned;        // x and all weights, to 16 bytes
};

inline ExpertFacts facts_of(const ExpertLinearArgs& a) {
  ExpertFacts f{
      a.x.dtype,          a.rows, a.choices, a.k, a.n, WeightKind(a.kind), DType(a.weight_dtype), a.block_size,
      aligned16(a.x.data)};
  for (const auto& part : a.parts) f.aligned = f.aligned && aligned16(part.weight.data);
  return f;
}

struct ExpertChoice {
  ExpertKernel kernel;
  const char* reason;
  bool wide;  // rows: 16 values of a weight at a time
};

/// Values of k that a tile of the grouped product holds.
constexpr int64_t kExpertTileK = 64;
/// Up to so many rows weights are read anew for each choice. Not measured: 16 rows of 8 choices reach 2 of 3 experts of
/// 128, so that beyond weights are read more than once.
constexpr int64_t kFewExpertRows = 16;

inline ExpertChoice choose_experts(const ExpertFacts& f, const Machine& m) {
  if (f.rows == 0) return {ExpertKernel::none, "no rows", false};
  const bool bnb4 = f.kind == WeightKind::bnb4;
  const bool wide = f.aligned && f.k % 16 == 0 && (!bnb4 || f.block_size % 16 == 0);
  const auto rows = [&](const char* reason) { return ExpertChoice{ExpertKernel::rows, reason, wide}; };
  if (f.rows <= kFewExpertRows) return rows("few rows");
  if (f.act == DType::f32) return rows("activations in f32");
  if (m.compute_capability < 80) return rows("no tensor cores for these products");
  if (f.kind == WeightKind::int8) return rows("int8 weights");
  if (!f.aligned || f.k % kExpertTileK != 0) return rows("rows that are no whole tiles");
  if (bnb4 && f.block_size % kExpertTileK != 0) return rows("blocks of less than a tile");
  if (!bnb4 && f.weight != f.act) return rows("weights of another dtype");
  return {ExpertKernel::grouped, "many rows", false};
}

}  // namespace q::cuda
