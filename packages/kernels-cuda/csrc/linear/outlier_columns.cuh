// The outliers' part of an int8 product of few rows of x: the columns of W that it needs are kept while W passes by.
// maths   sum over a row's outliers, in the order of k, of W (codes times absmax / 127, in x's dtype) times the outlier, in f32
// layout  shared memory: which columns hold an outlier in any row, as bits; of up to `kept` of them the codes of W [kept, stride]; each row's outliers as a list.
//         Where there are more columns, W is fetched again from memory for the next, until all are done. Slices are 32 values of k.
// exact   a row's sum does not depend on the other rows, nor on how many columns are kept
// test    csrc/test/linear.cu (thresholds from every value to none)
#pragma once
#include "device.cuh"

namespace q::cuda {

/// Threads: of the block. MostRows: of x.
template <class T, int Threads, int MostRows> struct OutlierColumns {
  static constexpr int kSlice = 32, kLeastKept = kSlice;
  struct Outlier {
    uint16_t column;  // of those that are kept
    T value;
  };
  uint32_t* any;     // [slices] bits: whether a row has an outlier there
  int* before;       // [slices + 1] columns with outliers
  int* counts;       // [rows] outliers in the lists
  Outlier* lists;    // [rows, kept]
  int8_t* codes;     // [kept, stride]
  float* sums;       // [rows, stride], apart: only add needs them
  int slices, rows, stride, kept;  // stride: rows of W in the group, 16 for each tile; kept: at least kLeastKept

  static __host__ __device__ int table_bytes(int k) { return (k / kSlice * 8 + 4 + MostRows * 4 + 15) / 16 * 16; }
  static __host__ __device__ int column_bytes(int rows, int stride) { return rows * static_cast<int>(sizeof(Outlier)) + stride; }

  __device__ OutlierColumns(uint8_t* shared, float* sums, int k, int rows, int stride, int kept)
      : any(reinterpret_cast<uint32_t*>(shared)), before(reinterpret_cast<int*>(any + k / kSlice)), counts(before + k / kSlice + 1),
        lists(reinterpret_cast<Outlier*>(shared + table_bytes(k))), codes(reinterpret_cast<int8_t*>(lists + rows * kept)), sums(sums), slices(k / kSlice), rows(rows), stride(stride), kept(kept) {}

  static __device__ __forceinline__ int lowest(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }

  /// One warp: keeps a slice of W, of 16 rows `pitch` bytes apart, the first of which is number `at` in the group. Only slices before end(0).
  __device__ __forceinline__ void keep(int slice, const uint8_t* tile, int pitch, int at) const {
    const int r = threadIdx.x % 32;
    if (r >= 16) return;
    int8_t* to = codes + before[slice] * stride + at + r;
    for (uint32_t bits = any[slice]; bits; bits &= bits - 1, to += stride) *to = static_cast<int8_t>(tile[r * pitch + lowest(bits)]);
  }
  /// How far the slices from `begin` on can be kept at once.
  __device__ int end(int begin) const {
    int end = slices;
    if (before[slices] - before[begin] > kept)
      for (end = begin; before[end + 1] - before[begin] <= kept;) ++end;
    return end;
  }

  // The whole block calls the following. What they write can be read after the next barrier. mask(m): a row's bits.

  /// Finds the columns. scratch: an int for each warp.
  template <class Mask> __device__ void find(Mask mask, int* scratch) const {
    const int warp = threadIdx.x / 32;
    int found = 0;
#pragma unroll 1
    for (int begin = 0; begin < slices; begin += Threads) {
      const int slice = begin + static_cast<int>(threadIdx.x);
      uint32_t bits = 0;
#pragma unroll
      for (int m = 0; m < MostRows; ++m)
        if (slice < slices && m < rows) bits |= mask(m)[slice];
      const int own = __popc(bits);
      int to_here = warp_scan(own);
      if (threadIdx.x % 32 == 31) scratch[warp] = to_here;
      __syncthreads();
      int all = 0;
#pragma unroll
      for (int w = 0; w < Threads / 32; ++w) {
        if (w == warp) to_here += all;
        all += scratch[w];
      }
      if (slice < slices) any[slice] = bits, before[slice] = found + to_here - own;
      found += all;
      __syncthreads();
    }
    if (threadIdx.x == 0) before[slices] = found;
  }

  /// Lists the rows' outliers of some slices. A warp takes 32 slices of a row.
  template <class Mask> __device__ void list(const T* x, Mask mask, int begin, int end) const {
    const int lane = threadIdx.x % 32, parts = (end - begin + 31) / 32;
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < rows * parts; i += Threads / 32) {
      const int m = i / parts, part = i % parts, slice = begin + part * 32 + lane;
      int earlier = 0;
#pragma unroll 1
      for (int other = begin + lane; other < slice; other += 32) earlier += __popc(mask(m)[other]);
      uint32_t bits = slice < end ? mask(m)[slice] : 0;
      const int own = __popc(bits), first = __shfl_sync(0xffffffffu, warp_scan(earlier), 31), to_here = warp_scan(own);
      Outlier* to = lists + m * kept + first + to_here - own;
#pragma unroll 1
      for (; bits; bits &= bits - 1) {
        const int bit = lowest(bits);
        *to++ = {static_cast<uint16_t>(before[slice] - before[begin] + __popc(any[slice] & ((1u << bit) - 1))), x[(m * slices + slice) * kSlice + bit]};
      }
      if (part == parts - 1 && lane == 31) counts[m] = first + to_here;
    }
  }

  /// Fetches W of some slices; row(i): row i of the group, null: there is none.
  template <class Row> __device__ void fetch(int begin, int end, Row row) const {
#pragma unroll 1
    for (int slice = begin + threadIdx.x / 32; slice < end; slice += Threads / 32) {
      int8_t* to = codes + (before[slice] - before[begin]) * stride;
#pragma unroll 1
      for (uint32_t bits = any[slice]; bits; bits &= bits - 1, to += stride)
        for (int i = threadIdx.x % 32; i < stride; i += 32)
          if (const int8_t* w = row(i)) to[i] = w[slice * kSlice + lowest(bits)];
    }
  }

  /// Adds what is listed to the sums, of the first slices: to 0. absmax: of the group's rows of W.
  __device__ void add(bool first, const float* absmax) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * stride; i += Threads) {
      const int m = i / stride, at = i % stride, count = counts[m];
      const Outlier* list = lists + m * kept;
      const float scale = absmax[at];
      float s = first ? 0.f : sums[i];
#pragma unroll 8
      for (int j = 0; j < count; ++j) {
        const float w = static_cast<float>(codes[list[j].column * stride + at]) * scale * (1.f / 127.f);
        s = fmaf(to_float(from_float<T>(w)), to_float(list[j].value), s);
      }
      sums[i] = s;
    }
  }
};

}  // namespace q::cuda
