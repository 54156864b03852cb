// quantize4bit, dequantize4bit: bitsandbytes' nf4 and fp4; weights on load, on export
// maths   absmax of blockSize values over the flattened tensor; code = nearest of the book to value * (1 / absmax);
//         value = code * absmax
// layout  two codes a byte, high nibble = even index; the last block may be short, an odd count leaves the code of 0 in
//         the last low nibble
// floor   16-bit weights: 2.5 bytes a value read and written: 45 M values 27 us at 4.3 TB/s (H200)
// launch  8 values a thread; blockSize / 8 lanes (at most a warp, then in steps) share a block, no shared memory
// exact   codes, absmax and dequantized values equal bitsandbytes' goldens (rounding.cuh says why); test
//         csrc/test/quant.cu
#include "codebook.h"
#include "launch.h"
#include "quant/checks.h"
#include "rounding.cuh"

namespace q::cuda {
namespace {

constexpr int kThreads = 256, kValues = 8;

/// Edges between neighbouring nf4 codes, ascending, as bitsandbytes has them: a value on an edge takes the lower code,
/// NaN takes 0.
__device__ __forceinline__ int nf4_code(float x) {
  constexpr float kEdges[15] = {
      -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
      -0.13791173696517944f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
      0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784032106400f};
  int code = 0;
#pragma unroll
  for (int i = 0; i < 15; ++i) code += x > kEdges[i];
  return code;
}

/// fp4: a sign bit, and magnitudes in the order 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1 as codes 0, 1, 6, 7, 4, 5, 2, 3.
__device__ __forceinline__ int fp4_code(float x) {
  const float a = fabsf(x);
  int code;
  if (a > 0.29166667f)
    code = a > 0.583333f ? (a > 0.8333333f ? 3 : 2) : (a > 0.4166667f ? 5 : 4);
  else
    code = a > 0.0859375f ? (a > 0.20833333f ? 7 : 6) : (a > 0.00260417f ? 1 : 0);
  return code | (x < 0.f ? 8 : 0);
}

template <class T>
__device__ __forceinline__ void load_some(float (&v)[kValues], const T* x, int64_t at, int64_t count, bool whole) {
  if (whole && at + kValues <= count) {
    if constexpr (sizeof(T) == 2) {
      load(v, x + at);
    } else {
      float low[4], high[4];
      load(low, x + at);
      load(high, x + at + 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = low[i], v[i + 4] = high[i];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kValues; ++i) v[i] = at + i < count ? to_float(x[at + i]) : 0.f;
}

/// A team of `team` lanes (a power of two, at most 32) takes one block at a time.
template <class T>
__global__ void __launch_bounds__(kThreads) quantize4bit(const T* x, uint8_t* codes, float* absmax, int64_t count,
                                                         int block_size, int team, QuantType type, bool whole) {
  pdl_wait();
  const int64_t block = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / team;
  const int member = threadIdx.x % team;
  const int64_t begin = block * block_size;
  const int64_t end = min(begin + block_size, count);
  float most = 0.f, v[kValues];
  for (int64_t i = begin + member * kValues; i < end; i += team * kValues) {
    load_some(v, x, i, end, whole);
#pragma unroll
    for (int j = 0; j < kValues; ++j) most = max_abs(most, v[j]);
  }
  for (int o = team / 2; o > 0; o >>= 1) most = max_abs(most, __shfl_xor_sync(0xffffffffu, most, o));
  most = flushed(most);
  if (begin >= count) return;
  if (member == 0) absmax[block] = most;
  const float inverse = fast_reciprocal(most);
  for (int64_t i = begin + member * kValues; i < end; i += team * kValues) {
    load_some(v, x, i, end, whole);
    Pack<uint8_t, 4> packed;
#pragma unroll
    for (int j = 0; j < kValues; j += 2) {
      const float a = flushed_multiply(v[j], inverse), b = flushed_multiply(v[j + 1], inverse);
      packed.v[j / 2] = type == QuantType::nf4 ? nf4_code(a) << 4 | nf4_code(b) : fp4_code(a) << 4 | fp4_code(b);
    }
    if (i + kValues <= end && (reinterpret_cast<uintptr_t>(codes) & 3) == 0) {
      *reinterpret_cast<Pack<uint8_t, 4>*>(codes + i / 2) = packed;
    } else {
#pragma unroll
      for (int j = 0; j < kValues; j += 2)
        if (i + j < end) codes[(i + j) / 2] = packed.v[j / 2];
    }
  }
}

__constant__ float kBooks[2][16] = {{kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8],
                                     kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
                                    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8],
                                     kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

template <class T>
__global__ void __launch_bounds__(kThreads)
    dequantize4bit(const uint8_t* codes, LinearPartView w, T* out, int64_t count, QuantType type, bool whole) {
  __shared__ float book[16];
  if (threadIdx.x < 16) book[threadIdx.x] = kBooks[static_cast<int>(type)][threadIdx.x];
  __syncthreads();
  pdl_wait();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kValues;
  if (i >= count) return;
  const float absmax = block_absmax(w, i >> w.block_shift);
  float v[kValues];
#pragma unroll
  for (int j = 0; j < kValues; ++j)
    v[j] = i + j < count ? book[j & 1 ? codes[(i + j) / 2] & 15 : codes[(i + j) / 2] >> 4] * absmax : 0.f;
  if (whole && i + kValues <= count) {
    if constexpr (sizeof(T) == 2) return store(out + i, v);
  }
#pragma unroll
  for (int j = 0; j < kValues; ++j)
    if (i + j < count) out[i + j] = from_float<T>(v[j]);
}

}  // namespace

void run(const Quantize4bitArgs& a, Context& context) {
  if (a.count == 0) return;
  power_of_two("blockSize", a.block_size, kValues);
  const int team = static_cast<int>(std::min<int64_t>(32, a.block_size / kValues));
  const int64_t blocks = (a.count + a.block_size - 1) / a.block_size;
  with_float(a.x.dtype, "quantize4bit", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "quantize4bit", quantize4bit<T>, blocks_for(blocks * team, kThreads), kThreads, 0,
           a.x.as<const T>(), a.codes.as<uint8_t>(), a.absmax.as<float>(), a.count, static_cast<int>(a.block_size),
           team, static_cast<QuantType>(a.quant_type), aligned16(a.x.data));
  });
}

void run(const Dequantize4bitArgs& a, Context& context) {
  if (a.count == 0) return;
  LinearPartView w{};
  w.absmax = a.absmax.data;
  w.nested_absmax = a.nested_absmax.as<const float>();
  w.nested_code = a.nested_code.as<const float>();
  w.offset = a.offset.as<const float>();
  w.block_shift = power_of_two("blockSize", a.block_size, kValues);
  if (w.nested_absmax) {
    w.nested_shift = power_of_two("nestedBlockSize", a.nested_block_size, 1);
  }
  with_float(a.out.dtype, "dequantize4bit", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "dequantize4bit", dequantize4bit<T>, blocks_for(a.count, kThreads * kValues), kThreads, 0,
           a.codes.as<const uint8_t>(), w, a.out.as<T>(), a.count, static_cast<QuantType>(a.quant_type),
           aligned16(a.out.data));
  });
}

}  // namespace q::cuda
