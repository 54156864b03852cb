// The linear with many rows (prefill): y = finish(x W^T) for every weight kind. choice.h says which kernel
// serves what.
#pragma once
#include "choice.h"
#include "context.h"

namespace q::cuda {

/// Enqueues what choose_linear gave to the kernels for many rows. Temporaries come from context.workspace.
void gemm(const LinearArgs& args, const LinearChoice& choice, Context& context);

/// Which product kernel takes the call; for benches and tests. `automatic` chooses.
enum class GemmPath { automatic, bnb4, tma, cublas, mma, plain };

/// gemm for any number of rows, with the choice made by the caller, which must be one that the arguments and the
/// machine allow (else CommandError).
void gemm_by(GemmPath path, const LinearArgs& args, Context& context);

}  // namespace q::cuda
