// The product of 1 to 16 rows of x with int8 weights (row8.cuh), as linear.cu calls it, for what choice.h chose.
#pragma once
#include "choice.h"
#include "problem.h"

namespace q::cuda {

template <class T>
void launch_row8(const LinearProblem& p, float threshold, const LinearChoice& choice, Context& context);

}  // namespace q::cuda
