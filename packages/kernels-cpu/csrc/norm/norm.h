// Kernels of the norms: one row at a time.
#pragma once
#include "../common/isa.h"

namespace q::cpu {

struct NormRow {
  const float* x;
  const float* residual;  // with sum, or null
  float* sum;
  float* out;
  int64_t width;
  float eps;
};

struct NormKernels {
  /// weight: f32 [width], the offset already added.
  void (*rms)(const NormRow& row, const float* weight);
  /// weight, bias: f32 [width] or null.
  void (*layer)(const NormRow& row, const float* weight, const float* bias);
};
Q_ISA_TABLE(NormKernels, norm_kernels)

}  // namespace q::cpu
