// Kernels of the elementwise ops, softmax, crossEntropy and argmax; all on f32.
#pragma once
#include "../common/isa.h"

namespace q::cpu {

struct ElementwiseKernels {
  void (*activation)(ActivationKind kind, const float* x, float* out, int64_t n);
  /// out[i] = kind(gate[i]) * up[i]
  void (*gated)(ActivationKind kind, const float* gate, const float* up, float* out, int64_t n);
  /// out = x within low and high, + offset; NaN stays.
  void (*bounded)(const float* x, float* out, int64_t n, float low, float high, float offset);
  void (*add)(const float* a, const float* b, float* out, int64_t n);
  /// out = x * factor, then softcap * tanh(out / softcap) when softcap > 0
  void (*scale)(const float* x, float* out, int64_t n, float factor, float softcap);
  void (*softmax)(const float* x, float* out, int64_t n);
  /// ln(sum exp(x))
  double (*log_sum_exp)(const float* x, int64_t n);
  /// Lowest index of the largest value; -1 when a value is NaN or plus infinity, or all are minus infinity.
  int64_t (*argmax)(const float* x, int64_t n);
};
Q_ISA_TABLE(ElementwiseKernels, elementwise_kernels)

}  // namespace q::cpu
