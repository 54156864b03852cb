// Argmax of a row by a block, the lowest index winning ties.
#pragma once
#include "device.cuh"

namespace q::cuda {

/// Bits that order like the float (-0 below +0; NaN above infinity).
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/// A candidate as one number: larger value first, then smaller index; -0 equals +0. Not for NaN: see kBroken.
__device__ __forceinline__ unsigned long long candidate(float x, int64_t index) {
  const uint32_t key = ordered(x == 0.f ? 0.f : x);
  return (static_cast<unsigned long long>(key) << 32) | (0xffffffffu - static_cast<uint32_t>(index));
}
__device__ __forceinline__ int32_t candidate_index(unsigned long long c) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(c));
}

/// The best candidate of the block, in every thread. `shared` holds 32 values.
__device__ __forceinline__ unsigned long long block_best(unsigned long long best, unsigned long long* shared) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  const auto warp_best = [](unsigned long long b) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
      const unsigned long long other = __shfl_xor_sync(0xffffffffu, b, o);
      b = other > b ? other : b;
    }
    return b;
  };
  best = warp_best(best);
  __syncthreads();
  if (lane == 0) shared[threadIdx.x >> 5] = best;
  __syncthreads();
  return warp_best(lane < warps ? shared[lane] : 0ull);
}

/// Calls take(value, index) for this thread's part of a row, several 16-byte loads under way at a time when `wide`
/// (aligned rows).
template <class T, class Take>
__device__ __forceinline__ void each_value(const T* x, int64_t width, bool wide, Take take) {
  constexpr int N = kPack<T>, kAhead = 4;
  const int64_t packs = wide ? width / N : 0, step = blockDim.x;
  for (int64_t first = threadIdx.x; first < packs; first += kAhead * step) {
    Pack<T, N> ahead[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u * step < packs) ahead[u] = reinterpret_cast<const Pack<T, N>*>(x)[first + u * step];
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u * step >= packs) break;
#pragma unroll
      for (int j = 0; j < N; ++j) take(to_float(ahead[u].v[j]), (first + u * step) * N + j);
    }
  }
  for (int64_t i = packs * N + threadIdx.x; i < width; i += step) take(to_float(x[i]), i);
}

/// Wins against every candidate, none of which has these upper bits, and has index -1.
constexpr unsigned long long kBroken = 0xffffffff00000000ull;

/// Index of the largest value; -1 when one is NaN or plus infinity, or all are minus infinity.
template <class T>
__device__ int32_t block_argmax(const T* x, int64_t width, bool wide, unsigned long long* shared) {
  float most = -INFINITY;
  int64_t index = -1;
  bool broken = false;
  each_value(x, width, wide, [&](float v, int64_t i) {  // in a thread's order indices grow, so > keeps the lowest
    broken = broken || !(v < INFINITY);
    if (v > most) most = v, index = i;
  });
  const unsigned long long best = block_best(broken ? kBroken : index < 0 ? 0ull : candidate(most, index), shared);
  return best == 0 ? -1 : candidate_index(best);
}

}  // namespace q::cuda
