// What the linear kernels are given: the parts laid side by side as virtual rows, and what happens to a sum before it
// is stored.
#pragma once
#include "activation.cuh"
#include "device.cuh"

namespace q::cuda {

/// One weight. Virtual rows [first, first + n) belong to it; with `gated` both parts cover [0, n).
struct LinearPartView {
  const uint8_t* weight;
  const void* bias;
  const void* absmax;          // bnb4: f32, or u8 when nested; int8: f32 [n]
  const float* nested_absmax;  // not null: absmax is nested
  const float* nested_code;
  const float* offset;
  int n;
  int first;
  int block_shift;   // log2 of blockSize
  int nested_shift;  // log2 of nestedBlockSize
  DType bias_dtype;
  DType weight_dtype;
};

/// rmsNorm of x before the product (row4.cuh for one row, row8.cuh; the bits of norm/norm.cu).
struct RowNorm {
  const void* weight;  // in x's dtype; null: x is taken as it is
  void* out;           // what it gives is stored as well
  float eps, offset;
};

struct LinearProblem {
  const void* x;
  void* out;
  const void* residual;
  int64_t k;
  int64_t columns;  // of out
  int rows;
  int parts;
  bool gated;
  ActivationKind activation;
  QuantType quant_type;
  uint32_t codes[8];  // bnb4: the code book times code_scale in x's dtype, two to a word
  RowNorm norm;
  LinearPartView part[kMaxRepeat];
};

/// Some of the rows of x, of the residual and of out. T: of the activations.
template <class T>
LinearProblem rows_of(LinearProblem p, int first, int rows) {
  p.rows = rows;
  p.x = static_cast<const T*>(p.x) + first * p.k;
  p.out = static_cast<T*>(p.out) + first * p.columns;
  if (p.residual) p.residual = static_cast<const T*>(p.residual) + first * p.columns;
  return p;
}

/// k values in one warp's slice of the int8 kernel: the outlier lists are cut there.
constexpr int kOutlierSlice = 128;

/// Activations quantized row by row for LLM.int8, with each row's outliers in order of k.
struct QuantizedRows {
  const int8_t* codes;  // [rows, k]
  const float* scales;  // [rows] absmax without outliers
  const int*
      outlier_starts;  // [rows, slices + 1]: outliers of row m in slice s are [starts[s], starts[s + 1]) of the row's list
  const int* outlier_columns;   // [rows, k]
  const float* outlier_values;  // [rows, k]
  int slices;                   // of kOutlierSlice values of k; 0: no outliers are looked for
};

__device__ __forceinline__ float load_float(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f16:
      return to_float(static_cast<const half_t*>(p)[i]);
    case DType::bf16:
      return to_float(static_cast<const bfloat_t*>(p)[i]);
    default:
      return static_cast<const float*>(p)[i];
  }
}

/// absmax of a block; nested: nestedCode[u8] * nestedAbsmax + offset, two roundings as bitsandbytes does it.
__device__ __forceinline__ float block_absmax(const LinearPartView& part, int64_t block) {
  if (!part.nested_absmax) return static_cast<const float*>(part.absmax)[block];
  const float code = part.nested_code[static_cast<const uint8_t*>(part.absmax)[block]];
  return __fadd_rn(__fmul_rn(code, part.nested_absmax[block >> part.nested_shift]), *part.offset);
}

__device__ __forceinline__ float with_bias(const LinearPartView& part, int64_t row, float sum) {
  return part.bias ? sum + load_float(part.bias, part.bias_dtype, row) : sum;
}

/// Residual, one rounding to the activation dtype, store.
template <class T>
__device__ __forceinline__ void store_output(const LinearProblem& p, int m, int64_t column, float y) {
  const int64_t at = m * p.columns + column;
  if (p.residual) y += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.out)[at] = from_float<T>(y);
}

}  // namespace q::cuda
