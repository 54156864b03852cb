// Which kernel quantizes rows to int8 (linear/quantize_rows.cu), for weights and for x: tested without a device
// (src/choice.test.ts). The other quantization commands have one kernel each.
#pragma once
#include "machine.h"
#include "q_ops.h"

namespace q::cuda {

enum class QuantizeRowsKernel : int { packs, singles };  // values of a thread's step: 16 bytes of x, or one
constexpr const char* kQuantizeRowsKernelNames[] = {"packs", "singles"};

/// aligned: x and codes, to 16 bytes.
inline Choice<QuantizeRowsKernel> choose_quantize_rows(int64_t width, bool aligned) {
  if (width % 8 != 0) return {QuantizeRowsKernel::singles, "width is no multiple of 8"};
  if (!aligned) return {QuantizeRowsKernel::singles, "tensors that are not aligned"};
  return {QuantizeRowsKernel::packs, "whole, aligned packs"};
}

}  // namespace q::cuda
