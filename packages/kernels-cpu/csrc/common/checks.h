// Checks of arguments against each other; what fails becomes the queue's failure.
#pragma once
#include <algorithm>
#include "context.h"

namespace q::cpu {

constexpr int64_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    default:
      return 1;
  }
}
constexpr bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

[[noreturn]] inline void refuse(const std::string& why) { throw CommandError(why); }
inline void check(bool ok, const char* why) {
  if (!ok) refuse(why);
}

inline void check_size(const Tensor& t, int64_t count, const char* name) {
  if (count < 0 || t.bytes / dtype_bytes(t.dtype) < count) {
    refuse(std::string(name) + " holds " + std::to_string(t.bytes / dtype_bytes(t.dtype)) + " elements, " +
           std::to_string(count) + " are needed");
  }
}
inline void check_tensor(const Tensor& t, DType dtype, int64_t count, const char* name) {
  if (t.dtype != dtype)
    refuse(std::string(name) + " has dtype code " + std::to_string(int(t.dtype)) + ", must be " +
           std::to_string(int(dtype)));
  check_size(t, count, name);
}
inline void check_float(const Tensor& t, int64_t count, const char* name) {
  if (!is_float(t.dtype)) refuse(std::string(name) + " must be f32, f16 or bf16");
  check_size(t, count, name);
}
/// rows * width, refused when negative or past 2^62.
inline int64_t area(int64_t rows, int64_t width) {
  int64_t product;
  if (rows < 0 || width < 0 || __builtin_mul_overflow(rows, width, &product))
    refuse("sizes must not be negative or overflow");
  return product;
}

/// Fewest rows worth a thread when a row has `width` elements of light work.
inline int64_t rows_grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)); }

}  // namespace q::cpu
