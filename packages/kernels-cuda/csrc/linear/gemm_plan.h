// The linear's arguments as the products want them; made once per call by gemm.cu.
#pragma once
#include "gemm.h"
#include "gemm_finish.cuh"

namespace q::cuda {

/// Parts of one kind that can go through one product. `weight` holds the values to be multiplied: for bnb4 as dense
/// the dequantized ones, for dense weights in another dtype the rounded ones.
struct Product {
  WeightKind kind;
  DType dtype;  // of x, out, residual and (dense) weights
  const void* x;
  int64_t rows, k;
  int parts;
  const void* weight[kMaxRepeat];
  const int* beyond;       // not null: weights are rounded to dtype, and not 0 on the device if some are infinite there
  const LinearArgs* args;  // quantization details; parts in the same order
  Finish finish;
};

/// Tensor maps, widths and launches of the kernels for sm_90a (gemm_hopper.cu).
void multiply_tma(Context& context, const Product& p);
void multiply_bnb4(Context& context, const Product& p);

}  // namespace q::cuda
