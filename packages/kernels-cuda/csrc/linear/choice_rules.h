// What the files of the choice of a linear (choice*.cpp) share.
#pragma once
#include "choice.h"

namespace q::cuda {

/// Most rows of x that the kernels for few rows take before those for many. One H200, driver 580.159, 2026-11-21, 11008
/// x 4096 (linear_bench.cu): at 32 rows stream takes 31.9 us dense (cuBLAS 25.6), 21.4 us nf4 (the many-row product
/// 20.6, at 17 rows 20.5 beside 18.7), 36 us int8; a second launch for rows over 32 doubles that.
constexpr int64_t most_few_rows(WeightKind kind) { return kind == WeightKind::bnb4 ? 32 : 16; }

inline bool sixteen_bits(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }

inline int64_t outputs_of(const LinearFacts& f) {
  int64_t n = 0;
  for (int i = 0; i < f.parts; ++i) n += f.part[i].n;
  return n;
}

/// Why the parts cannot go through one kernel for few rows; null: they can.
const char* mixture(const LinearFacts& facts);
/// Why no kernel for few rows but `simple` takes these; null: one may.
const char* few_rows_refusal(const LinearFacts& facts, const Machine& machine);

}  // namespace q::cuda
