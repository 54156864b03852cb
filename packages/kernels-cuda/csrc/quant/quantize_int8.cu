// quantizeInt8, dequantizeInt8: LLM.int8 weights (CB, SCB); weights on load, on export
// maths   SCB = absmax of a row; CB = round(x * (127 / SCB)); out = CB * SCB * (1 / 127), two roundings in f32
// floor   16-bit rows: 3 bytes a value, 45 M values 31 us at 4.3 TB/s (H200)
// launch  quantize: linear/quantize_rows.cu; dequantize: 8 values a thread
// exact   CB and SCB equal bitsandbytes' goldens       test  csrc/test/quant.cu
#include "launch.h"
#include "linear/stream.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 256, kValues = 8;

template <class T>
__global__ void __launch_bounds__(kThreads)
    dequantize_int8(const int8_t* codes, const float* absmax, T* out, int64_t rows, int64_t width) {
  pdl_wait();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kValues;
#pragma unroll
  for (int j = 0; j < kValues; ++j) {
    const int64_t i = first + j;
    if (i < rows * width)
      out[i] = from_float<T>(__fmul_rn(__fmul_rn(static_cast<float>(codes[i]), absmax[i / width]), 1.f / 127.f));
  }
}

}  // namespace

void run(const QuantizeInt8Args& a, Context& context) {
  if (a.rows == 0 || a.width == 0) return;
  with_float(a.x.dtype, "quantizeInt8", [&](auto zero) {
    quantize_weight<decltype(zero)>(a.x.data, a.codes.as<int8_t>(), a.absmax.as<float>(), a.rows, a.width, context);
  });
}

void run(const DequantizeInt8Args& a, Context& context) {
  if (a.rows == 0 || a.width == 0) return;
  with_float(a.out.dtype, "dequantizeInt8", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "dequantizeInt8", dequantize_int8<T>, blocks_for(a.rows * a.width, kThreads * kValues), kThreads, 0,
           a.codes.as<const int8_t>(), a.absmax.as<const float>(), a.out.as<T>(), a.rows, a.width);
  });
}

}  // namespace q::cuda
