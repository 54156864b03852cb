// Checks the quantization commands share.
#pragma once
#include <algorithm>
#include <string>
#include "linear/problem.h"

namespace q::cuda {

/// log2 of `value`; throws unless it is a power of two from `least`.
inline int power_of_two(const char* command, const char* name, int64_t value, int64_t least) {
  int shift = 0;
  while ((int64_t{1} << shift) < value) ++shift;
  if (value < least || (int64_t{1} << shift) != value)
    throw CommandError(std::string(command) + ": " + name + " must be a power of two from " + std::to_string(least) +
                       ", got " + std::to_string(value));
  return shift;
}

inline void code_book(const char* command, int64_t type) {
  if (type != static_cast<int64_t>(QuantType::nf4) && type != static_cast<int64_t>(QuantType::fp4))
    throw CommandError(std::string(command) + ": quantType " + std::to_string(type) + " is neither nf4 nor fp4");
}

}  // namespace q::cuda
