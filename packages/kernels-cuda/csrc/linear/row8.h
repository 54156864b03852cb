// The product of 1 to 16 rows of x with int8 weights (row8.cuh), as linear.cu calls it.
#pragma once
#include "problem.h"

namespace q::cuda {

/// false: there are more rows, k is small, or the device's shared memory does not suffice; nothing was launched.
template <class T>
bool launch_row8(const LinearProblem& p, float threshold, Context& context);

}  // namespace q::cuda
