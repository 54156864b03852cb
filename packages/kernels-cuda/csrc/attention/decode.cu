// attention of one query over the paged cache (decode), split over the keys.
//   out = softmax(q K^T) V per head; the query heads of one key head are the rows of one tensor-core tile, so K and V are read once
// layout  caches [blocks, kvHeads, blockSize, D] in act; K and V go from global memory straight into fragments: the contraction
//         over d is permuted the same way for q and K (a lane holds 8 neighbouring d), the columns of V are permuted and put back at the end
// split   a function of the sequence's own context: 128 keys, or context / 64 above 8192. Splits are combined in order by the
//         block that ends last, so the bits depend on nothing else
// floor   2 * context * kvHeads * D * 2 bytes; context 2048, 32 heads of 128: 33.5 MB = 7.8 us at 4.3 TB/s
// launch  grid (splits, kvHeads * ceil(group / 16), sequences), 4 warps, a warp takes 32 of each 128 keys; idle splits end at once
// needs   sm_80, D % 8 == 0, D <= 256       exact  f32 sums in fixed order, weights rounded to act       ref  tensor/src/driver/schema.ts
#include "attention/params.h"
#include "launch.h"
#include "mma.cuh"

namespace q::cuda {
namespace {

constexpr int kChunk = 128;      // keys of a block's step
constexpr int kMostSplits = 64;
constexpr int kWarps = 4;
constexpr float kLog2e = 1.4426950408889634f;

__host__ __device__ inline int split_keys(int context) {
  const int even = (context + kMostSplits - 1) / kMostSplits;
  return even <= kChunk ? kChunk : (even + kChunk - 1) / kChunk * kChunk;
}

struct DecodeWork {
  float* partial;      // [sequences, heads, splits, D]
  float2* statistics;  // [sequences, heads, splits]: largest score (log2 units), sum
  unsigned* counters;  // [sequences, gridDim.y]
  int splits;
};

__device__ __forceinline__ uint4 load16(const void* p) { return *static_cast<const uint4*>(p); }

/// Rows of the last block to finish: all splits of the sequence combined in order.
template <class T, int D>
__device__ void combine(const AttentionParams& p, const DecodeWork& work, int64_t sequence, int64_t token, int head0, int rows, int first, int last,
                        float* weights) {
  for (int r = 0; r < rows; ++r) {
    const int64_t at = (sequence * p.heads + head0 + r) * work.splits;
    __syncthreads();
    if (threadIdx.x < 32) {
      const int lane = threadIdx.x;
      float2 s[2];
      float largest = -INFINITY;
      for (int k = 0; k < 2; ++k) {
        const int i = first + lane + 32 * k;
        s[k] = i < last ? __ldcg(work.statistics + at + i) : make_float2(-INFINITY, 0.f);
        largest = fmaxf(largest, s[k].x);
      }
      largest = warp_reduce<Max>(largest);
      const float base = largest == -INFINITY ? 0.f : largest;
      const float w0 = exp2f(s[0].x - base), w1 = exp2f(s[1].x - base);
      const float total = warp_reduce<Sum>(w0 * s[0].y + w1 * s[1].y);
      const float factor = total > 0.f ? 1.f / total : 0.f;
      weights[lane] = w0 * factor;
      weights[lane + 32] = w1 * factor;
    }
    __syncthreads();
    for (int d = threadIdx.x; d < p.head_dim; d += blockDim.x) {
      float sum = 0.f;
#pragma unroll 16
      for (int i = first; i < last; ++i) sum += weights[i - first] * __ldcg(work.partial + (at + i) * D + d);
      static_cast<T*>(p.out)[(token * p.heads + head0 + r) * p.head_dim + d] = from_float<T>(sum);
    }
  }
}

template <class T, int D, bool WIDE> __global__ void __launch_bounds__(kWarps * 32, 2) decode_kernel(AttentionParams p, DecodeWork work) {
  pdl_begin();
  constexpr int kQ = D / 32, kV = (D + 63) / 64, kHalves = WIDE ? 2 : 1, kRows = 8 * kHalves;
  extern __shared__ float4 dynamic_shared[];
  float* shared_o = reinterpret_cast<float*>(dynamic_shared);  // [warps, rows, D]
  __shared__ float2 shared_s[kWarps][16];
  __shared__ float weights[kMostSplits];
  __shared__ bool is_last;

  const int64_t sequence = blockIdx.z;
  const int64_t token = p.starts[sequence];
  if (p.starts[sequence + 1] - token != 1) return;
  const int context = p.contexts[sequence], query = context - 1;
  const int size = split_keys(context), split = blockIdx.x;
  const int first = p.first_key(query) / size, last = (context + size - 1) / size;
  if (split < first || split >= last) return;

  const int tiles = (p.group_size + 15) / 16, group = blockIdx.y / tiles, tile = blockIdx.y % tiles;
  const int rows = p.group_size - tile * 16 < 16 ? p.group_size - tile * 16 : 16;
  const int head0 = group * p.group_size + tile * 16;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int32_t* table = p.tables + sequence * p.max_blocks;
  const T* keys = static_cast<const T*>(p.keys);
  const T* values = static_cast<const T*>(p.values);
  const uint4 zero = make_uint4(0, 0, 0, 0);

  uint4 q[kHalves][kQ];
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    const int row = g + 8 * half;
    const T* from = static_cast<const T*>(p.qkv) + p.query_offset(token, head0 + (row < rows ? row : 0));
#pragma unroll
    for (int k = 0; k < kQ; ++k) q[half][k] = row < rows && k * 32 + c * 8 < p.head_dim ? load16(from + k * 32 + c * 8) : zero;
  }

  // O transposed: tile t of block b holds d = 64 b + 8 g + 2 t (elements 0, 1) and + 1 (elements 2, 3) for heads 2c, 2c + 1 (+ 8 h).
  float o[kHalves][kV][4][4] = {};
  float largest[kHalves], total[kHalves];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) largest[h] = -INFINITY, total[h] = 0.f;
  const bool modified = p.modified();
  const float scale = p.scale * kLog2e;
  const int end = (split + 1) * size < context ? (split + 1) * size : context;
  for (int base = split * size + warp * 32; base < end; base += kChunk) {
    const int own = base + lane;
    const long long slot = own < end ? p.slot(table, own, group) : -1;
    const auto load_keys = [&](int j, uint4 (&k)[kQ]) {
      const long long at = __shfl_sync(0xffffffffu, slot, 8 * j + g);
#pragma unroll
      for (int i = 0; i < kQ; ++i) k[i] = at >= 0 && i * 32 + c * 8 < p.head_dim ? load16(keys + at + i * 32 + c * 8) : zero;
    };
    const auto load_values = [&](int j, int b, uint4 (&v)[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const long long at = __shfl_sync(0xffffffffu, slot, 16 * j + 2 * c + (r & 1) + (r >> 1) * 8);
        v[r] = at >= 0 && b * 64 + g * 8 < p.head_dim ? load16(values + at + b * 64 + g * 8) : zero;
      }
    };
    // Up to D = 128 all of a step is asked for at once; above, registers do not hold it.
    constexpr bool kEager = D <= 128;
    uint4 k[kEager ? 4 : 1][kQ], v[kEager ? 2 : 1][kEager ? kV : 1][4];
    if constexpr (kEager) {
#pragma unroll
      for (int j = 0; j < 4; ++j) load_keys(j, k[j]);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int b = 0; b < kV; ++b) load_values(j, b, v[j][b]);
      }
    }

    float s[4][4] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if constexpr (!kEager) load_keys(j, k[0]);
#pragma unroll
      for (int i = 0; i < kQ; ++i) {
        const uint4 low = q[0][i], high = WIDE ? q[kHalves - 1][i] : zero, kk = k[kEager ? j : 0][i];
        mma<T>(s[j], low.x, high.x, low.y, high.y, kk.x, kk.y);
        mma<T>(s[j], low.z, high.z, low.w, high.w, kk.z, kk.w);
      }
    }
    uint32_t weights_of[kHalves][4];  // B fragments: rows keys, columns heads; which is how the scores lie
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int head = head0 + (g + 8 * h < rows ? g + 8 * h : 0);
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = base + 8 * j + 2 * c + e;
          float& x = s[j][2 * h + e];
          x = modified ? kLog2e * p.score(x, head, query, key < end ? key : query) : x * scale;
          if (key >= end || !p.visible(query, key, context)) x = -INFINITY;
          most = fmaxf(most, x);
        }
      }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float bigger = fmaxf(largest[h], most), safe = bigger == -INFINITY ? 0.f : bigger;
      const float keep = exp2f(largest[h] - safe);
      largest[h] = bigger;
      total[h] *= keep;
      const float keep0 = __shfl_sync(0xffffffffu, keep, 8 * c), keep1 = __shfl_sync(0xffffffffu, keep, 8 * c + 4);
#pragma unroll
      for (int b = 0; b < kV; ++b) {
#pragma unroll
        for (int t = 0; t < 4; ++t) o[h][b][t][0] *= keep0, o[h][b][t][1] *= keep1, o[h][b][t][2] *= keep0, o[h][b][t][3] *= keep1;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float w0 = exp2f(s[j][2 * h] - safe), w1 = exp2f(s[j][2 * h + 1] - safe);
        total[h] += w0 + w1;
        weights_of[h][j] = pack2<T>(w0, w1);
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int b = 0; b < kV; ++b) {
        if constexpr (!kEager) load_values(j, b, v[0][0]);
        const uint4 (&rows4)[4] = v[kEager ? j : 0][kEager ? b : 0];
        const uint32_t r0[4] = {rows4[0].x, rows4[0].y, rows4[0].z, rows4[0].w}, r1[4] = {rows4[1].x, rows4[1].y, rows4[1].z, rows4[1].w};
        const uint32_t r2[4] = {rows4[2].x, rows4[2].y, rows4[2].z, rows4[2].w}, r3[4] = {rows4[3].x, rows4[3].y, rows4[3].z, rows4[3].w};
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          const uint32_t a0 = __byte_perm(r0[t], r1[t], 0x5410), a1 = __byte_perm(r0[t], r1[t], 0x7632);
          const uint32_t a2 = __byte_perm(r2[t], r3[t], 0x5410), a3 = __byte_perm(r2[t], r3[t], 0x7632);
#pragma unroll
          for (int h = 0; h < kHalves; ++h) mma<T>(o[h][b][t], a0, a1, a2, a3, weights_of[h][2 * j], weights_of[h][2 * j + 1]);
        }
      }
    }
  }

  // Each warp's part to shared memory; lane (g, c) holds d = 64 b + 8 g + 0..7 of heads 2c and 2c + 1 (+ 8 h).
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 1);
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);
    if (c == 0) shared_s[warp][g + 8 * h] = make_float2(largest[h], total[h]);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = 8 * h + 2 * c + e;
      if (row >= rows) continue;
#pragma unroll
      for (int b = 0; b < kV; ++b) {
        const int d = 64 * b + 8 * g;
        if (d >= D) continue;
        float4* pair = reinterpret_cast<float4*>(shared_o + (warp * kRows + row) * D + d);
        pair[0] = make_float4(o[h][b][0][e], o[h][b][0][2 + e], o[h][b][1][e], o[h][b][1][2 + e]);
        pair[1] = make_float4(o[h][b][2][e], o[h][b][2][2 + e], o[h][b][3][e], o[h][b][3][2 + e]);
      }
    }
  }
  __syncthreads();

  const bool alone = last - first == 1;
  for (int item = threadIdx.x; item < rows * D; item += blockDim.x) {
    const int row = item / D, d = item % D;
    float most = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, shared_s[w][row].x);
    const float safe = most == -INFINITY ? 0.f : most;
    float sum = 0.f, weight = 0.f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(shared_s[w][row].x - safe);
      sum += factor * shared_o[(w * kRows + row) * D + d];
      weight += factor * shared_s[w][row].y;
    }
    const int64_t at = (sequence * p.heads + head0 + row) * work.splits + split;
    if (!alone) {
      work.partial[at * D + d] = sum;
      if (d == 0) work.statistics[at] = make_float2(most, weight);
    } else if (d < p.head_dim) {
      static_cast<T*>(p.out)[(token * p.heads + head0 + row) * p.head_dim + d] = from_float<T>(weight > 0.f ? sum / weight : 0.f);
    }
  }
  if (alone) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned* counter = work.counters + sequence * gridDim.y + blockIdx.y;
    is_last = atomicAdd(counter, 1u) == static_cast<unsigned>(last - first - 1);
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  if (is_last) combine<T, D>(p, work, sequence, token, head0, rows, first, last, weights);
}

template <class T, int D> void decode(const AttentionParams& p, int max_context, Context& c) {
  const int tiles = (p.group_size + 15) / 16;
  const int units = p.kv_heads * tiles;
  require(c.counters != nullptr, "attention: the context has no counters");
  require(int64_t(p.sequences) * units <= kCounters, "attention: more than 262144 sequences times key heads");
  DecodeWork work{};
  work.splits = (max_context + kChunk - 1) / kChunk;
  if (work.splits > kMostSplits) work.splits = kMostSplits;
  if (work.splits < 1) return;
  work.counters = c.counters;
  if (work.splits > 1) {
    const size_t parts = static_cast<size_t>(p.sequences) * p.heads * work.splits;
    work.partial = c.workspace.take_array<float>(parts * D);
    work.statistics = c.workspace.take_array<float2>(parts);
  }
  const dim3 grid(static_cast<unsigned>(work.splits), static_cast<unsigned>(units), static_cast<unsigned>(p.sequences));
  const bool wide = p.group_size > 8;
  const size_t shared = size_t(kWarps) * (wide ? 16 : 8) * D * sizeof(float);
  launch(c, "attention", wide ? decode_kernel<T, D, true> : decode_kernel<T, D, false>, grid, kWarps * 32, shared, p, work);
}

template <class T> void decode(const AttentionParams& p, int max_context, Context& c) {
  if (p.head_dim <= 64) return decode<T, 64>(p, max_context, c);
  if (p.head_dim <= 96) return decode<T, 96>(p, max_context, c);
  if (p.head_dim <= 128) return decode<T, 128>(p, max_context, c);
  decode<T, 256>(p, max_context, c);
}

}  // namespace

void attention_decode(const AttentionParams& p, int max_context, Context& c) {
  if (p.act == DType::f16) return decode<half_t>(p, max_context, c);
  decode<bfloat_t>(p, max_context, c);
}

}  // namespace q::cuda
