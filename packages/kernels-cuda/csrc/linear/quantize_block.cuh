// Few rows of x to int8 by blocks of the product that needs them: what quantize_rows does in a launch of its own, for
// products of at most 16 rows. A block quantizes a row for itself, in shared memory, or for all blocks (meet.cuh),
// while their first weights are on the way from memory.
// maths   as quantize_rows: the same absmax, codes and outliers, bit by bit (a NaN, and without a threshold an
//         infinity, may get code -1 instead of 0); as norm.cu if rmsNorm comes first An outlier is kept as an integer
//         of 24 bits times a power of two, as three digits of 8 bits: of f16 it loses nothing down to a 2048th of the
//         row's largest
// layout  codes [Rows, k] (0: an outlier), a byte for every 64 values that says whether outliers are among them [Rows,
//         k / 64], the rows' absmax and units of outliers (0: none), the outliers' digits [3, Rows, k] (0: none; not
//         written for rows without outliers)
// floor   latency: a read from the L2, two barriers, 5 instructions a value; a launch of quantize_rows costs about 3 us
//         instead
// needs   k % 64 == 0, x aligned to 16 bytes; test csrc/test/linear.cu (products against those of rows from
//         quantize_rows, bit by bit)
#pragma once
#include "../quant/rounding.cuh"
#include "launch.h"
#include "problem.h"
#include "row_shapes.h"

namespace q::cuda {

template <class T, int Threads, int Rows>
struct BlockRows {
  using Shape = BlockRowsShape<Threads, Rows>;
  static constexpr int kWarps = Shape::kWarps, kKept = Shape::kKept, kScratchBytes = Shape::kScratchBytes,
                       kDigits = Shape::kDigits, kFlagged = Shape::kFlagged;
  uint8_t* memory;    // shared, or where all blocks can read it
  uint32_t* largest;  // shared scratch
  int k;

  static __device__ int absmax_at(int k) { return Shape::absmax_at(k); }
  static __device__ int digits_at(int k) { return Shape::digits_at(k); }

  __device__ int8_t* codes(int row) const { return reinterpret_cast<int8_t*>(memory) + row * k; }
  __device__ int8_t* digits(int digit, int row) const {
    return reinterpret_cast<int8_t*>(memory + digits_at(k)) + (digit * Rows + row) * k;
  }
  __device__ uint8_t* flags(int row) const { return memory + Rows * k + row * (k / kFlagged); }
  __device__ float& absmax(int row) const { return reinterpret_cast<float*>(memory + absmax_at(k))[row]; }
  __device__ float& unit(int row) const { return reinterpret_cast<float*>(memory + absmax_at(k))[Rows + row]; }

  /// Of outliers up to `largest`: they are at most 2^22 units. Infinity: not a number, so that the row's results are
  /// not either.
  static __device__ __forceinline__ float unit_of(float largest) {
    const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);  // largest < 2^(exponent - 126)
    return exponent == 255 ? __uint_as_float(0x7fc00000u)
                           : __uint_as_float(static_cast<uint32_t>(max(exponent + 1 - 22, 1)) << 23);
  }

  using Pair = std::conditional_t<std::is_same_v<T, half_t>, __half2, __nv_bfloat162>;
  static __device__ __forceinline__ Pair pair_of(uint32_t bits) { return *reinterpret_cast<const Pair*>(&bits); }

  static __device__ __forceinline__ void prefetch(const RowNorm& norm, int k) {
    if (norm.weight && threadIdx.x % 4 == 0)
      for (int i = threadIdx.x; i < k / 8; i += Threads) prefetch_l2(static_cast<const T*>(norm.weight) + i * 8);
  }
  /// rmsNorm of a row whose packs are kept, stored to `out` and, if not null, to `more`; the same bits as norm.cu's,
  /// whose threads take a pack each.
  __device__ __forceinline__ void normalize(uint4 (&kept)[kKept], const RowNorm& norm, T* out, T* more) const {
    const int thread = threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, packs = k / 8;
    float* partial = reinterpret_cast<float*>(largest + 2 * kWarps);
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
      for (int j = 0; j < 8; ++j)
        values[j] = from_float<T>(fmaf(to_float(values[j]) * scale, to_float(weight[j]) + norm.offset, 0.f));
      reinterpret_cast<uint4*>(out)[i * Threads + thread] = kept[i];
      if (more) reinterpret_cast<uint4*>(more)[i * Threads + thread] = kept[i];
    }
  }

  /// The largest of values that are not negative, as bits, which are ordered like them.
  static __device__ __forceinline__ uint32_t warp_max(float x) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffffu, __float_as_uint(x));
#else
    return __float_as_uint(warp_reduce<Max>(x));
#endif
  }
  /// false: there is no outlier among these values, and nothing was written.
  __device__ bool write_digits(const uint4& v, int i, int row, float threshold, float units) const {
    const T* values = reinterpret_cast<const T*>(&v);
    Pack<int8_t, 8> to[kDigits] = {};
    bool any = false;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (!(fabsf(to_float(values[j])) >= threshold)) continue;
      any = true;
      int left = __float2int_rn(to_float(values[j]) * units);
#pragma unroll
      for (int d = 0; d < kDigits; ++d) to[d].v[j] = static_cast<int8_t>(left), left = (left - to[d].v[j]) >> 8;
    }
    if (!any) return false;
#pragma unroll
    for (int d = 0; d < kDigits; ++d) reinterpret_cast<Pack<int8_t, 8>*>(digits(d, row))[i] = to[d];
    return true;
  }

  /// The whole block calls; what it writes can be read after the next barrier. norm: of the row first, if it has a
  /// weight (k to kMostNormed); what it gives is stored to norm_out and, if not null, to norm_more.
  __device__ void quantize(const T* x, int row, float threshold, const RowNorm& norm, T* norm_out, T* norm_more) const {
    const int thread = threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, packs = k / 8;
    x += static_cast<int64_t>(row) * k;
    const auto pack = [&](int i) { return *reinterpret_cast<const uint4*>(x + i * 8); };
    uint4 kept[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      kept[i] = i * Threads + thread < packs ? pack(i * Threads + thread) : make_uint4(0, 0, 0, 0);
    if (norm.weight) {
      normalize(kept, norm, norm_out, norm_more);
      x = norm_out;
    }
    // A thread that has no outlier, which is usual, is done with a few instructions a value; for one that has, every
    // value is looked at again.
    Pair largest_pair = pair_of(0);
    const auto widen = [&](const uint4& v) {
      largest_pair = __hmax2(__hmax2(largest_pair, __hmax2(__habs2(pair_of(v.x)), __habs2(pair_of(v.y)))),
                             __hmax2(__habs2(pair_of(v.z)), __habs2(pair_of(v.w))));
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i) widen(kept[i]);
#pragma unroll 1
    for (int i = kKept * Threads + thread; i < packs; i += Threads) widen(pack(i));
    float most = fmaxf(to_float(largest_pair.x), to_float(largest_pair.y)), most_outlying = 0.f;
    const bool outliers = threshold > 0.f && most >= threshold;
    if (outliers) {
      most_outlying = most, most = 0.f;
#pragma unroll 1
      for (int i = thread; i < packs; i += Threads) {
        const uint4 v = pack(i);
        const T* values = reinterpret_cast<const T*>(&v);
#pragma unroll
        for (int j = 0; j < 8; ++j)
          if (fabsf(to_float(values[j])) < threshold) most = fmaxf(most, fabsf(to_float(values[j])));
      }
    }
    const uint32_t warp_most = warp_max(most), warp_outlying = warp_max(most_outlying);
    if (lane == 0) largest[warp] = warp_most, largest[kWarps + warp] = warp_outlying;
    const bool any = __syncthreads_or(outliers);
    uint32_t all = 0, outlying = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) all = max(all, largest[w]);
    if (any)
#pragma unroll
      for (int w = 0; w < kWarps; ++w) outlying = max(outlying, largest[kWarps + w]);
    const float scale = all ? fast_divide(127.f, __uint_as_float(all)) : 0.f,
                of_outliers = any ? unit_of(__uint_as_float(outlying)) : 0.f;
    if (thread == 0) absmax(row) = __uint_as_float(all), unit(row) = of_outliers;
    if (any || Rows > 1) {
      for (int i = thread; i < (packs + 31) / 32 * 32; i += Threads) {
        const bool here = outliers && i < packs && write_digits(pack(i), i, row, threshold, 1.f / of_outliers);
        if (any && !here && i < packs)
#pragma unroll
          for (int d = 0; d < kDigits; ++d) reinterpret_cast<uint2*>(digits(d, row))[i] = make_uint2(0, 0);
        const uint32_t flagged = __ballot_sync(0xffffffffu, here);
        if (Rows > 1 && lane % 8 == 0 && i < packs) flags(row)[i / 8] = (flagged >> lane & 255) != 0;
      }
    }
    if (outliers) {
#pragma unroll 1
      for (int i = thread; i < packs; i += Threads) {
        const uint4 v = pack(i);
        const T* values = reinterpret_cast<const T*>(&v);
        Pack<int8_t, 8> to;
#pragma unroll
        for (int j = 0; j < 8; ++j)
          to.v[j] = fabsf(to_float(values[j])) >= threshold
                        ? 0
                        : static_cast<int8_t>(__float2int_rn(to_float(values[j]) * scale));
        reinterpret_cast<Pack<int8_t, 8>*>(codes(row))[i] = to;
      }
      return;
    }
    const auto write = [&](const uint4& v, int i) {
      const T* values = reinterpret_cast<const T*>(&v);
      uint32_t q[8];  // the code in the lowest bits: 1.5 * 2^23 rounds as __float2int_rn does
#pragma unroll
      for (int j = 0; j < 8; ++j) q[j] = __float_as_uint(__fadd_rn(__fmul_rn(to_float(values[j]), scale), 12582912.f));
      const auto four = [&](int j) {
        return __byte_perm(__byte_perm(q[j], q[j + 1], 0x0040), __byte_perm(q[j + 2], q[j + 3], 0x0040), 0x5410);
      };
      reinterpret_cast<uint2*>(codes(row))[i] = make_uint2(four(0), four(4));
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i)
      if (i * Threads + thread < packs) write(kept[i], i * Threads + thread);
#pragma unroll 1
    for (int i = kKept * Threads + thread; i < packs; i += Threads) write(pack(i), i);
  }
};

}  // namespace q::cuda
