// The arithmetic of bitsandbytes' CUDA build (compiled with fast maths): approximate reciprocals, subnormal numbers
// flushed to zero. Goldens hang on it: fp4 codes that lie exactly on an edge (+-7/24, 5/24) fall by the last bit of
// rcp.approx.
#pragma once
#include <cstdint>

namespace q::cuda {

__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_divide(float a, float b) {
  float y;
  asm("div.approx.ftz.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
__device__ __forceinline__ float flushed_multiply(float a, float b) {
  float y;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
/// A subnormal number as zero.
__device__ __forceinline__ float flushed(float x) { return flushed_multiply(x, 1.f); }

}  // namespace q::cuda
