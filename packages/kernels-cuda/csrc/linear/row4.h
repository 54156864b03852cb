// The products of one row of x (row4.cuh) and of 2 to 16 (batch4.cuh) with 4-bit weights, as linear.cu calls them.
#pragma once
#include "problem.h"

namespace q::cuda {

/// false: the number of rows, the weights' layout, the norm's width or the device's shared memory does not suit the
/// kernel, nothing was launched.
template <class T>
bool launch_row4(const LinearProblem& p, Context& context);
template <class T>
bool launch_batch4(const LinearProblem& p, Context& context);

}  // namespace q::cuda
