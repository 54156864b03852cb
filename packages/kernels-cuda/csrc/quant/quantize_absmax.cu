// quantizeAbsmax: the absmax of a 4-bit weight to 8 bits (double quantization); weights on load
// maths   offset = mean(x); out = nearest entry of nestedCode to (x - offset) / absmax of its block of (x - offset)
// layout  x f32 [count]; out u8 [count]; nestedAbsmax f32 [ceil(count / blockSize)]; nestedCode f32 [256] ascending
// floor   a 4096 x 11008 weight has 0.7 M absmax, 3.5 MB: launch latency of three kernels
// launch  mean: blocks of up to 512 threads and a block over their sums; then a block of 256 threads per block of
//         values
// exact   equal to bitsandbytes' goldens. The mean sums in torch's order (its reduction kernel: 4 accumulators a
//         thread, then halves of the block; the number of blocks that of a device with 132 multiprocessors, whatever
//         this device has), so that offset has the same bits.
#include "launch.h"
#include "quant/checks.h"
#include "rounding.cuh"

namespace q::cuda {
namespace {

constexpr int kMeanThreads = 512, kThreads = 256;

/// Sum of the block in thread order of torch: upper half onto lower half. Any power of two up to kMeanThreads.
__device__ float sum_halves(float x, float* shared) {
  shared[threadIdx.x] = x;
  for (int o = blockDim.x / 2; o > 0; o >>= 1) {
    __syncthreads();
    if (threadIdx.x < o) shared[threadIdx.x] = __fadd_rn(shared[threadIdx.x], shared[threadIdx.x + o]);
  }
  __syncthreads();
  return shared[0];
}

__global__ void __launch_bounds__(kMeanThreads) mean_partial(const float* x, int64_t count, float* partial) {
  __shared__ float shared[kMeanThreads];
  pdl_wait();
  float a[4] = {};
  const int64_t first = threadIdx.x + static_cast<int64_t>(blockIdx.x) * blockDim.x,
                stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  if (count > 128) {
    for (int64_t i = first; i < count / 4; i += stride)
#pragma unroll
      for (int j = 0; j < 4; ++j) a[j] = __fadd_rn(a[j], x[4 * i + j]);
    const int64_t tail = count - count % 4 + threadIdx.x;
    if (blockIdx.x == 0 && tail < count) a[0] = __fadd_rn(a[0], x[tail]);
  } else {
    for (int64_t i = first; i < count; i += 4 * stride)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (i + j * stride < count) a[j] = __fadd_rn(a[j], x[i + j * stride]);
  }
  const float sum = sum_halves(__fadd_rn(__fadd_rn(__fadd_rn(a[0], a[1]), a[2]), a[3]), shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kMeanThreads)
    mean_final(const float* partial, int blocks, int64_t count, float* mean) {
  __shared__ float shared[kMeanThreads];
  pdl_wait();
  float sum = partial[0];
  if (blocks > 1) {
    sum = 0.f;
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum = __fadd_rn(sum, partial[i]);
    sum = sum_halves(sum, shared);
  }
  if (threadIdx.x == 0) *mean = __fmul_rn(sum, __fdiv_rn(1.f, static_cast<float>(count)));
}

/// The search of bitsandbytes: halving steps from entry 127, then the midpoint to the neighbour decides; a tie stays at
/// the entry reached.
__device__ int nearest(const float* code, float x) {
  int at = 127, low = 0, high = 255;
  for (int step = 64; step > 0; step >>= 1) {
    if (x > code[at])
      low = at, at += step;
    else
      high = at, at -= step;
  }
  if (x > code[at]) return x > __fmul_rn(__fadd_rn(code[high], code[at]), 0.5f) ? high : at;
  return x < __fmul_rn(__fadd_rn(code[low], code[at]), 0.5f) ? low : at;
}

__global__ void __launch_bounds__(kThreads)
    quantize_absmax(const float* x, const float* offset, const float* code, uint8_t* out, float* absmax, int64_t count,
                    int block_size) {
  __shared__ float book[256], reduce[32];
  pdl_wait();
  book[threadIdx.x] = code[threadIdx.x];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * block_size, end = min(begin + block_size, count);
  const float shift = *offset;
  float most = 0.f;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) most = max_abs(most, __fsub_rn(x[i], shift));
  most = flushed(block_reduce<MaxAbs>(most, reduce));
  __syncthreads();
  if (threadIdx.x == 0) absmax[blockIdx.x] = most;
  const float inverse = fast_reciprocal(most);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    out[i] = static_cast<uint8_t>(nearest(book, flushed_multiply(__fsub_rn(x[i], shift), inverse)));
}

}  // namespace

void run(const QuantizeAbsmaxArgs& a, Context& context) {
  if (a.count == 0) return;
  power_of_two("blockSize", a.block_size, 1);
  int threads = 1;
  while (threads * 2 <= std::min<int64_t>(kMeanThreads, a.count > 128 ? a.count / 4 : a.count)) threads *= 2;
  // torch splits a sum over blocks from 256 values a thread on: at least 16 and at most 256 values a thread, at most 4
  // blocks for each of 132 multiprocessors.
  const int64_t per_thread = (a.count + threads - 1) / threads;
  int64_t blocks = 1;
  if (per_thread >= 256)
    blocks = std::max(std::min<int64_t>(4 * 132, (per_thread + 15) / 16), (per_thread + 255) / 256);
  float* partial = context.workspace.take_array<float>(blocks);
  launch(context, "quantizeAbsmax (mean)", mean_partial, static_cast<unsigned>(blocks), threads, 0,
         a.x.as<const float>(), a.count, partial);
  launch(context, "quantizeAbsmax (mean)", mean_final, 1, kMeanThreads, 0, partial, static_cast<int>(blocks), a.count,
         a.offset.as<float>());
  launch(context, "quantizeAbsmax", quantize_absmax, blocks_for(a.count, a.block_size), kThreads, 0,
         a.x.as<const float>(), a.offset.as<const float>(), a.nested_code.as<const float>(), a.out.as<uint8_t>(),
         a.nested_absmax.as<float>(), a.count, static_cast<int>(a.block_size));
}

}  // namespace q::cuda
