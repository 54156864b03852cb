// rmsNorm, layerNorm, with or without a residual that is added first:
//   sum = x + residual (rounded to act);  out = sum / sqrt(mean(sum^2) + eps) * (weight + weightOffset)
//   out = (sum - mean) / sqrt(var + eps) * weight + bias                                                     f32 inside
// floor   rows * width * bytes * (2, with residual 4); one row of 4096 f16 is latency: 1.83 us, of which about 1.3 us
//         any kernel takes
// launch  one block a row, up to 1024 threads; a row stays in registers (width <= 32768, width % 8 == 0, 16-byte
//         aligned), else it is read again
// exact   fixed order; a row's bits do not depend on other rows        ref  tensor/src/driver/schema.ts
#include "norm/choice.h"
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

struct NormParams {
  const void* x;
  const void* residual;  // may be null
  void* sum;             // may be null
  const void* weight;    // may be null (layerNorm)
  const void* bias;      // may be null
  void* out;
  int64_t width;
  float eps, weight_offset;
  DType weight_dtype, bias_dtype;
};

struct Moments {
  float mean, scale;
};

/// Sum over the block, in every thread. Whole warps; `shared` is used once.
__device__ __forceinline__ float block_sum(float x, float* shared) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  x = warp_reduce<Sum>(x);
  if (lane == 0) shared[threadIdx.x >> 5] = x;
  __syncthreads();
  return warp_reduce<Sum>(lane < warps ? shared[lane] : 0.f);
}

/// Statistics of a row from a function that sums f(value) over this thread's values.
template <bool LAYER, class Each>
__device__ __forceinline__ Moments moments(const NormParams& p, float (*shared)[32], Each each) {
  float total = 0.f;
  float mean = 0.f;
  if (LAYER) {
    each([&](float v) { total += v; });
    mean = block_sum(total, shared[1]) / float(p.width);
    total = 0.f;
  }
  each([&](float v) { total += (v - mean) * (v - mean); });
  const float square = block_sum(total, shared[0]) / float(p.width);
  return {mean, 1.f / sqrtf(square + p.eps)};
}

/// Eight values of T as 16-byte accesses (two of them for f32).
template <class T>
__device__ __forceinline__ void load8(float (&v)[8], const T* from) {
  constexpr int N = kPack<T>;
#pragma unroll
  for (int j = 0; j < 8; j += N) load(reinterpret_cast<float (&)[N]>(v[j]), from + j);
}
template <class T>
__device__ __forceinline__ void store8(T* to, const float (&v)[8]) {
  constexpr int N = kPack<T>;
#pragma unroll
  for (int j = 0; j < 8; j += N) store(to + j, reinterpret_cast<const float (&)[N]>(v[j]));
}

template <class T, int PACKS, bool LAYER>
__global__ void __launch_bounds__(1024) norm_kernel(NormParams p) {
  __shared__ float shared[2][32];
  pdl_trigger();
  // Weights come from memory once a step, so they are on their way while the kernel ahead ends.
  if (PACKS == 1 && threadIdx.x % 4 == 0 && threadIdx.x * 8 < p.width) {
    if (p.weight)
      prefetch_l2(static_cast<const char*>(p.weight) + threadIdx.x * (p.weight_dtype == DType::f32 ? 32 : 16));
    if (p.bias) prefetch_l2(static_cast<const char*>(p.bias) + threadIdx.x * (p.bias_dtype == DType::f32 ? 32 : 16));
  }
  pdl_wait();
  const int64_t row = int64_t(blockIdx.x) * p.width;
  const auto load_affine = [&](int64_t i, float (&w)[8], float (&b)[8]) {
#pragma unroll
    for (int j = 0; j < 8; ++j) w[j] = 1.f, b[j] = 0.f;
    if (p.weight) load_any(w, p.weight, p.weight_dtype, i);
    if (p.bias) load_any(b, p.bias, p.bias_dtype, i);
  };
  float v[PACKS][8], w[8], b[8];  // w and b come with x when a thread has one pack; more would not fit the registers
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int64_t i = (int64_t(k) * blockDim.x + threadIdx.x) * 8;
    if (i >= p.width) continue;
    load8(v[k], static_cast<const T*>(p.x) + row + i);
    if (!p.residual) continue;
    float r[8];
    load8(r, static_cast<const T*>(p.residual) + row + i);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[k][j] = to_float(from_float<T>(v[k][j] + r[j]));
    if (p.sum) store8(static_cast<T*>(p.sum) + row + i, v[k]);
  }
  if (PACKS == 1 && threadIdx.x * 8 < p.width) load_affine(threadIdx.x * 8, w, b);
  const auto m = moments<LAYER>(p, shared, [&](auto take) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if ((int64_t(k) * blockDim.x + threadIdx.x) * 8 >= p.width) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) take(v[k][j]);
    }
  });
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int64_t i = (int64_t(k) * blockDim.x + threadIdx.x) * 8;
    if (i >= p.width) continue;
    if (PACKS > 1) load_affine(i, w, b);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[k][j] = (v[k][j] - m.mean) * m.scale * (w[j] + p.weight_offset) + b[j];
    store8(static_cast<T*>(p.out) + row + i, v[k]);
  }
}

/// Any width and alignment: the row is read again for each step. A thread writes only elements that it alone reads.
template <class T, bool LAYER>
__global__ void __launch_bounds__(256) norm_any_kernel(NormParams p) {
  pdl_begin();
  __shared__ float shared[2][32];
  const int64_t row = int64_t(blockIdx.x) * p.width;
  const T* x = static_cast<const T*>(p.x) + row;
  const T* residual = p.residual ? static_cast<const T*>(p.residual) + row : nullptr;
  const auto value = [&](int64_t i) {
    return residual ? to_float(from_float<T>(to_float(x[i]) + to_float(residual[i]))) : to_float(x[i]);
  };
  const auto m = moments<LAYER>(p, shared, [&](auto take) {
    for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) take(value(i));
  });
  for (int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    const float v = value(i);
    if (residual && p.sum) static_cast<T*>(p.sum)[row + i] = from_float<T>(v);
    const float w = p.weight ? load_any(p.weight, p.weight_dtype, i) : 1.f;
    const float b = p.bias ? load_any(p.bias, p.bias_dtype, i) : 0.f;
    static_cast<T*>(p.out)[row + i] = from_float<T>((v - m.mean) * m.scale * (w + p.weight_offset) + b);
  }
}

template <class T, bool LAYER>
void norm(const NormParams& p, int64_t rows, const NormChoice& choice, const char* what, Context& c) {
  const dim3 grid(static_cast<unsigned>(rows));
  const auto go = [&](auto kernel) { launch(c, what, kernel, grid, choice.threads, 0, p); };
  switch (choice.kernel) {
    case NormKernel::one_pack:
      return go(norm_kernel<T, 1, LAYER>);
    case NormKernel::two_packs:
      return go(norm_kernel<T, 2, LAYER>);
    case NormKernel::four_packs:
      return go(norm_kernel<T, 4, LAYER>);
    case NormKernel::any:
      return go(norm_any_kernel<T, LAYER>);
  }
}

template <bool LAYER, class Args>
void norm(const Args& a, NormParams p, const char* what, Context& c) {
  if (a.rows == 0) return;
  p.x = a.x.data;
  p.residual = a.residual.data;
  p.sum = a.sum.data;
  p.weight = a.weight.data;
  p.weight_dtype = a.weight.dtype;
  p.out = a.out.data;
  p.width = a.width;
  p.eps = static_cast<float>(a.eps);
  const NormChoice choice = choose_norm(shape_of(a), machine_of(c));
  with_float(a.x.dtype, what, [&](auto zero) { norm<decltype(zero), LAYER>(p, a.rows, choice, what, c); });
}

}  // namespace

void run(const RmsNormArgs& a, Context& c) {
  NormParams p{};
  p.weight_offset = static_cast<float>(a.weight_offset);
  norm<false>(a, p, "rmsNorm", c);
}

void run(const LayerNormArgs& a, Context& c) {
  NormParams p{};
  p.bias = a.bias.data;
  p.bias_dtype = a.bias.dtype;
  norm<true>(a, p, "layerNorm", c);
}

}  // namespace q::cuda
