// Dense weights of another dtype than x for the products on tensor cores (gemm.cu).
#pragma once
#include "context.h"
#include "q_ops.h"

namespace q::cuda {

/// `count` values of `from` (f32, f16 or bf16, aligned as its elements are) rounded to `to` (f16 or bf16, 16-byte
/// aligned). Where a finite one becomes infinite, *beyond, which the caller has set to 0, becomes 1.
void round_weight(Context& context, DType from, const void* weight, DType to, void* out, int64_t count, int* beyond);

}  // namespace q::cuda
