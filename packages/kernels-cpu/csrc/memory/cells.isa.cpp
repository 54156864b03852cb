// cast: to[i] = from[i], f32, f16 and bf16 in any pair; rounds to nearest even
// layout  flat       floor  bytes of from + bytes of to       exact
// ref     tensor/src/reference/commands.ts
#include "cells.h"
#include "../common/vmath.h"

namespace q::cpu::Q_ISA {
namespace {

template <class From, class To>
void convert(const From* from, To* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
  if (i == n) return;
  To tail[kLanes];
  store(tail, load_part(from + i, n - i));
  std::memcpy(to + i, tail, size_t(n - i) * sizeof(To));
}

template <class From>
void convert_to(const From* from, void* to, DType dtype, int64_t n) {
  if (dtype == DType::f16)
    convert(from, static_cast<F16*>(to), n);
  else if (dtype == DType::bf16)
    convert(from, static_cast<BF16*>(to), n);
  else
    convert(from, static_cast<float*>(to), n);
}

void cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  if (from_dtype == DType::f16)
    convert_to(static_cast<const F16*>(from), to, to_dtype, n);
  else if (from_dtype == DType::bf16)
    convert_to(static_cast<const BF16*>(from), to, to_dtype, n);
  else
    convert_to(static_cast<const float*>(from), to, to_dtype, n);
}

}  // namespace

extern const CellKernels cell_kernels;
const CellKernels cell_kernels{cast};

}  // namespace q::cpu::Q_ISA
