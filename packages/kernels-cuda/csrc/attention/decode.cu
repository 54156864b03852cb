// attention of one query over the paged cache (decode), split over the keys.
//   out = softmax(q K^T) V per head; the query heads of one key head are the rows of one tensor-core tile, so K and V are read once
// layout  caches [blocks, kvHeads, blockSize, D] in act. A warp brings its own keys and values to shared memory with cp.async (16-byte
//         pieces swizzled by row) and computes S = Q K^T and O^T = V^T P^T, whose second operand is S as it lies in registers
// split   a function of the sequence's own context and of the number of key heads: 128 keys, or as many as make about 384 blocks a
//         sequence (what an H200 runs at once). The block that ends last combines the splits in order: the bits depend on nothing else
// floor   2 * context * kvHeads * D * 2 bytes; context 2048, 32 heads of 128: 33.5 MB = 7.8 us at 4.3 TB/s
// launch  grid (splits at once, kvHeads * ceil(group / 16), sequences), 4 warps, a warp takes 16 of each 64 keys; idle blocks end at once
// needs   sm_80, D % 8 == 0, D <= 256       exact  f32 sums in fixed order, weights rounded to act       ref  tensor/src/driver/schema.ts
#include "attention/params.h"
#include "launch.h"
#include "mma.cuh"

namespace q::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kStep = 16 * kWarps;  // keys of a block's step
constexpr int kStages = 2;
constexpr int kSplit = 2 * kStep;   // the smallest split
constexpr int kMostSplits = 64;
constexpr int kBlocksASequence = 384;
constexpr float kLog2e = 1.4426950408889634f;

/// Most splits of a sequence; `units` is the number of blocks that share a split's keys.
__host__ __device__ inline int most_splits(int units) {
  const int fit = kBlocksASequence / units;
  return fit < 1 ? 1 : fit < kMostSplits ? fit : kMostSplits;
}
/// Keys of a split.
__host__ __device__ inline int split_keys(int context, int most) {
  const int even = (context + most - 1) / most;
  return even <= kSplit ? kSplit : (even + kStep - 1) / kStep * kStep;
}

struct DecodeWork {
  float* partial;      // [sequences, heads, splits, D]
  float2* statistics;  // [sequences, heads, splits]: largest score (log2 units), sum
  unsigned* counters;  // [sequences, gridDim.y]
  int splits;
};

template <int D> constexpr int kStride = (D + 63) / 64 * 64;            // elements of a row in shared memory
template <int D> constexpr int kTileBytes = 16 * kStride<D> * 2;         // 16 rows
template <int D> constexpr int kWarpBytes = kStages * 2 * kTileBytes<D>;  // keys and values
/// Byte offset of 16-byte piece `piece` of row `row`.
template <int D> __device__ __forceinline__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>(row * kStride<D> * 2 + ((piece ^ (row & 7)) << 4));
}

/// What is the same for all splits of a block.
struct Place {
  int64_t sequence, token;
  int context, group, head0, rows, first, last;  // first and last: the splits with visible keys
  const int32_t* table;
};

/// Starts copying this warp's 16 rows from key `base` on; rows from `end` on become zeros.
template <class T, int D>
__device__ __forceinline__ void copy_rows(const AttentionParams& p, const Place& at, int base, int end, uint32_t to) {
  const int lane = threadIdx.x & 31, own = base + (lane & 15);
  const long long slot = own < end ? p.slot(at.table, own, at.group) : -1;
  const T* keys = static_cast<const T*>(p.keys);
  const T* values = static_cast<const T*>(p.values);
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    const int item = i * 32 + lane, row = item / (D / 8), piece = item % (D / 8);
    const long long from = __shfl_sync(0xffffffffu, slot, row);
    const bool valid = from >= 0 && piece * 8 < p.head_dim;
    const long long offset = valid ? from + piece * 8 : 0;
    copy_async16(to + place<D>(row, piece), keys + offset, valid);
    copy_async16(to + kTileBytes<D> + place<D>(row, piece), values + offset, valid);
  }
}

/// The block that ends last: all splits of these heads combined in order.
template <class T, int D> __device__ void combine(const AttentionParams& p, const DecodeWork& work, const Place& at, float (*weights)[kMostSplits]) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, count = at.last - at.first;
  const int64_t part0 = (at.sequence * p.heads + at.head0) * work.splits + at.first;
  for (int r = warp; r < at.rows; r += kWarps) {
    float2 s[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int i = lane + 32 * k;
      s[k] = i < count ? __ldcg(work.statistics + part0 + r * work.splits + i) : make_float2(-INFINITY, 0.f);
    }
    const float largest = warp_reduce<Max>(fmaxf(s[0].x, s[1].x)), base = largest == -INFINITY ? 0.f : largest;
    const float w0 = exp2f(s[0].x - base), w1 = exp2f(s[1].x - base);
    const float total = warp_reduce<Sum>(w0 * s[0].y + w1 * s[1].y), factor = total > 0.f ? 1.f / total : 0.f;
    weights[r][lane] = w0 * factor;
    weights[r][lane + 32] = w1 * factor;
  }
  __syncthreads();
  for (int item = threadIdx.x; item < at.rows * (D / 4); item += blockDim.x) {
    const int r = item / (D / 4), d = item % (D / 4) * 4;
    if (d >= p.head_dim) continue;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float w = weights[r][i];
      const float4 v = __ldcg(reinterpret_cast<const float4*>(work.partial + (part0 + r * work.splits + i) * D + d));
      sum.x += w * v.x;
      sum.y += w * v.y;
      sum.z += w * v.z;
      sum.w += w * v.w;
    }
    const float v[4] = {sum.x, sum.y, sum.z, sum.w};
    store(static_cast<T*>(p.out) + (at.token * p.heads + at.head0 + r) * p.head_dim + d, v);
  }
}

template <class T, int D, bool WIDE, bool MODIFIED>
__global__ void __launch_bounds__(kWarps * 32, D <= 128 ? 3 : 1) decode_kernel(AttentionParams p, DecodeWork work) {
  pdl_begin();
  constexpr int kHalves = WIDE ? 2 : 1, kRows = 8 * kHalves, kTiles = D / 16;
  extern __shared__ float4 dynamic_shared[];  // per warp: stages of keys and values, then its part of O; after them the queries
  __shared__ float2 shared_s[kWarps][16];
  __shared__ int shared_stage[kWarps];  // where each warp's part of O is
  __shared__ bool is_last;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const uint32_t own_shared = shared_address(dynamic_shared) + warp * kWarpBytes<D>, shared_q = shared_address(dynamic_shared) + kWarps * kWarpBytes<D>;

  Place at;
  at.sequence = blockIdx.z;
  const int start = p.starts[at.sequence], stop = p.starts[at.sequence + 1];
  at.context = p.contexts[at.sequence];
  at.token = start;
  at.table = p.tables + at.sequence * p.max_blocks;
  const int query = at.context - 1, size = split_keys(at.context, most_splits(static_cast<int>(gridDim.y)));
  at.first = p.first_key(query) / size;
  at.last = (at.context + size - 1) / size;
  int split = at.first + static_cast<int>(blockIdx.x);
  if (stop - start != 1 || split >= at.last) return;
  const int tiles = (p.group_size + 15) / 16, tile = static_cast<int>(blockIdx.y) % tiles;
  at.group = static_cast<int>(blockIdx.y) / tiles;
  at.rows = p.group_size - tile * 16 < 16 ? p.group_size - tile * 16 : 16;
  at.head0 = at.group * p.group_size + tile * 16;

  // Queries: 16 rows, those past the group zero. Part of the first group of copies; a block-wide barrier follows below.
  for (int item = threadIdx.x; item < 16 * (D / 8); item += blockDim.x) {
    const int row = item / (D / 8), piece = item % (D / 8);
    const bool valid = row < at.rows && piece * 8 < p.head_dim;
    const T* from = static_cast<const T*>(p.qkv) + (valid ? p.query_offset(at.token, at.head0 + row) + piece * 8 : 0);
    copy_async16(shared_q + place<D>(row, piece), from, valid);
  }
  bool started = false;  // a split's first step is asked for before the one before it is written out
  int stage = 0;
  const float scale = MODIFIED ? kLog2e : p.scale * kLog2e;
  const auto end_of = [&](int i) { return (i + 1) * size < at.context ? (i + 1) * size : at.context; };
  const auto copy_step = [&](int base, int end, int to) {
    if (base < end) copy_rows<T, D>(p, at, base, end, own_shared + to * 2 * kTileBytes<D>);
    copy_async_commit();
  };

  for (; split < at.last; split += gridDim.x) {
    const int begin = split * size, end = end_of(split);
    int next = begin + warp * 16;
    if (!started) copy_step(next, end, stage);
    copy_step(next + kStep, end, stage ^ 1);
    next += kStages * kStep;
    float o[kHalves][kTiles][4] = {};
    float largest[kHalves], total[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) largest[h] = -INFINITY, total[h] = 0.f;
    if (!started) {
      copy_async_wait<kStages - 1>();
      __syncthreads();
      started = true;
    }

    for (int base = begin + warp * 16; base < end; base += kStep) {
      copy_async_wait<kStages - 1>();
      __syncwarp();
      const uint32_t keys = own_shared + stage * 2 * kTileBytes<D>, values = keys + kTileBytes<D>;
      float s[2][4] = {};
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        uint32_t q[4], b[4];
        ldmatrix4(q, shared_q + place<D>(lane & 15, 2 * k + (lane >> 4)));
        ldmatrix4(b, keys + place<D>((lane & 7) + (lane >> 4) * 8, 2 * k + ((lane >> 3) & 1)));
        mma<T>(s[0], q[0], q[1], q[2], q[3], b[0], b[1]);
        mma<T>(s[1], q[0], q[1], q[2], q[3], b[2], b[3]);
      }
      uint32_t w[kHalves][2];  // weights as the second operand: rows keys, columns heads
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        float most = -INFINITY;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = base + 8 * j + 2 * c + e;
            float& x = s[j][2 * h + e];
            if (key >= end || (p.window > 0 && key <= query - p.window)) x = -INFINITY;
            else if (MODIFIED) x = p.score(x, at.head0 + (g + 8 * h < at.rows ? g + 8 * h : 0), query, key);
            most = fmaxf(most, x);
          }
        }
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float bigger = fmaxf(largest[h], most), safe = bigger == -INFINITY ? 0.f : bigger * scale;
        const float keep = exp2_fast(largest[h] * scale - safe);
        largest[h] = bigger;
        total[h] *= keep;
        const float keep0 = __shfl_sync(0xffffffffu, keep, 8 * c), keep1 = __shfl_sync(0xffffffffu, keep, 8 * c + 4);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) o[h][t][0] *= keep0, o[h][t][1] *= keep1, o[h][t][2] *= keep0, o[h][t][3] *= keep1;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float w0 = exp2_fast(s[j][2 * h] * scale - safe), w1 = exp2_fast(s[j][2 * h + 1] * scale - safe);
          total[h] += w0 + w1;
          w[h][j] = pack2<T>(w0, w1);
        }
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        uint32_t a[4];  // V transposed: rows d, columns keys
        ldmatrix4_transposed(a, values + place<D>((lane & 7) + (lane >> 4) * 8, 2 * t + ((lane >> 3) & 1)));
#pragma unroll
        for (int h = 0; h < kHalves; ++h) mma<T>(o[h][t], a[0], a[1], a[2], a[3], w[h][0], w[h][1]);
      }
      __syncwarp();
      copy_step(next, end, stage);
      next += kStep;
      stage ^= 1;
    }

    // Each warp's part goes to the stage that the next split's first step does not use; lane (g, c) holds d = 16 t + g and + 8 of
    // heads 2c and 2c + 1 (+ 8 h).
    const int following = split + static_cast<int>(gridDim.x);
    const bool more = following < at.last;
    if (more) copy_step(following * size + warp * 16, end_of(following), stage);
    const int o_at = warp * kWarpBytes<D>, o_stage = (stage ^ 1) * 2 * kTileBytes<D>;
    float* own_o = reinterpret_cast<float*>(reinterpret_cast<char*>(dynamic_shared) + o_at + o_stage);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      total[h] += __shfl_xor_sync(0xffffffffu, total[h], 1);
      total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);
      if (lane == 0 && h == 0) shared_stage[warp] = o_stage;
      if (c == 0) shared_s[warp][g + 8 * h] = make_float2(largest[h] * scale, total[h]);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int row = 8 * h + 2 * c + e;
        if (row >= at.rows) continue;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          own_o[row * D + 16 * t + g] = o[h][t][e];
          own_o[row * D + 16 * t + g + 8] = o[h][t][2 + e];
        }
      }
    }
    __syncthreads();

    const bool alone = at.last - at.first == 1;
    static_assert(kRows * D * 4 <= 2 * kTileBytes<D> && 16 * kMostSplits * 4 <= kWarps * kWarpBytes<D>, "shared memory is used again for O and the weights");
    for (int item = threadIdx.x; item < at.rows * D; item += blockDim.x) {
      const int row = item / D, d = item % D;
      float most = -INFINITY;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) most = fmaxf(most, shared_s[i][row].x);
      const float safe = most == -INFINITY ? 0.f : most;
      float sum = 0.f, weight = 0.f;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) {
        const float factor = exp2_fast(shared_s[i][row].x - safe);
        sum += factor * reinterpret_cast<const float*>(reinterpret_cast<const char*>(dynamic_shared) + i * kWarpBytes<D> + shared_stage[i])[row * D + d];
        weight += factor * shared_s[i][row].y;
      }
      const int64_t part = (at.sequence * p.heads + at.head0 + row) * work.splits + split;
      if (!alone) {
        work.partial[part * D + d] = sum;
        if (d == 0) work.statistics[part] = make_float2(most, weight);
      } else if (d < p.head_dim) {
        static_cast<T*>(p.out)[(at.token * p.heads + at.head0 + row) * p.head_dim + d] = from_float<T>(weight > 0.f ? sum / weight : 0.f);
      }
    }
    if (alone) return;
    __syncthreads();  // what the block wrote is before thread 0's fence
    if (threadIdx.x == 0) {
      __threadfence();
      unsigned* counter = work.counters + at.sequence * gridDim.y + blockIdx.y;
      is_last = atomicAdd(counter, 1u) == static_cast<unsigned>(at.last - at.first - 1);
      if (is_last) *counter = 0;
      __threadfence();
    }
    __syncthreads();
    if (is_last) return combine<T, D>(p, work, at, reinterpret_cast<float(*)[kMostSplits]>(dynamic_shared));
  }
}

template <class T, int D> void decode(const AttentionParams& p, int max_context, Context& c) {
  const int tiles = (p.group_size + 15) / 16;
  const int units = p.kv_heads * tiles;
  require(c.counters != nullptr, "attention: the context has no counters");
  require(int64_t(p.sequences) * units <= kCounters, "attention: more than 262144 sequences times key heads");
  DecodeWork work{};
  work.splits = (max_context + kSplit - 1) / kSplit;
  if (work.splits > most_splits(units)) work.splits = most_splits(units);
  if (work.splits < 1) return;
  work.counters = c.counters;
  if (work.splits > 1) {
    const size_t parts = static_cast<size_t>(p.sequences) * p.heads * work.splits;
    work.partial = c.workspace.take_array<float>(parts * D);
    work.statistics = c.workspace.take_array<float2>(parts);
  }
  // Blocks that find nothing to do still cost their start; beyond what runs at once a block takes several splits in turn.
  const int64_t at_once = 12ll * c.multiprocessors / (int64_t(units) * p.sequences);
  const int64_t across = at_once < 1 ? 1 : at_once < work.splits ? at_once : work.splits;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(units), static_cast<unsigned>(p.sequences));
  constexpr size_t kShared = size_t(kWarps) * kWarpBytes<D> + kTileBytes<D>;
  const auto go = [&](auto kernel) { launch(c, "attention", kernel, grid, kWarps * 32, kShared, p, work); };
  const bool wide = p.group_size > 8;
  if (p.modified()) return wide ? go(decode_kernel<T, D, true, true>) : go(decode_kernel<T, D, false, true>);
  wide ? go(decode_kernel<T, D, true, false>) : go(decode_kernel<T, D, false, false>);
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
