// Few rows of x to int8 by every block that needs them, in its shared memory: what quantize_rows does in a launch of its own, for products of at most 8 rows.
// The rows are read from the L2 by all blocks (one of 4096 f16: 264 x 8 KB = 2 MB) while their first weights are on the way from memory.
// maths   as quantize_rows: the same absmax, codes and outliers, bit by bit (a NaN, and without a threshold an infinity, may get code -1 instead of 0)
// layout  Threads / Rows threads have a row. Codes [Rows, k], a bit a value that says "outlier" [Rows, k rounded up to 128], the warps'
//         largest values and the rows' absmax
// floor   latency: a read from the L2, two barriers, 5 instructions a value; a launch of quantize_rows costs about 3 us instead (11008 x 4096, 4 rows: 16.6 us,
//         this 14.2)
// needs   k % 64 == 0, x aligned to 16 bytes       test  csrc/test/linear.cu (rows against the same rows in a batch, bit by bit)
#pragma once
#include "../quant/rounding.cuh"
#include "problem.h"

namespace q::cuda {

template <class T, int Threads, int Rows> struct BlockRows {
  static constexpr int kRowThreads = Threads / Rows, kRowWarps = kRowThreads / 32;
  uint8_t* shared;
  int k;

  static __host__ __device__ int mask_bytes(int k) { return (k + 127) / 128 * 16; }
  static __host__ __device__ int largest_at(int k) { return Rows * (k + mask_bytes(k)); }
  static __host__ __device__ int bytes(int k) { return largest_at(k) + 128; }

  __device__ const int8_t* codes() const { return reinterpret_cast<const int8_t*>(shared); }
  __device__ uint8_t* mask(int row) const { return shared + Rows * k + row * mask_bytes(k); }
  /// Outliers of the 128 values that start at 128 * slice.
  __device__ uint4 outliers(int row, int slice) const { return reinterpret_cast<const uint4*>(mask(row))[slice]; }
  __device__ float absmax(int row) const { return reinterpret_cast<const float*>(shared + largest_at(k))[Threads / 32 + row]; }

  using Pair = std::conditional_t<std::is_same_v<T, half_t>, __half2, __nv_bfloat162>;
  static __device__ __forceinline__ Pair pair_of(uint32_t bits) { return *reinterpret_cast<const Pair*>(&bits); }

  /// The whole block calls; what it writes can be read after the next barrier.
  __device__ void quantize(const T* x, int rows, float threshold) const {
    constexpr int kKept = Rows >= 4 ? Rows * 2 : 6;  // of 8 values each, in registers; what a longer row has more is read again
    const int row = threadIdx.x / kRowThreads, thread = threadIdx.x % kRowThreads, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int packs = row < rows ? k / 8 : 0;
    x += static_cast<int64_t>(row) * k;
    uint8_t* codes_to = shared + row * k;
    uint8_t* mask_to = mask(row);
    uint32_t* largest = reinterpret_cast<uint32_t*>(shared + largest_at(k));
    const auto pack = [&](int i) { return *reinterpret_cast<const uint4*>(x + i * 8); };
    uint4 kept[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i) kept[i] = i * kRowThreads + thread < packs ? pack(i * kRowThreads + thread) : make_uint4(0, 0, 0, 0);
    // A thread that has no outlier, which is usual, is done with a few instructions a value; for one that has, every value is looked at again.
    Pair largest_pair = pair_of(0);
    const auto widen = [&](const uint4& v) {
      largest_pair = __hmax2(__hmax2(largest_pair, __hmax2(__habs2(pair_of(v.x)), __habs2(pair_of(v.y)))), __hmax2(__habs2(pair_of(v.z)), __habs2(pair_of(v.w))));
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i) widen(kept[i]);
#pragma unroll 1
    for (int i = kKept * kRowThreads + thread; i < packs; i += kRowThreads) widen(pack(i));
    float most = fmaxf(to_float(largest_pair.x), to_float(largest_pair.y));
    const bool outliers = threshold > 0.f && most >= threshold;
    if (outliers) {
      most = 0.f;
#pragma unroll 1
      for (int i = thread; i < packs; i += kRowThreads) {
        const uint4 v = pack(i);
        const T* values = reinterpret_cast<const T*>(&v);
        uint32_t out = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float f = fabsf(to_float(values[j]));
          if (f < threshold) most = fmaxf(most, f);
          out |= (f >= threshold ? 1u : 0u) << j;
        }
        mask_to[i] = static_cast<uint8_t>(out);
      }
    } else {
#pragma unroll 1
      for (int i = thread; i < packs; i += kRowThreads) mask_to[i] = 0;
    }
    if (thread < 8 && k % 128) mask_to[k / 8 + thread] = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t warp_most = __reduce_max_sync(0xffffffffu, __float_as_uint(most));  // not negative: ordered like their bits
#else
    const uint32_t warp_most = __float_as_uint(warp_reduce<Max>(most));
#endif
    if (lane == 0) largest[warp] = warp_most;
    __syncthreads();
    uint32_t all = 0;
#pragma unroll
    for (int w = 0; w < kRowWarps; ++w) all = max(all, largest[row * kRowWarps + w]);
    const float absmax = __uint_as_float(all), scale = all ? fast_divide(127.f, absmax) : 0.f;
    if (thread == 0) largest[Threads / 32 + row] = all;
    if (outliers) {
#pragma unroll 1
      for (int i = thread; i < packs; i += kRowThreads) {
        const uint4 v = pack(i);
        const T* values = reinterpret_cast<const T*>(&v);
        Pack<int8_t, 8> codes;
#pragma unroll
        for (int j = 0; j < 8; ++j) codes.v[j] = fabsf(to_float(values[j])) >= threshold ? 0 : static_cast<int8_t>(__float2int_rn(to_float(values[j]) * scale));
        *reinterpret_cast<Pack<int8_t, 8>*>(codes_to + i * 8) = codes;
      }
      return;
    }
    const auto write = [&](const uint4& v, int i) {
      const T* values = reinterpret_cast<const T*>(&v);
      uint32_t q[8];  // the code in the lowest bits: 1.5 * 2^23 rounds as __float2int_rn does
#pragma unroll
      for (int j = 0; j < 8; ++j) q[j] = __float_as_uint(__fadd_rn(__fmul_rn(to_float(values[j]), scale), 12582912.f));
      const auto four = [&](int j) { return __byte_perm(__byte_perm(q[j], q[j + 1], 0x0040), __byte_perm(q[j + 2], q[j + 3], 0x0040), 0x5410); };
      *reinterpret_cast<uint2*>(codes_to + i * 8) = make_uint2(four(0), four(4));
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      if (i * kRowThreads + thread < packs) write(kept[i], i * kRowThreads + thread);
#pragma unroll 1
    for (int i = kKept * kRowThreads + thread; i < packs; i += kRowThreads) write(pack(i), i);
  }
};

}  // namespace q::cuda
