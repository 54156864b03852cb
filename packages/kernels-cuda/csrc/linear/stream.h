// The streaming product for few rows (stream.cuh), as linear.cu calls it.
#pragma once
#include "problem.h"

namespace q::cuda {

/// k values in a chunk of the int8 kernel: the outlier lists are cut there.
constexpr int kInt8Chunk = 1024;
/// Most rows of x that one launch takes.
constexpr int kStreamRows = 32;

/// Shape of a launch: bytes in flight and residency. The default is what measured best on an H200 (csrc/test/linear_bench.cu).
struct StreamTuning {
  int ring_bytes = 96 * 1024;      // of all stages; what 4.3 TB/s need is about 40 KiB a multiprocessor
  int shared_limit = 113 * 1024;   // with one column tile: two blocks (this kernel's and the next one's) fit a multiprocessor
  int blocks_per_multiprocessor = 1;
};

/// p.rows may be anything; more than kStreamRows go in several launches. Throws CommandError when shared memory does not suffice.
template <WeightKind Kind, class T> void launch_stream(const LinearProblem& p, const QuantizedRows& quantized, Context& context, const StreamTuning& tuning = {});

/// x [rows, k] of dtype T to int8, row by row: scale = 127 / absmax over |x| < threshold (threshold 0: over all), outliers are 0 and go to the lists.
template <class T> QuantizedRows quantize_rows(const void* x, int rows, int64_t k, float threshold, Context& context);

/// The same without outliers into memory of the caller: rows of a weight.
template <class T> void quantize_weight(const void* x, int8_t* codes, float* scales, int64_t rows, int64_t k, Context& context);

}  // namespace q::cuda
