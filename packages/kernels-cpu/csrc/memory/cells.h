// Kernels of fill, random and cast.
#pragma once
#include "../common/isa.h"

namespace q::cpu {

struct CellKernels {
  /// n elements from one float dtype to another, rounded to nearest even.
  void (*cast)(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n);
};
Q_ISA_TABLE(CellKernels, cell_kernels)

}  // namespace q::cpu
