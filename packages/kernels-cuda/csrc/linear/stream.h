// The streaming product for few rows (stream.cuh), as linear.cu calls it.
#pragma once
#include "problem.h"
#include "stream_weight.h"

namespace q::cuda {

/// p.rows may be anything; more than 32 go in several launches.
template <StreamWeight Kind, class T>
void launch_stream(const LinearProblem& p, const QuantizedRows& quantized, Context& context);

/// x [rows, k] of dtype T to int8, row by row: scale = 127 / absmax over |x| < threshold (threshold 0: over all),
/// outliers are 0 and go to the lists.
template <class T>
QuantizedRows quantize_rows(const void* x, int rows, int64_t k, float threshold, Context& context);

/// The same without outliers into memory of the caller: rows of a weight.
template <class T>
void quantize_weight(const void* x, int8_t* codes, float* scales, int64_t rows, int64_t k, Context& context);

}  // namespace q::cuda
