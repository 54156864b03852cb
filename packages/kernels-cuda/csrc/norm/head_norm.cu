// headNorm, eagerHeadNorm: norms of heads of packed rows, in place; the maths of norm.cu.
// floor   rows * values of the heads * bytes * 2; a decode step's heads are latency
// launch  a warp a head, 8 of a row in a block, for widths to 512, which stay in registers; a block a head above, which
//         reads its head again
// exact   fixed order; a head's bits depend on nothing else        ref  tensor/src/driver/schema.ts
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kMostWarpWidth = 512;

struct HeadPart {
  const void* weight;
  DType weight_dtype;
  int64_t weight_stride, offset, group_stride;
  int count, group, width;
};

struct HeadNormParams {
  void* x;
  int64_t row_stride;
  float eps, weight_offset;
  bool centred, round_first;
  DType dtype;  // results are rounded to it as well; f32: not at all
  int parts;
  HeadPart part[kMaxRepeat];
};

/// Head `index` of all parts: its part, and its number there.
__device__ __forceinline__ const HeadPart* find_head(const HeadNormParams& p, int& index) {
#pragma unroll
  for (int i = 0; i < kMaxRepeat; ++i) {
    if (i >= p.parts) break;
    if (index < p.part[i].count) return &p.part[i];
    index -= p.part[i].count;
  }
  return nullptr;
}

template <class T>
__device__ __forceinline__ T* head_of(const HeadNormParams& p, const HeadPart& part, int head) {
  return static_cast<T*>(p.x) + blockIdx.x * p.row_stride + part.offset + head / part.group * part.group_stride +
         int64_t(head % part.group) * part.width;
}

__device__ __forceinline__ float weighed(const HeadNormParams& p, const HeadPart& part, int head, int i, float v) {
  const float w = load_any(part.weight, part.weight_dtype, head * part.weight_stride + i) + p.weight_offset;
  return rounded((p.round_first ? rounded(v, p.dtype) : v) * w, p.dtype);
}

/// N: values of an access. Block (row, 8 heads).
template <class T, int N>
__global__ void __launch_bounds__(kThreads) head_norm_kernel(const __grid_constant__ HeadNormParams p) {
  pdl_begin();
  constexpr int kAccesses = kMostWarpWidth / (32 * N);
  const int lane = threadIdx.x & 31;
  int head = blockIdx.y * kWarps + (threadIdx.x >> 5);
  const HeadPart* found = find_head(p, head);
  if (!found) return;
  const HeadPart& part = *found;
  T* x = head_of<T>(p, part, head);
  float v[kAccesses][N], total = 0.f, mean = 0.f;
  const auto each = [&](auto&& use) {
#pragma unroll
    for (int k = 0; k < kAccesses; ++k) {
      const int i = (k * 32 + lane) * N;
      if (i < part.width) use(v[k], i);
    }
  };
  each([&](float (&of)[N], int i) { load(of, x + i); });
  if (p.centred) {
    each([&](float (&of)[N], int) {
#pragma unroll
      for (int j = 0; j < N; ++j) total += of[j];
    });
    mean = warp_reduce<Sum>(total) / static_cast<float>(part.width);
    total = 0.f;
  }
  each([&](float (&of)[N], int) {
#pragma unroll
    for (int j = 0; j < N; ++j) total += (of[j] - mean) * (of[j] - mean);
  });
  const float scale = 1.f / sqrtf(warp_reduce<Sum>(total) / static_cast<float>(part.width) + p.eps);
  each([&](float (&of)[N], int i) {
#pragma unroll
    for (int j = 0; j < N; ++j) of[j] = weighed(p, part, head, i + j, (of[j] - mean) * scale);
    store(x + i, of);
  });
}

/// Block (row, head); a thread writes only what it alone reads.
template <class T>
__global__ void __launch_bounds__(kThreads) wide_head_norm_kernel(const __grid_constant__ HeadNormParams p) {
  pdl_begin();
  __shared__ float shared[32];
  int head = blockIdx.y;
  const HeadPart& part = *find_head(p, head);
  T* x = head_of<T>(p, part, head);
  const auto sum = [&](auto&& of) {
    float total = 0.f;
    for (int i = threadIdx.x; i < part.width; i += kThreads) total += of(to_float(x[i]));
    return block_reduce<Sum>(total, shared) / static_cast<float>(part.width);
  };
  const float mean = p.centred ? sum([](float v) { return v; }) : 0.f;
  const float scale = 1.f / sqrtf(sum([&](float v) { return (v - mean) * (v - mean); }) + p.eps);
  for (int i = threadIdx.x; i < part.width; i += kThreads)
    x[i] = from_float<T>(weighed(p, part, head, i, (to_float(x[i]) - mean) * scale));
}

template <class Args>
void head_norm(const Args& a, HeadNormParams p, const char* what, Context& c) {
  if (a.rows == 0) return;
  p.x = a.x.data;
  p.row_stride = a.row_stride;
  p.eps = static_cast<float>(a.eps);
  p.weight_offset = static_cast<float>(a.weight_offset);
  p.centred = a.centred != 0;
  HeadNormParams wide = p;
  int64_t units = a.row_stride, heads = 0, wide_heads = 0;
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& part = a.parts[i];
    const bool fits = part.width <= kMostWarpWidth;
    HeadNormParams& to = fits ? p : wide;
    to.part[to.parts++] = {part.weight.data,
                           part.weight.dtype,
                           part.weight_stride,
                           part.offset,
                           part.group_stride,
                           static_cast<int>(part.count),
                           static_cast<int>(part.group),
                           static_cast<int>(part.width)};
    (fits ? heads : wide_heads) += part.count;
    if (fits) units |= part.offset | part.width | part.group_stride;
  }
  require(wide_heads <= 65535 && heads <= 65535 * int64_t{kWarps}, "headNorm: too many heads");
  const unsigned rows = static_cast<unsigned>(a.rows);
  with_float(a.x.dtype, what, [&](auto zero) {
    using T = decltype(zero);
    if (heads > 0) {
      const dim3 grid(rows, blocks_for(heads, kWarps));
      units % 4 == 0 && aligned16(a.x.data) ? launch(c, what, head_norm_kernel<T, 4>, grid, kThreads, 0, p)
                                            : launch(c, what, head_norm_kernel<T, 1>, grid, kThreads, 0, p);
    }
    if (wide_heads > 0)
      launch(c, what, wide_head_norm_kernel<T>, dim3(rows, static_cast<unsigned>(wide_heads)), kThreads, 0, wide);
  });
}

}  // namespace

void run(const HeadNormArgs& a, Context& c) { head_norm(a, HeadNormParams{}, "headNorm", c); }

void run(const EagerHeadNormArgs& a, Context& c) {
  HeadNormParams p{};
  p.dtype = static_cast<DType>(a.dtype);
  p.round_first = a.round_first != 0;
  head_norm(a, p, "eagerHeadNorm", c);
}

}  // namespace q::cuda
