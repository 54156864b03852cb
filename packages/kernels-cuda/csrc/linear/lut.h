// The product for 1 to 4 rows on sm_80 and newer (lut.cuh), as linear.cu calls it.
#pragma once
#include "problem.h"

namespace q::cuda {

/// Most rows of x that lut_linear takes.
constexpr int kLutRows = 4;

template <WeightKind Kind, class T> void launch_lut(const LinearProblem& p, float threshold, Context& context);

/// Whether lut_linear takes this problem, whose arguments are valid: int8 weights of one threshold, 16-bit x, k a multiple of 64, 1 to kLutRows rows. (lut.cuh can
/// also be instantiated for dense and bnb4 weights, where stream.cuh is faster today.)
bool lut_supports(const LinearArgs& args, const Context& context);
void lut_linear(const LinearArgs& args, Context& context);

}  // namespace q::cuda
