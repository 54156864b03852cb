// The products for every other machine: tensor cores through mma.sync (sm_75 and newer), and plain f32.
#pragma once
#include "gemm_finish.cuh"
#include "launch.h"

namespace q::cuda {

/// out = finish(x . W^T). Any activation; not gated. x [rows, x_pitch] and weight [n, k] per part are `operand` typed.
struct MmaParams {
  const void* x;
  const void* weight[kMaxRepeat];
  int64_t x_pitch;
  int64_t k;
  Finish finish;  // first_tile counts tiles of 128 outputs (mma) or 64 (plain)
  int row_tiles;
  int vectors;  // 1: rows of x and of the weights may be read 16 bytes at a time
  // int8 only: out = sums * row_scale * scale / 127^2 + outliers (see gemm_quantize.cuh)
  const float* row_scale;
  const float* scale[kMaxRepeat];
  const int* groups;
  const void* x_float;
  float threshold;
  const int* only_if;  // plain: null, or nothing is computed where it is 0
};

/// f16 . f16 and bf16 . bf16 to the same type (bf16 needs sm_80), i8 . i8 to f32, f16 or bf16.
void gemm_mma(Context& context, DType operand, DType out, const MmaParams& p, int column_tiles);

/// x in x_dtype, weights in weight_dtype (both float), f32 arithmetic, out in x_dtype.
void gemm_plain(Context& context, DType x_dtype, DType weight_dtype, const MmaParams& p, int column_tiles);

/// out = activation, gating and residual of `finish` over product [rows, pitch], an earlier product of `product` dtype
/// with its bias.
void finish_rows(Context& context, DType product_dtype, const void* product, int64_t pitch, DType out,
                 const Finish& finish);

// Not inlined: 64 outputs a thread times eight functions would swell the kernels.
static __device__ __noinline__ float activate(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::silu:
      return x / (1.f + expf(-x));
    case ActivationKind::gelu:
      return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case ActivationKind::gelu_tanh:
      return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case ActivationKind::relu:
      return x < 0.f ? 0.f : x;  // NaN stays
    case ActivationKind::quick_gelu:
      return x / (1.f + expf(-1.702f * x));
    case ActivationKind::sigmoid:
      return 1.f / (1.f + expf(-x));
    case ActivationKind::tanh:
      return tanhf(x);
    default:
      return x;
  }
}

/// One output, from its sum to memory.
template <class T>
__device__ __forceinline__ void finish_one(const Finish& f, const FinishPart& part, int64_t row, int n, float value) {
  const int64_t at = row * f.ldo + part.column + n;
  value = activate(f.activation, value + bias_of(part, n));
  if (f.residual) value += to_float(static_cast<const T*>(f.residual)[at]);
  static_cast<T*>(f.out)[at] = from_float<T>(value);
}

}  // namespace q::cuda
