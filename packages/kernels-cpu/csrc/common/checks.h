// Checks of what the index tensors of a command hold; what fails becomes the queue's failure.
#pragma once
#include <algorithm>
#include "context.h"

namespace q::cpu {

constexpr int64_t dtype_bytes(DType dtype) { return element_bytes(dtype); }
constexpr bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

[[noreturn]] inline void refuse(const std::string& why) { throw CommandError(why); }
inline void check(bool ok, const char* why) {
  if (!ok) refuse(why);
}

inline void check_size(const Tensor& t, int64_t count, const char* name) {
  if (elements_in(t).value < count) {
    refuse(std::string(name) + " holds " + std::to_string(elements_in(t).value) + " elements, " +
           std::to_string(count) + " are needed");
  }
}

/// Fewest rows worth a thread when a row has `width` elements of light work.
inline int64_t rows_grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)); }

}  // namespace q::cpu
