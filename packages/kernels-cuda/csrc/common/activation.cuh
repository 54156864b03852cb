// The activation functions of the command table, in f32.
#pragma once
#include "context.h"

namespace q::cuda {

template <ActivationKind K>
__device__ __forceinline__ float activate(float x) {
  if constexpr (K == ActivationKind::silu) return x / (1.f + __expf(-x));
  if constexpr (K == ActivationKind::gelu) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
  if constexpr (K == ActivationKind::gelu_tanh)
    return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  if constexpr (K == ActivationKind::relu) return x < 0.f ? 0.f : x;  // NaN stays
  if constexpr (K == ActivationKind::quick_gelu) return x / (1.f + __expf(-1.702f * x));
  if constexpr (K == ActivationKind::sigmoid) return 1.f / (1.f + __expf(-x));
  if constexpr (K == ActivationKind::tanh) return tanhf(x);
  return x;
}

/// The same with the kind known at run time; the branch is uniform over a launch.
__device__ __forceinline__ float activate(ActivationKind kind, float x) {
  // The usual ones first: a switch reads where to go from memory, which is cold at the end of a short kernel.
  if (kind == ActivationKind::none) return x;
  if (kind == ActivationKind::silu) return activate<ActivationKind::silu>(x);
  switch (kind) {
    case ActivationKind::gelu:
      return activate<ActivationKind::gelu>(x);
    case ActivationKind::gelu_tanh:
      return activate<ActivationKind::gelu_tanh>(x);
    case ActivationKind::relu:
      return activate<ActivationKind::relu>(x);
    case ActivationKind::quick_gelu:
      return activate<ActivationKind::quick_gelu>(x);
    case ActivationKind::sigmoid:
      return activate<ActivationKind::sigmoid>(x);
    case ActivationKind::tanh:
      return activate<ActivationKind::tanh>(x);
    default:
      return x;
  }
}

}  // namespace q::cuda
