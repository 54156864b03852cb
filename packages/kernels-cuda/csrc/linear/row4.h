// The products of one row of x (row4.cuh) and of 2 to 16 (batch4.cuh) with 4-bit weights, as linear.cu calls them, for
// what choice.h chose.
#pragma once
#include "choice.h"
#include "problem.h"

namespace q::cuda {

template <class T>
void launch_row4(const LinearProblem& p, const LinearChoice& choice, Context& context);
template <class T>
void launch_batch4(const LinearProblem& p, const LinearChoice& choice, Context& context);

}  // namespace q::cuda
