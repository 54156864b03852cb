// The linear's arguments as the products want them; made once per call by gemm.cu.
#pragma once
#include "gemm.h"
#include "gemm_finish.cuh"

namespace q::cuda {

/// Parts of one kind that can go through one product. For bnb4 that is to be multiplied as dense, `weight` holds the
/// dequantized values.
struct Product {
  WeightKind kind;
  DType dtype;  // of x, out, residual and (dense) weights
  const void* x;
  int64_t rows, k;
  int parts;
  const void* weight[kMaxRepeat];
  const LinearArgs* args;  // quantization details; parts in the same order
  Finish finish;
};

/// Tensor maps, widths and launches of the kernels for sm_90a (gemm_hopper.cu).
void multiply_tma(Context& context, const Product& p);
void multiply_bnb4(Context& context, const Product& p);

}  // namespace q::cuda
