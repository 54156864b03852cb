// The product for many rows, as linear.cu calls it.
#pragma once
#include "context.h"

namespace q::cuda {

/// Whether gemm() takes this problem as it is.
bool gemm_supports(const LinearArgs& args, Context& context);
void gemm(const LinearArgs& args, Context& context);

}  // namespace q::cuda
