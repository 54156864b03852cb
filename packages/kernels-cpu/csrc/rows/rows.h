// Kernels of the row ops.
#pragma once
#include "../common/isa.h"

namespace q::cpu {

struct RowKernels {
  /// out[i] = row[i] * scale, row of any float dtype.
  void (*scaled_row)(const void* row, DType dtype, float* out, int64_t width, float scale);
};
Q_ISA_TABLE(RowKernels, row_kernels)

}  // namespace q::cpu
