// softmax over rows, and crossEntropy of rows: out = -x[target] + max + log(sum(exp(x - max))).
// floor   softmax reads and writes a row once (it reads it three times here, from cache up to about 50 KB a row);
//         crossEntropy reads it twice
// launch  one block of up to 1024 threads a row; exact f32, fixed order; rows independent; ref
//         tensor/src/driver/schema.ts
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

/// Largest value and sum of exp(x - largest) of a row; both in every thread. A row of -inf alone
/// gives sum 0; NaN and infinity give NaN.
template <class T>
__device__ void row_statistics(const T* x, int64_t width, bool wide, float* shared, float& largest, float& total) {
  constexpr int N = kPack<T>;
  const int64_t packs = wide ? width / N : 0;
  const auto each = [&](auto take) {
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
      float v[N];
      load(v, x + i * N);
#pragma unroll
      for (int j = 0; j < N; ++j) take(v[j]);
    }
    for (int64_t i = packs * N + threadIdx.x; i < width; i += blockDim.x) take(to_float(x[i]));
  };
  float m = -INFINITY;
  each([&](float v) { m = fmaxf(m, v); });
  largest = block_reduce<Max>(m, shared);
  float sum = 0.f;
  const float base = largest == -INFINITY ? 0.f : largest;
  each([&](float v) { sum += expf(v - base); });
  total = block_reduce<Sum>(sum, shared);
}

template <class T>
__global__ void __launch_bounds__(1024) softmax_kernel(const T* x, T* out, int64_t width, bool wide) {
  pdl_begin();
  __shared__ float shared[32];
  x += int64_t(blockIdx.x) * width;
  out += int64_t(blockIdx.x) * width;
  float largest, total;
  row_statistics(x, width, wide, shared, largest, total);
  const float base = largest == -INFINITY ? 0.f : largest, factor = 1.f / total;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    out[i] = from_float<T>(expf(to_float(x[i]) - base) * factor);
}

template <class T>
__global__ void __launch_bounds__(1024)
    cross_entropy_kernel(const T* x, const int32_t* targets, float* out, int64_t width, bool wide, DeviceError* error) {
  pdl_begin();
  __shared__ float shared[32];
  const int64_t target = targets[blockIdx.x];
  if (target < 0 || target >= width) {
    if (threadIdx.x == 0) {
      out[blockIdx.x] = 0.f;
      if (target >= width) report_error(error, Command::crossEntropy, target, width);
    }
    return;
  }
  x += int64_t(blockIdx.x) * width;
  float largest, total;
  row_statistics(x, width, wide, shared, largest, total);
  if (threadIdx.x == 0) out[blockIdx.x] = logf(total) + largest - to_float(x[target]);
}

unsigned threads_for(int64_t width) {
  const int64_t wanted = (width / 8 + 31) / 32 * 32;
  return static_cast<unsigned>(wanted < 32 ? 32 : wanted > 1024 ? 1024 : wanted);
}

}  // namespace

void run(const SoftmaxArgs& a, Context& c) {
  if (a.rows == 0) return;
  with_float(a.x.dtype, "softmax", [&](auto zero) {
    using T = decltype(zero);
    launch(c, "softmax", softmax_kernel<T>, dim3(static_cast<unsigned>(a.rows)), threads_for(a.width), 0,
           a.x.as<const T>(), a.out.as<T>(), a.width, aligned16(a.x.data) && a.width % kPack<T> == 0);
  });
}

void run(const CrossEntropyArgs& a, Context& c) {
  if (a.rows == 0) return;
  with_float(a.logits.dtype, "crossEntropy", [&](auto zero) {
    using T = decltype(zero);
    launch(c, "crossEntropy", cross_entropy_kernel<T>, dim3(static_cast<unsigned>(a.rows)), threads_for(a.width), 0,
           a.logits.as<const T>(), a.targets.as<const int32_t>(), a.out.as<float>(), a.width,
           aligned16(a.logits.data) && a.width % kPack<T> == 0, c.device_error);
  });
}

}  // namespace q::cuda
