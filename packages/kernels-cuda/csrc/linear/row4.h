// The product of one row of x and 4-bit weights (row4.cuh), as linear.cu calls it.
#pragma once
#include "problem.h"

namespace q::cuda {

/// false: the weights' layout, the norm's width or the device's shared memory does not suit the kernel, nothing was launched.
template <class T> bool launch_row4(const LinearProblem& p, Context& context);

}  // namespace q::cuda
