// gatedActivation with limits, also as the end of a linear (linear/linear.cu).
#pragma once
#include "context.h"

namespace q::cuda {

/// residual: act [rows, width], added last; may be null, or out itself.
void bounded_gate(const GatedActivationArgs& args, const void* residual, Context& context);

}  // namespace q::cuda
