// What follows every product: bias, activation, gating, residual, rounding to act. Shared by all kernels of the
// many-row linear.
#pragma once
#include "device.cuh"

namespace q::cuda {

/// One weight of the linear as the kernels see it: its outputs are columns [column, column + n) of the product.
struct FinishPart {
  int n;
  int column;
  int first_tile;    // tiles of the parts before it, where a kernel counts tiles
  const void* bias;  // float [n], may be null
  DType bias_dtype;
};

/// gated: 2 parts of equal n, out [rows, n] = activation(part 0) * part 1; else out [rows, sum of n] =
/// activation(product + bias). Then + residual.
struct Finish {
  void* out;
  const void* residual;  // like out, may be null or out itself
  int64_t ldo;
  int rows;
  int gated;
  ActivationKind activation;
  int vectors;  // 1: every n and column is a multiple of 8, out, residual and biases are 16-byte aligned, biases of out's dtype
  int parts;
  FinishPart part[kMaxRepeat];
};

__device__ __forceinline__ float load_float(const void* p, DType dtype, int64_t i) {
  if (dtype == DType::f16) return to_float(static_cast<const half_t*>(p)[i]);
  if (dtype == DType::bf16) return to_float(static_cast<const bfloat_t*>(p)[i]);
  return static_cast<const float*>(p)[i];
}

__device__ __forceinline__ float bias_of(const FinishPart& part, int column) {
  return part.bias ? load_float(part.bias, part.bias_dtype, column) : 0.f;
}

/// Of those that choice.h says are fused.
__device__ __forceinline__ float activate_fused(ActivationKind kind, float x) {
  if (kind == ActivationKind::silu) return __fdividef(x, 1.f + __expf(-x));
  if (kind == ActivationKind::relu) return x < 0.f ? 0.f : x;  // NaN stays
  return x;
}

template <class T>
struct Pair;
template <>
struct Pair<half_t> {
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) {
    const __half2 v = __floats2half2_rn(lo, hi);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
};
template <>
struct Pair<bfloat_t> {
  static __device__ __forceinline__ uint32_t pack(float lo, float hi) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
};

}  // namespace q::cuda
