// What the quantization kernels ask beyond the rules of their commands.
#pragma once
#include <algorithm>
#include <string>
#include "linear/problem.h"

namespace q::cuda {

/// log2 of `value`; throws unless it is a power of two from `least`.
inline int power_of_two(const char* name, int64_t value, int64_t least) {
  int shift = 0;
  while ((int64_t{1} << shift) < value) ++shift;
  if (value < least || (int64_t{1} << shift) != value)
    throw CommandError(std::string(name) + " must be a power of two from " + std::to_string(least) + ", got " +
                       std::to_string(value));
  return shift;
}

}  // namespace q::cuda
