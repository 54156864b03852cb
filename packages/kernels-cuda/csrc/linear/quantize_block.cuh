// Few rows of x to int8 by blocks of the product that needs them: what quantize_rows does in a launch of its own, for products of at most 16 rows. A block
// quantizes a row for itself, in shared memory, or for all blocks (meet.cuh), while their first weights are on the way from memory.
// maths   as quantize_rows: the same absmax, codes and outliers, bit by bit (a NaN, and without a threshold an infinity, may get code -1 instead of 0); as norm.cu
//         if rmsNorm comes first
// layout  codes [Rows, k], a bit a value that says "outlier" [Rows, k rounded up to 128], the rows' absmax, whose sign says whether there are outliers
// floor   latency: a read from the L2, two barriers, 5 instructions a value; a launch of quantize_rows costs about 3 us instead
// needs   k % 64 == 0, x aligned to 16 bytes       test  csrc/test/linear.cu (products against those of rows from quantize_rows, bit by bit)
#pragma once
#include "../quant/rounding.cuh"
#include "launch.h"
#include "problem.h"

namespace q::cuda {

template <class T, int Threads, int Rows> struct BlockRows {
  static constexpr int kWarps = Threads / 32, kKept = 2;  // packs of 8 values that a thread keeps in registers; what a longer row has more is read again
  static constexpr int kMostNormed = kKept * Threads * 8;
  static constexpr int kScratchBytes = kWarps * 4 * (1 + kKept);
  uint8_t* memory;    // shared, or where all blocks can read it
  uint32_t* largest;  // shared scratch
  int k;

  static __host__ __device__ int mask_bytes(int k) { return (k + 127) / 128 * 16; }
  static __host__ __device__ int absmax_at(int k) { return Rows * (k + mask_bytes(k)); }
  static __host__ __device__ int bytes(int k) { return absmax_at(k) + (Rows + 3) / 4 * 16; }

  __device__ const int8_t* codes() const { return reinterpret_cast<const int8_t*>(memory); }
  __device__ uint8_t* mask(int row) const { return memory + Rows * k + row * mask_bytes(k); }
  __device__ uint32_t& signed_absmax(int row) const { return reinterpret_cast<uint32_t*>(memory + absmax_at(k))[row]; }
  __device__ float absmax(int row) const { return __uint_as_float(signed_absmax(row) & 0x7fffffffu); }
  __device__ bool has_outliers(int row) const { return signed_absmax(row) >> 31; }

  using Pair = std::conditional_t<std::is_same_v<T, half_t>, __half2, __nv_bfloat162>;
  static __device__ __forceinline__ Pair pair_of(uint32_t bits) { return *reinterpret_cast<const Pair*>(&bits); }

  static __device__ __forceinline__ void prefetch(const RowNorm& norm, int k) {
    if (norm.weight && threadIdx.x % 4 == 0)
      for (int i = threadIdx.x; i < k / 8; i += Threads) prefetch_l2(static_cast<const T*>(norm.weight) + i * 8);
  }
  /// rmsNorm of a row whose packs are kept, stored to `out` and, if not null, to `more`; the same bits as norm.cu's, whose threads take a pack each.
  __device__ __forceinline__ void normalize(uint4 (&kept)[kKept], const RowNorm& norm, T* out, T* more) const {
    const int thread = threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, packs = k / 8;
    float* partial = reinterpret_cast<float*>(largest + kWarps);
    uint4 weights[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      if (i * Threads + thread < packs) weights[i] = reinterpret_cast<const uint4*>(norm.weight)[i * Threads + thread];
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const T* values = reinterpret_cast<const T*>(&kept[i]);
      float sum = 0.f;
#pragma unroll
      for (int j = 0; j < 8; ++j) sum = fmaf(to_float(values[j]), to_float(values[j]), sum);
      sum = warp_reduce<Sum>(sum);
      if (lane == 0) partial[i * kWarps + warp] = sum;
    }
    __syncthreads();
    static_assert(kKept * kWarps == 32);
    const float scale = 1.f / sqrtf(warp_reduce<Sum>(partial[lane]) / static_cast<float>(k) + norm.eps);
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (i * Threads + thread >= packs) continue;
      T* values = reinterpret_cast<T*>(&kept[i]);
      const T* weight = reinterpret_cast<const T*>(&weights[i]);
#pragma unroll
      for (int j = 0; j < 8; ++j) values[j] = from_float<T>(fmaf(to_float(values[j]) * scale, to_float(weight[j]) + norm.offset, 0.f));
      reinterpret_cast<uint4*>(out)[i * Threads + thread] = kept[i];
      if (more) reinterpret_cast<uint4*>(more)[i * Threads + thread] = kept[i];
    }
  }

  /// The whole block calls; what it writes can be read after the next barrier. norm: of the row first, if it has a weight (k to kMostNormed); what it gives is
  /// stored to norm_out and, if not null, to norm_more.
  __device__ void quantize(const T* x, int row, float threshold, const RowNorm& norm, T* norm_out, T* norm_more) const {
    const int thread = threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, packs = k / 8;
    x += static_cast<int64_t>(row) * k;
    uint8_t* codes_to = memory + static_cast<int64_t>(row) * k;
    uint8_t* mask_to = mask(row);
    const auto pack = [&](int i) { return *reinterpret_cast<const uint4*>(x + i * 8); };
    uint4 kept[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i) kept[i] = i * Threads + thread < packs ? pack(i * Threads + thread) : make_uint4(0, 0, 0, 0);
    if (norm.weight) {
      normalize(kept, norm, norm_out, norm_more);
      x = norm_out;
    }
    // A thread that has no outlier, which is usual, is done with a few instructions a value; for one that has, every value is looked at again.
    Pair largest_pair = pair_of(0);
    const auto widen = [&](const uint4& v) {
      largest_pair = __hmax2(__hmax2(largest_pair, __hmax2(__habs2(pair_of(v.x)), __habs2(pair_of(v.y)))), __hmax2(__habs2(pair_of(v.z)), __habs2(pair_of(v.w))));
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i) widen(kept[i]);
#pragma unroll 1
    for (int i = kKept * Threads + thread; i < packs; i += Threads) widen(pack(i));
    float most = fmaxf(to_float(largest_pair.x), to_float(largest_pair.y));
    const bool outliers = threshold > 0.f && most >= threshold;
    if (outliers) {
      most = 0.f;
#pragma unroll 1
      for (int i = thread; i < packs; i += Threads) {
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
      for (int i = thread; i < packs; i += Threads) mask_to[i] = 0;
    }
    if (thread < 8 && k % 128) mask_to[k / 8 + thread] = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t warp_most = __reduce_max_sync(0xffffffffu, __float_as_uint(most));  // not negative: ordered like their bits
#else
    const uint32_t warp_most = __float_as_uint(warp_reduce<Max>(most));
#endif
    if (lane == 0) largest[warp] = warp_most;
    const bool any = __syncthreads_or(outliers);
    uint32_t all = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) all = max(all, largest[w]);
    const float absmax = __uint_as_float(all), scale = all ? fast_divide(127.f, absmax) : 0.f;
    if (thread == 0) signed_absmax(row) = all | (any ? 0x80000000u : 0u);
    if (outliers) {
#pragma unroll 1
      for (int i = thread; i < packs; i += Threads) {
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
      if (i * Threads + thread < packs) write(kept[i], i * Threads + thread);
#pragma unroll 1
    for (int i = kKept * Threads + thread; i < packs; i += Threads) write(pack(i), i);
  }
};

}  // namespace q::cuda
