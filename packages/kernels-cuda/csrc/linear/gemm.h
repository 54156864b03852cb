// The linear with many rows (prefill): y = finish(x W^T) for every weight kind. See gemm.cu for which kernel serves
// what.
#pragma once
#include "context.h"

namespace q::cuda {

/// True for every linear that gemm can do, which is every valid one of any number of rows; the kernels for few rows are
/// faster up to 64.
bool gemm_supports(const LinearArgs& args, const Context& context);

/// Enqueues the linear. Temporaries come from context.workspace. Throws CommandError for arguments outside the schema.
void gemm(const LinearArgs& args, Context& context);

/// Which product kernel takes the call; for benches and tests. `automatic` chooses.
enum class GemmPath { automatic, bnb4, tma, cublas, mma, plain };

/// gemm with the choice made by the caller, which must be one that the arguments and the machine allow (else
/// CommandError).
void gemm_by(GemmPath path, const LinearArgs& args, Context& context);

}  // namespace q::cuda
