// One row of x to int8 by every block that needs it, in its shared memory: what quantize_rows does in a launch of its own, for products of one
// row. The row is read from the L2 by all blocks (4096 f16: 264 x 8 KB = 2 MB) while their first weights are on the way from memory.
// maths   as quantize_rows: the same absmax, codes and outliers, bit by bit
// layout  codes [k], one bit a value that says "outlier" [k rounded up to 128], the warps' largest values and the row's absmax
// floor   latency: a read from the L2, two barriers; a launch of quantize_rows costs about 2 us instead
// needs   k % 64 == 0, x aligned to 16 bytes       test  csrc/test/linear.cu (one row against the same row in a batch, bit by bit)
#pragma once
#include "../quant/rounding.cuh"
#include "problem.h"

namespace q::cuda {

template <class T, int Threads> struct BlockRow {
  uint8_t* shared;
  int k;

  static __host__ __device__ int mask_at(int k) { return k; }
  static __host__ __device__ int largest_at(int k) { return k + (k + 127) / 128 * 16; }
  static __host__ __device__ int bytes(int k) { return largest_at(k) + 128; }

  __device__ const int8_t* codes() const { return reinterpret_cast<const int8_t*>(shared); }
  /// Outliers of the 128 values that start at 128 * slice.
  __device__ uint4 outliers(int slice) const { return reinterpret_cast<const uint4*>(shared + mask_at(k))[slice]; }
  __device__ float absmax() const { return reinterpret_cast<const float*>(shared + largest_at(k))[Threads / 32]; }

  /// The whole block calls; what it writes can be read after the next barrier.
  __device__ void quantize(const T* x, float threshold) const {
    constexpr int kKept = 6;  // of 8 values each, in registers; what a longer row has more is read again
    const int packs = k / 8, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const float limit = threshold > 0.f ? threshold : INFINITY;
    uint8_t* mask = shared + mask_at(k);
    uint32_t* largest = reinterpret_cast<uint32_t*>(shared + largest_at(k));
    const auto pack = [&](int i) { return *reinterpret_cast<const uint4*>(x + i * 8); };
    const auto each = [](const uint4& v, auto take) {
      const T* values = reinterpret_cast<const T*>(&v);
#pragma unroll
      for (int j = 0; j < 8; ++j) take(to_float(values[j]), j);
    };
    uint4 kept[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i) kept[i] = i * Threads + threadIdx.x < packs ? pack(i * Threads + threadIdx.x) : make_uint4(0, 0, 0, 0);
    float most = 0.f;
    const auto look = [&](const uint4& v, int i) {
      uint32_t out = 0;
      each(v, [&](float f, int j) {
        if (fabsf(f) < limit) most = fmaxf(most, fabsf(f));
        out |= (fabsf(f) >= limit ? 1u : 0u) << j;
      });
      mask[i] = static_cast<uint8_t>(threshold > 0.f ? out : 0);
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      if (i * Threads + threadIdx.x < packs) look(kept[i], i * Threads + threadIdx.x);
#pragma unroll 1
    for (int i = kKept * Threads + threadIdx.x; i < packs; i += Threads) look(pack(i), i);
    if (threadIdx.x < 8 && k % 128) mask[packs + threadIdx.x] = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t warp_most = __reduce_max_sync(0xffffffffu, __float_as_uint(most));  // not negative: ordered like their bits
#else
    const uint32_t warp_most = __float_as_uint(warp_reduce<Max>(most));
#endif
    if (lane == 0) largest[warp] = warp_most;
    __syncthreads();
    uint32_t all = 0;
#pragma unroll
    for (int w = 0; w < Threads / 32; ++w) all = max(all, largest[w]);
    const float absmax = __uint_as_float(all), scale = fast_divide(127.f, absmax);
    if (threadIdx.x == 0) largest[Threads / 32] = all;
    const auto write = [&](const uint4& v, int i) {
      Pack<int8_t, 8> codes;
      each(v, [&](float f, int j) { codes.v[j] = fabsf(f) >= limit ? 0 : static_cast<int8_t>(__float2int_rn(f * scale)); });
      *reinterpret_cast<Pack<int8_t, 8>*>(shared + i * 8) = codes;
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      if (i * Threads + threadIdx.x < packs) write(kept[i], i * Threads + threadIdx.x);
#pragma unroll 1
    for (int i = kKept * Threads + threadIdx.x; i < packs; i += Threads) write(pack(i), i);
  }
};

}  // namespace q::cuda
