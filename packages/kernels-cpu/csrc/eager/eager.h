// Kernels of the eager commands: rows and columns of work, pointers resolved and checked by eager.cpp.
#pragma once
#include "../attention/attention.h"

namespace q::cpu {

/// One int8 part with its activations quantized; see eager.cpp.
struct EagerInt8 {
  const int8_t* weight;    // CB [n, k]
  const float* scb;        // [n]
  const float* bias;       // [n] or null
  const int16_t* codes;    // [rows, k]
  const float* absmax;     // [rows]
  const int32_t* columns;  // outlier columns
  int64_t column_count;
  int64_t column_ld;      // column_count rounded up to whole vectors
  const float* outliers;  // [rows, column_ld], rounded, zeros behind
  int64_t rows, k, ld;    // ld: floats between rows of out
  bool fuses_bias;
  DType dtype;
};

struct EagerKernels {
  void (*round)(float* x, int64_t n, DType dtype);
  void (*multiply)(const float* a, const float* b, float* out, int64_t n);
  float (*dot)(const float* a, const float* b, int64_t n);
  /// Sum of the products, each rounded.
  float (*rounded_dot)(const float* a, const float* b, int64_t n, DType dtype);
  /// Columns [n0, n1) of an int8 part for all rows; out is the first column of the part. Scratch: codes [k], dense
  /// [column_ld].
  void (*int8)(const EagerInt8& part, int64_t n0, int64_t n1, float* out, int16_t* codes, float* dense);
  /// One row of attention; scores: scratch for `last` floats and a head beside.
  void (*attend)(const QueryRow& row, const PagedHead& keys, const PagedHead& values, const AttentionRule& rule,
                 int64_t context, DType dtype, float* scores);
};
Q_ISA_TABLE(EagerKernels, eager_kernels)

}  // namespace q::cpu
