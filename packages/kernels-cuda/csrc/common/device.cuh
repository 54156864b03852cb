// Device helpers every kernel family shares: float conversions, 16-byte access, reductions in a fixed order.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>
#include "context.h"

namespace q::cuda {

using half_t = __half;
using bfloat_t = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(half_t x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bfloat_t x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ half_t from_float<half_t>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ bfloat_t from_float<bfloat_t>(float x) {
  return __float2bfloat16_rn(x);
}

/// N values of T moved as one access of sizeof(T) * N bytes (at most 16).
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <class T>
constexpr int kPack = 16 / sizeof(T);

template <class T, int N>
__device__ __forceinline__ void load(float (&out)[N], const T* from) {
  const Pack<T, N> p = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = to_float(p.v[i]);
}
template <class T, int N>
__device__ __forceinline__ void store(T* to, const float (&in)[N]) {
  Pack<T, N> p;
#pragma unroll
  for (int i = 0; i < N; ++i) p.v[i] = from_float<T>(in[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = p;
}

struct Sum {
  static constexpr float identity = 0.f;
  __device__ __forceinline__ static float apply(float a, float b) { return a + b; }
};
struct Max {
  static constexpr float identity = -INFINITY;
  __device__ __forceinline__ static float apply(float a, float b) { return fmaxf(a, b); }
};

/// max(a, |b|) for a that is not negative; NaN where one of them is, which fmaxf would hide. The bits of such numbers
/// order as the numbers do, with NaN above infinity.
__device__ __forceinline__ float max_abs(float a, float b) {
  return __uint_as_float(max(__float_as_uint(a), __float_as_uint(b) & 0x7fffffffu));
}

/// The largest magnitude, and NaN where there is one.
struct MaxAbs {
  static constexpr float identity = 0.f;
  __device__ __forceinline__ static float apply(float a, float b) { return max_abs(a, b); }
};

template <class Op>
__device__ __forceinline__ float warp_reduce(float x) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x = Op::apply(x, __shfl_xor_sync(0xffffffffu, x, o));
  return x;
}

/// Sum of x over the lanes up to this one.
__device__ __forceinline__ int warp_scan(int x) {
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    const int other = __shfl_up_sync(0xffffffffu, x, o);
    if ((threadIdx.x & 31) >= o) x += other;
  }
  return x;
}

/// Reduction over the block, the result in every thread. Whole warps only; `shared` holds 32 floats and may be reused
/// at once.
template <class Op>
__device__ __forceinline__ float block_reduce(float x, float* shared) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  x = warp_reduce<Op>(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  return warp_reduce<Op>(lane < warps ? shared[lane] : Op::identity);
}

/// Tells the driver that data was bad (an index outside 0 to limit - 1); the next read or flush that completes fails
/// with it.
__device__ __forceinline__ void report_error(DeviceError* error, Command command, int64_t value, int64_t limit) {
  if (!error) return;
  volatile DeviceError* e = error;
  e->value = value;
  e->limit = static_cast<int>(limit);
  __threadfence_system();
  e->command = 1 + static_cast<int>(command);
}

/// Element i of a float tensor of any dtype; the branch is the same for the whole launch.
__device__ __forceinline__ float load_any(const void* data, DType dtype, int64_t i) {
  if (dtype == DType::f32) return static_cast<const float*>(data)[i];
  if (dtype == DType::f16) return to_float(static_cast<const half_t*>(data)[i]);
  return to_float(static_cast<const bfloat_t*>(data)[i]);
}
__device__ __forceinline__ void store_any(void* data, DType dtype, int64_t i, float x) {
  if (dtype == DType::f32)
    static_cast<float*>(data)[i] = x;
  else if (dtype == DType::f16)
    static_cast<half_t*>(data)[i] = from_float<half_t>(x);
  else
    static_cast<bfloat_t*>(data)[i] = from_float<bfloat_t>(x);
}
template <int N>
__device__ __forceinline__ void load_any(float (&out)[N], const void* data, DType dtype, int64_t i) {
  if (dtype == DType::f32) {
#pragma unroll
    for (int j = 0; j < N; j += 4)
      load(reinterpret_cast<float (&)[4]>(out[j]), static_cast<const float*>(data) + i + j);
  } else if (dtype == DType::f16) {
    load(out, static_cast<const half_t*>(data) + i);
  } else {
    load(out, static_cast<const bfloat_t*>(data) + i);
  }
}

/// x rounded to a float dtype.
__device__ __forceinline__ float rounded(float x, DType dtype) {
  if (dtype == DType::f16) return to_float(from_float<half_t>(x));
  if (dtype == DType::bf16) return to_float(from_float<bfloat_t>(x));
  return x;
}

inline int64_t dtype_bytes(DType dtype) { return element_bytes(dtype); }
inline int64_t count_of(const Tensor& t) { return t.bytes / dtype_bytes(t.dtype); }
inline bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

inline void require(bool ok, const char* message) {
  if (!ok) throw CommandError(message);
}

/// Calls f with a zero of the C++ type of a float dtype: with_float(t.dtype, "add", [&](auto zero) { using T =
/// decltype(zero); ... }).
template <class F>
void with_float(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f16:
      return f(half_t{});
    case DType::bf16:
      return f(bfloat_t{});
    default:
      throw CommandError(std::string(what) + ": takes f32, f16 or bf16, got dtype code " +
                         std::to_string(static_cast<int>(dtype)));
  }
}

}  // namespace q::cuda
