// The product that takes every shape, dtype, alignment and mix of weights; linear.cu calls it when no faster kernel
// fits.
#pragma once
#include "stream.h"

namespace q::cuda {

struct SimplePart {
  WeightKind kind;
  QuantType quant_type;
  DType compute;  // bnb4: what x and the dequantized weight are rounded to
  float threshold;
};
struct SimpleProblem {
  LinearProblem linear;
  SimplePart part[kMaxRepeat];
  QuantizedRows quantized[kMaxRepeat];  // of int8 parts
};

template <class T>
void launch_simple(const SimpleProblem& problem, Context& context);

}  // namespace q::cuda
