// Which kernel computes a linear: a pure function of shape, kinds, dtypes and device, tested without one.
#pragma once
#include <cstdint>
#include "q_ops.h"

namespace q::cuda {

enum class LinearRoute : int { stream, gemm, simple };

struct LinearTraits {
  WeightKind kind;  // of all parts when uniform
  DType act;
  bool
      uniform;  // parts agree in kind, code book, threshold, and each is fit for the stream kernel: dense weight in act's dtype, bnb4
                // computed in act's dtype or f32, blockSize a power of two from 64
  bool aligned;  // x and weights start on 16 bytes
  bool gemm;     // gemm_supports said yes
  int64_t rows, k;
  int capability;
};

/// Most rows of x that the stream kernel takes before the many-row product. One H200, driver 580.159, 2026-11-21, 11008
/// x 4096 (linear_bench.cu): at 32 rows stream takes 31.9 us dense (cuBLAS 25.6), 21.4 us nf4 (the many-row product
/// 20.6, at 17 rows 20.5 beside 18.7), 36 us int8; a second launch for rows over 32 doubles that.
struct StreamLimit {
  WeightKind kind;
  int64_t rows;
};
constexpr StreamLimit kStreamLimits[] = {{WeightKind::dense, 16}, {WeightKind::bnb4, 32}, {WeightKind::int8, 16}};

constexpr bool stream_supports(const LinearTraits& t) {
  return t.capability >= 80 && t.uniform && t.aligned && t.k % 64 == 0 && t.k > 0 &&
         (t.act == DType::f16 || t.act == DType::bf16);
}

constexpr LinearRoute choose_linear(const LinearTraits& t) {
  int64_t limit = 0;
  for (const StreamLimit& l : kStreamLimits)
    if (l.kind == t.kind) limit = l.rows;
  if (t.gemm && (t.rows > limit || !stream_supports(t))) return LinearRoute::gemm;
  return stream_supports(t) ? LinearRoute::stream : LinearRoute::simple;
}

}  // namespace q::cuda
