// quantize_rows: x [rows, k] to int8 by the row's absmax for LLM.int8, outliers set aside; int8 products of few rows
// that row8.cuh does not take
// maths   absmax over |x| < threshold (threshold 0: over all), NaN where one is; code = round(x * (127 / absmax)), 0
//         for outliers; a row looks at itself only
// floor   3 bytes an element: 16 x 4096 0.2 MB, so launch latency (about 3 us, under the product's first weight loads)
// launch  a block of 512 threads a row, 8 values a thread and step; outliers are listed in order of k, cut at every
//         kOutlierSlice
// exact   codes and scales equal bitsandbytes' int8_vectorwise_quant for one row (rounding.cuh); test
//         csrc/test/linear.cu
#include "../quant/choice.h"
#include "../quant/rounding.cuh"
#include "launch.h"
#include "stream.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 512;

struct Lists {
  int8_t* codes;
  float* scales;
  int* starts;
  int* columns;
  float* values;
  int slices;
};

/// Exclusive sum over the block in thread order; `total` is the block's sum.
__device__ int block_scan(int x, int* shared, int& total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sum = warp_scan(x);
  __syncthreads();
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w == warp) before = total;
    total += shared[w];
  }
  return before + sum - x;
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) quantize_rows_kernel(const T* x, int64_t k, float threshold, Lists lists) {
  __shared__ float reduce[32];
  __shared__ int scan[32];
  pdl_begin();
  const int64_t row = blockIdx.x;
  x += row * k;
  const auto is_outlier = [&](float value) { return threshold > 0.f && fabsf(value) >= threshold; };
  float absmax = 0.f;
  bool any = false;
  float v[V];  // a row of one step is loaded once
  for (int64_t i = threadIdx.x * V; i < k; i += kThreads * V) {
    load(v, x + i);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (is_outlier(v[j]))
        any = true;
      else
        absmax = max_abs(absmax, v[j]);
    }
  }
  absmax = block_reduce<MaxAbs>(absmax, reduce);
  any = __syncthreads_or(any);
  if (threadIdx.x == 0) lists.scales[row] = absmax;
  const float scale = fast_divide(127.f, absmax);
  int* starts = lists.starts + row * (lists.slices + 1);
  int base = 0;
  for (int64_t first = 0; first < k; first += kThreads * V) {
    const int64_t i = first + threadIdx.x * V;
    int count = 0;
    if (i < k) {
      if (k > kThreads * V) load(v, x + i);
      Pack<int8_t, V> codes;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const bool outlier = is_outlier(v[j]);
        codes.v[j] = outlier ? 0 : static_cast<int8_t>(__float2int_rn(v[j] * scale));
        count += outlier;
      }
      *reinterpret_cast<Pack<int8_t, V>*>(lists.codes + row * k + i) = codes;
    }
    int at = 0, total = 0;
    if (any) {
      at = base + block_scan(count, scan, total);
      base += total;
    }
    if (i >= k) continue;
    if (lists.slices && i % kOutlierSlice == 0) starts[i / kOutlierSlice] = at;
    if (!any || count == 0) continue;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (!is_outlier(v[j])) continue;
      lists.columns[row * k + at] = static_cast<int>(i + j);
      lists.values[row * k + at] = v[j];
      ++at;
    }
  }
  if (lists.slices && threadIdx.x == 0) starts[lists.slices] = base;
}

template <class T>
void launch_rows(const void* x, int64_t rows, int64_t k, float threshold, const Lists& lists, Context& context) {
  const auto choice = choose_quantize_rows(k, aligned16(x) && aligned16(lists.codes));
  const auto kernel = choice.kernel == QuantizeRowsKernel::packs ? quantize_rows_kernel<T, (sizeof(T) == 4 ? 4 : 8)>
                                                                 : quantize_rows_kernel<T, 1>;
  launch(context, "quantize rows", kernel, static_cast<unsigned>(rows), kThreads, 0, static_cast<const T*>(x), k,
         threshold, lists);
}

}  // namespace

template <class T>
QuantizedRows quantize_rows(const void* x, int rows, int64_t k, float threshold, Context& context) {
  Lists lists{};
  lists.slices = threshold > 0.f ? static_cast<int>((k + kOutlierSlice - 1) / kOutlierSlice) : 0;
  lists.codes = context.workspace.take_array<int8_t>(rows * k);
  lists.scales = context.workspace.take_array<float>(rows);
  lists.starts = context.workspace.take_array<int>(static_cast<int64_t>(rows) * (lists.slices + 1));
  lists.columns = context.workspace.take_array<int>(lists.slices ? rows * k : 1);
  lists.values = context.workspace.take_array<float>(lists.slices ? rows * k : 1);
  launch_rows<T>(x, rows, k, threshold, lists, context);
  return {lists.codes, lists.scales, lists.starts, lists.columns, lists.values, lists.slices};
}

template <class T>
void quantize_weight(const void* x, int8_t* codes, float* scales, int64_t rows, int64_t k, Context& context) {
  launch_rows<T>(x, rows, k, 0.f, {codes, scales, nullptr, nullptr, nullptr, 0}, context);
}

template QuantizedRows quantize_rows<float>(const void*, int, int64_t, float, Context&);
template QuantizedRows quantize_rows<half_t>(const void*, int, int64_t, float, Context&);
template QuantizedRows quantize_rows<bfloat_t>(const void*, int, int64_t, float, Context&);
template void quantize_weight<float>(const void*, int8_t*, float*, int64_t, int64_t, Context&);
template void quantize_weight<half_t>(const void*, int8_t*, float*, int64_t, int64_t, Context&);
template void quantize_weight<bfloat_t>(const void*, int8_t*, float*, int64_t, int64_t, Context&);

}  // namespace q::cuda
