// What is made of weights and activations before a product with many rows.
#pragma once
#include "gemm_finish.cuh"
#include "launch.h"

namespace q::cuda {

/// The 16 values of a 4-bit code.
void code_table(int64_t quant_type, float (&table)[16]);

/// W[count] = round_T(code * absmax) for a 4-bit weight of any block size, as bitsandbytes' dequantize_4bit; to is f32,
/// f16 or bf16.
void dequantize_weight(Context& context, const LinearArgsItem& part, int64_t count, DType to_dtype, void* to);

/// LLM.int8's view of the activations, made by quantize_activations in the command's workspace.
struct Int8Activations {
  int8_t* codes;  // CA [rows, pitch], 0 at outliers and past k
  int64_t pitch;  // k rounded up to 16
  float* scale;   // SCA [rows]: largest |x| below the threshold
  int*
      groups;  // null without a threshold; [0]: number of groups of 16 columns that hold outliers, then these groups, ascending
  void* x_extra;       // act [rows, room]: x in those groups, 0 where not an outlier; null unless gathered
  void* weight_extra;  // act [sum of n, room]: CB SCB / 127 there
  int64_t room;        // k rounded up to 64
};

/// An element is an outlier when |x| >= threshold (threshold > 0): it is left out of CA and SCA of its row, so no row
/// depends on another.
Int8Activations quantize_activations(Context& context, const LinearArgs& args, bool gather);

/// out = cast of x, element by element.
void convert(Context& context, DType from, const void* x, DType to, void* out, int64_t count);

}  // namespace q::cuda
