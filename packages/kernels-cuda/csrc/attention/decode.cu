// attention of one query over the paged cache (decode), split over the keys.
//   out = softmax(q K^T) V per head; the query heads of one key head are the rows of one tensor-core tile, so K and V
//   are read once
// layout  caches [blocks, kvHeads, blockSize, D] in act. A warp brings its own keys and values to shared memory with
//         cp.async (16-byte pieces swizzled by row) and computes S = Q K^T and O^T = V^T P^T, whose second operand is S
//         as it lies in registers
// split   a function of the sequence's own context and of the number of key heads: 128 keys, or as many as make about
//         384 splits a sequence (what an H200 runs at once). Who computes a split does not change its bits; the block
//         that ends last combines the splits of a head in order, as a block that has all of them does without writing
//         them down
// launch  4 warps, a warp takes 16 of each 64 keys. Few splits: a block each. Else as many blocks as run at once, each
//         with an even share of all steps of 64 keys, in splits or whole tiles of heads; its copies run ahead across
//         both, so that they do not stop
// floor   4 * contexts * kvHeads * D bytes at 4.3 TB/s. One H200, 2026-11-21, 32 heads of 128, f16, us (floor), caches
//         beyond the L2: 1 sequence of 128: 3.9 (0.5), 512: 6.6 (2.0), 4096: 21.7 (15.6), 32768: 125 (125) 32 sequences
//         of 128: 21.8 (15.6), 256: 37.1 (31.2), 512: 67.4 (62.5), 1024: 127 (125); 32 / 8 heads, 32 of 2048: 70 (62.5)
//         Registers are at their limit: 8 spilled bytes cost 4 % at 32 sequences ropeKvWrite inside this kernel, for
//         one token a sequence: decode of Llama 2 7B nf4 604 -> 602 tok/s, four sequences 3 % less. Alone its start
//         hides behind the product before it, beside which this kernel's registers find no room
// needs   sm_80, D % 8 == 0, D <= 256; exact f32 sums in fixed order, weights rounded to act; ref
//         tensor/src/driver/schema.ts
#include "attention/decode_shares.cuh"
#include "launch.h"
#include "mma.cuh"

namespace q::cuda {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

template <int D>
constexpr int kStages = D <= 64 ? 4 : 2;
template <int D, bool WIDE>
constexpr int kBlocksPerMultiprocessor = D > 128 ? 1
                                         : WIDE  ? 2
                                                 : 3;
template <int D>
constexpr int kStride = (D + 63) / 64 * 64;  // elements of a row in shared memory
template <int D>
constexpr int kTileBytes = 16 * kStride<D> * 2;  // 16 rows
template <int D>
constexpr int kWarpBytes = kStages<D> * 2 * kTileBytes<D>;  // keys and values
template <int D>
constexpr int kLanes = D <= 64    ? 4
                       : D <= 128 ? 8
                                  : 16;  // lanes that hold a warp's quarter of a row of O, four values each
/// Byte offset of 16-byte piece `piece` of row `row`.
template <int D>
__device__ __forceinline__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>(row * kStride<D> * 2 + ((piece ^ (row & 7)) << 4));
}

/// Only the modified kernel takes values of a size of their own: a second size costs the other its last registers.
template <bool MODIFIED>
__device__ __forceinline__ int value_dim_of(const AttentionParams& p) {
  return MODIFIED ? p.value_dim : p.head_dim;
}

/// What is known of a row after some of its splits, for four columns.
struct Running {
  float largest, total, sum[4];
  __device__ Running() : largest(-INFINITY), total(0.f), sum{} {}
  /// Adds the next split; the same operations wherever that is done.
  __device__ __forceinline__ void add(float most, float weight, const float4& v) {
    const float bigger = fmaxf(largest, most), safe = bigger == -INFINITY ? 0.f : bigger;
    const float keep = exp2_fast(largest - safe), factor = exp2_fast(most - safe);
    largest = bigger;
    total = __fmaf_rn(weight, factor, __fmul_rn(total, keep));
    sum[0] = __fmaf_rn(v.x, factor, __fmul_rn(sum[0], keep));
    sum[1] = __fmaf_rn(v.y, factor, __fmul_rn(sum[1], keep));
    sum[2] = __fmaf_rn(v.z, factor, __fmul_rn(sum[2], keep));
    sum[3] = __fmaf_rn(v.w, factor, __fmul_rn(sum[3], keep));
  }
  /// The sink enters here, once, after all splits.
  template <class T>
  __device__ __forceinline__ void finish(const AttentionParams& p, int64_t head, T* out) {
    total = p.with_sink(total, largest, static_cast<int>(head));
    const float factor = total == 0.f ? 0.f : 1.f / total;
    const float v[4] = {__fmul_rn(sum[0], factor), __fmul_rn(sum[1], factor), __fmul_rn(sum[2], factor),
                        __fmul_rn(sum[3], factor)};
    store(out, v);
  }
};

/// Four columns of every (32 / kLanes)th row from that of `head` on: `count` splits in order. Rows are `splits` apart
/// in the parts and value_dim in the output.
template <class T, int D, bool MODIFIED>
__device__ __forceinline__ void combine(const AttentionParams& p, const float2* statistics, const float* partial,
                                        T* out, int64_t head, int count, int splits, int rows) {
  constexpr int kRowsAtOnce = 32 / kLanes<D>;
#pragma unroll 1
  for (int row = 0; row < rows; row += kRowsAtOnce) {
    Running all;
    const auto add = [&](int i) {
      const float2 s = __ldcg(statistics + i);
      all.add(s.x, s.y, __ldcg(reinterpret_cast<const float4*>(partial + i * D)));
    };
    int i = 0;
#pragma unroll 1
    for (; i + 16 <= count; i += 16) {
#pragma unroll
      for (int j = 0; j < 16; ++j) add(i + j);
    }
#pragma unroll 1
    for (; i + 4 <= count; i += 4) {
#pragma unroll
      for (int j = 0; j < 4; ++j) add(i + j);
    }
#pragma unroll 1
    for (; i < count; ++i) add(i);
    all.finish(p, head + row, out);
    statistics += kRowsAtOnce * splits;
    partial += kRowsAtOnce * splits * D;
    out += kRowsAtOnce * value_dim_of<MODIFIED>(p);
  }
}

/// Starts copying 16 rows of keys or values, of which those from `hidden` to `valid` are seen; the others become zeros,
/// whatever they hold. `slot`: where row i starts, in lanes i and i + 16; when the rows lie in a row, where the first
/// starts (any valid place when there is none).
template <class T, int D>
__device__ __forceinline__ void copy_rows(const AttentionParams& p, const DecodeWork& work, const void* cache, int dim,
                                          long long slot, int hidden, int valid, uint32_t to) {
  const int lane = threadIdx.x & 31;
  const unsigned seen = valid > hidden ? valid - hidden : 0;
  if (D != 96 && work.contiguous) {
    constexpr int kPieces = D / 8, kRows = 32 / kPieces;  // of a row; rows of an instruction
    const int high = lane / kPieces, piece = (lane % kPieces) ^ high;
    const T* from = static_cast<const T*>(cache) + slot + lane * 8;
    to += high * kStride<D> * 2;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      copy_async16(to + i * kRows * kStride<D> * 2 + ((piece ^ (i * kRows & 7)) << 4), from + i * 256,
                   static_cast<unsigned>(i * kRows + high - hidden) < seen);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    const int item = i * 32 + lane, row = item / (D / 8), piece = item % (D / 8);
    const long long from = __shfl_sync(0xffffffffu, slot, row);
    const bool exists = static_cast<unsigned>(row - hidden) < seen && piece * 8 < dim;
    copy_async16(to + place<D>(row, piece), static_cast<const T*>(cache) + (exists ? from + piece * 8 : 0), exists);
  }
}

template <class T, int D, bool WIDE, bool MODIFIED>
__global__ void __launch_bounds__(kWarps * 32, (kBlocksPerMultiprocessor<D, WIDE>))
    decode_kernel(const __grid_constant__ AttentionParams p, const __grid_constant__ DecodeWork work) {
  pdl_trigger();
  constexpr int kHalves = WIDE ? 2 : 1, kTiles = D / 16, kPending = 2 * kStages<D> - 1;
  extern __shared__ float4
      dynamic_shared[];  // per warp: stages of keys and values; then per warp its part of O [rows, D]
  __shared__ float2 shared_s[kWarps][16];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const uint32_t own_shared = shared_address(dynamic_shared) + warp * kWarpBytes<D>;
  float* const parts = reinterpret_cast<float*>(reinterpret_cast<char*>(dynamic_shared) + kWarps * kWarpBytes<D>);

  Item at = first_item(p, work);
  int stage = 0;
  const float scale = MODIFIED ? kLog2e : p.scale * kLog2e;
  uint32_t q[kTiles][2 * kHalves];
  struct Tile {
    long long token;
    int head0, rows;  // first query head, how many
  };
  // A lane adds up four columns of the rows lane / kLanes + kRowsAtOnce * i.
  constexpr int kRowsAtOnce = 32 / kLanes<D>, kPasses = 8 * kHalves / kRowsAtOnce;
  const int d = (warp * kLanes<D> + lane % kLanes<D>)*4;
  Running running[kPasses];
  bool complete = false;  // this block has all splits of the tile
  unsigned published = 0;
  // Queries of a tile as the first operand; rows past it are zeros.
  const auto load_queries = [&](const Item& of) {
    const int group = work.tiles == 1 ? of.unit : of.unit / work.tiles, within = (of.unit - group * work.tiles) * 16;
    const Tile tile{p.starts[of.sequence], group * p.group_size + within,
                    p.group_size - within < 16 ? p.group_size - within : 16};
    const T* from = static_cast<const T*>(p.qkv) + tile.token * p.row_stride + p.q_offset + group * p.q_group_stride +
                    int64_t(within) * p.head_dim;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int row = g + 8 * h, d = 16 * t + 8 * e + 2 * c;
          q[t][2 * h + e] =
              row < tile.rows && d < p.head_dim ? *reinterpret_cast<const uint32_t*>(from + row * p.head_dim + d) : 0u;
        }
      }
    }
    return tile;
  };
  // The copies' place: the step asked for next, its first key, how many of this warp's 16 keys exist, and where the
  // lane's row starts.
  Item ahead = at;
  int ahead_step = 0, ahead_valid = 0;
  int ahead_block = 0, ahead_row = 0;
  const auto look_up = [&] {
    const int base = ahead.split * ahead.in.size + ahead_step * kStep + warp * 16, end = ahead.in.end(ahead.split);
    ahead_valid = ahead.live ? end - base : 0;
    const int own = work.contiguous ? base : base + (lane & 15);
    ahead_block = ahead_row = 0;
    if (!ahead.live || own >= end) return;
    const int block = p.block_shift >= 0 ? own >> p.block_shift : own / p.block_size;
    ahead_row = (work.tiles == 1 ? ahead.unit : ahead.unit / work.tiles) * p.block_size + own - block * p.block_size;
    ahead_block = p.tables[int64_t(ahead.sequence) * p.max_blocks + block];
  };
  const auto copy = [&](const void* cache, int dim, uint32_t to) {
    const long long slot = (static_cast<long long>(ahead_block) * p.kv_heads * p.block_size + ahead_row) * dim;
    // Rows before the window; ahead_valid counts from the same row.
    const int hidden = p.window > 0 ? p.first_key(ahead.in.context - 1) - ahead.in.end(ahead.split) + ahead_valid : 0;
    if (ahead.live) copy_rows<T, D>(p, work, cache, dim, slot, hidden, ahead_valid, to);
    copy_async_commit();
  };
  const auto copy_keys = [&](int stage) { copy(p.keys, p.head_dim, own_shared + stage * 2 * kTileBytes<D>); };
  const auto copy_values = [&](int stage) {
    copy(p.values, value_dim_of<MODIFIED>(p), own_shared + stage * 2 * kTileBytes<D> + kTileBytes<D>);
    if (!ahead.live) return;
    if (++ahead_step == ahead.steps()) ahead.advance(p, work), ahead_step = 0;
    look_up();
  };
  look_up();
  pdl_wait();  // lengths and tables are read early (launch.h)
  if (!at.live) return;

  Tile tile = load_queries(at);
#pragma unroll 1
  for (int i = 0; i < kStages<D>; ++i) copy_keys(i), copy_values(i);
  for (bool fresh = true; at.live;) {
    if (fresh) {
      complete = at.split == at.in.first && at.reaches_end();
      published = 0;
#pragma unroll
      for (int i = 0; i < kPasses; ++i) running[i] = Running();
    }
    const int begin = at.split * at.in.size, end = at.in.end(at.split), query = at.in.context - 1;
    float o[kHalves][kTiles][4] = {};
    float largest[kHalves], total[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) largest[h] = -INFINITY, total[h] = 0.f;

#pragma unroll 1
    for (int base = begin + warp * 16; base - warp * 16 < end; base += kStep) {
      const uint32_t keys = own_shared + stage * 2 * kTileBytes<D>, values = keys + kTileBytes<D>;
      copy_async_wait<kPending>();
      __syncwarp();
      float s[2][4] = {};
#pragma unroll
      for (int k = 0; k < kTiles; ++k) {
        uint32_t b[4];
        ldmatrix4(b, keys + place<D>((lane & 7) + (lane >> 4) * 8, 2 * k + ((lane >> 3) & 1)));
        mma<T>(s[0], q[k][0], WIDE ? q[k][kHalves] : 0u, q[k][1], WIDE ? q[k][2 * kHalves - 1] : 0u, b[0], b[1]);
        mma<T>(s[1], q[k][0], WIDE ? q[k][kHalves] : 0u, q[k][1], WIDE ? q[k][2 * kHalves - 1] : 0u, b[2], b[3]);
      }
      __syncwarp();
      copy_keys(stage);
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
            if (key >= end || (p.window > 0 && key <= query - p.window))
              x = -INFINITY;
            else if (MODIFIED)
              x = p.score(x, tile.head0 + (g + 8 * h < tile.rows ? g + 8 * h : 0), query, key);
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
        for (int t = 0; t < kTiles; ++t)
          o[h][t][0] *= keep0, o[h][t][1] *= keep1, o[h][t][2] *= keep0, o[h][t][3] *= keep1;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float w0 = exp2_fast(s[j][2 * h] * scale - safe), w1 = exp2_fast(s[j][2 * h + 1] * scale - safe);
          total[h] += w0 + w1;
          w[h][j] = pack2<T>(w0, w1);
        }
      }
      copy_async_wait<kPending>();
      __syncwarp();
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        uint32_t a[4];  // V transposed: rows d, columns keys
        ldmatrix4_transposed(a, values + place<D>((lane & 7) + (lane >> 4) * 8, 2 * t + ((lane >> 3) & 1)));
#pragma unroll
        for (int h = 0; h < kHalves; ++h) mma<T>(o[h][t], a[0], a[1], a[2], a[3], w[h][0], w[h][1]);
      }
      __syncwarp();
      copy_values(stage);
      if (++stage == kStages<D>) stage = 0;
    }

    const Item done = at;
    at.advance(p, work);
    fresh = !at.live || at.sequence != done.sequence || at.unit != done.unit;

    // The warps' parts of the split; lane (g, c) holds d = 16 t + g and + 8 of heads 2c and 2c + 1 (+ 8 h).
    __syncthreads();  // the parts of the split before have been read
    float* const own_part = parts + warp * work.rows * D;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      total[h] += __shfl_xor_sync(0xffffffffu, total[h], 1);
      total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);
      if (c == 0) shared_s[warp][g + 8 * h] = make_float2(largest[h] * scale, total[h]);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int row = 8 * h + 2 * c + e;
        if (row >= tile.rows) continue;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          own_part[row * D + 16 * t + g] = o[h][t][e];
          own_part[row * D + 16 * t + g + 8] = o[h][t][2 + e];
        }
      }
    }
    __syncthreads();

    // A warp adds a quarter of the columns of all four parts.
    if (d < D) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const int row = lane / kLanes<D> + pass * kRowsAtOnce;
        if (row >= tile.rows) break;
        float most = -INFINITY;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) most = fmaxf(most, shared_s[i][row].x);
        const float safe = most == -INFINITY ? 0.f : most;
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
        float weight = 0.f;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) {
          const float factor = exp2_fast(shared_s[i][row].x - safe);
          const float4 v = *reinterpret_cast<const float4*>(parts + (i * work.rows + row) * D + d);
          sum.x += factor * v.x, sum.y += factor * v.y, sum.z += factor * v.z, sum.w += factor * v.w;
          weight += factor * shared_s[i][row].y;
        }
        if (complete) {
          running[pass].add(most, weight, sum);
        } else {
          const int64_t part = (int64_t(done.sequence) * p.heads + tile.head0 + row) * work.splits + done.split;
          *reinterpret_cast<float4*>(work.partial + part * D + d) = sum;
          if (lane % kLanes<D> == 0)
            work.statistics[part] = make_float2(most, weight);  // each warp for itself, all the same
        }
      }
    }
    ++published;
    if (!fresh) continue;

    // The end of this block's part of the tile. Parts are counted by each warp for its columns; who counts last adds
    // the splits up.
    if (!complete) {
      const unsigned count = done.in.last - done.in.first;
      __syncwarp();  // what the warp wrote is before its first lane's fence
      unsigned counted = 0;
      if (lane == 0) {
        __threadfence();
        unsigned* counter = work.counters + (int64_t(done.sequence) * work.units + done.unit) * kWarps + warp;
        counted = atomicAdd(counter, published) + published;
        if (counted == count) *counter = 0;
        __threadfence();
      }
      const bool last = __shfl_sync(0xffffffffu, counted, 0) == count;
      const int row = lane / kLanes<D>;
      const int64_t head = tile.head0 + row,
                    part = (int64_t(done.sequence) * p.heads + head) * work.splits + done.in.first;
      if (last && d < value_dim_of<MODIFIED>(p))
        combine<T, D, MODIFIED>(p, work.statistics + part, work.partial + part * D + d,
                                static_cast<T*>(p.out) + (tile.token * p.heads + head) * value_dim_of<MODIFIED>(p) + d,
                                head, static_cast<int>(count), work.splits, tile.rows - row);
    } else if (d < value_dim_of<MODIFIED>(p)) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const int row = lane / kLanes<D> + pass * kRowsAtOnce;
        if (row < tile.rows)
          running[pass].finish(
              p, tile.head0 + row,
              static_cast<T*>(p.out) + (tile.token * p.heads + tile.head0 + row) * value_dim_of<MODIFIED>(p) + d);
      }
    }
    if (at.live) tile = load_queries(at);
  }
}

template <class T, int D>
void decode(const AttentionParams& p, int max_context, Context& c) {
  DecodeWork work{};
  work.tiles = (p.group_size + 15) / 16;
  work.units = p.kv_heads * work.tiles;
  work.rows = p.group_size < 16 ? p.group_size : 16;
  work.most_splits = most_splits(work.units);
  work.splits = (max_context + kSplit - 1) / kSplit;
  if (work.splits > work.most_splits) work.splits = work.most_splits;
  if (work.splits < 1) return;
  work.counters = c.counters;
  if (work.splits > 1) {
    require(c.counters != nullptr, "attention: the context has no counters");
    require(int64_t(p.sequences) * work.units * kWarps <= kCounters,
            "attention: more than 65536 sequences times key heads");
    const size_t parts = static_cast<size_t>(p.sequences) * p.heads * work.splits;
    work.partial = c.workspace.take_array<float>(parts * D);
    work.statistics = c.workspace.take_array<float2>(parts);
  }
  const size_t shared = kWarps * (size_t(kWarpBytes<D>) + size_t(work.rows) * D * 4),
               reserved = 1024;  // the driver's own, a block
  const int64_t fit =
      static_cast<int64_t>((c.shared_bytes_per_block + reserved) / (shared + kWarps * 16 * sizeof(float2) + reserved));
  const bool wide = p.group_size > 8;
  const int registers = wide ? kBlocksPerMultiprocessor<D, true> : kBlocksPerMultiprocessor<D, false>;
  const int64_t at_once = c.multiprocessors * (fit < 1 ? 1 : fit < registers ? fit : registers);
  const int64_t most = int64_t(p.sequences) * work.units * work.splits;
  work.direct = most <= at_once && work.units < 65536;
  const dim3 grid = work.direct ? dim3(work.splits, work.units, p.sequences) : dim3(static_cast<unsigned>(at_once));
  work.share = 1.f / grid.x;
  work.contiguous = p.block_size % 16 == 0 && p.head_dim == D && p.value_dim == D && D != 96;
  const auto go = [&](auto kernel) { launch(c, "attention", kernel, grid, kWarps * 32, shared, p, work); };
  if (p.modified() || p.value_dim != p.head_dim)
    return wide ? go(decode_kernel<T, D, true, true>) : go(decode_kernel<T, D, false, true>);
  wide ? go(decode_kernel<T, D, true, false>) : go(decode_kernel<T, D, false, false>);
}

template <class T>
void decode(const AttentionParams& p, int max_context, int width, Context& c) {
  if (width == 64) return decode<T, 64>(p, max_context, c);
  if (width == 96) return decode<T, 96>(p, max_context, c);
  if (width == 128) return decode<T, 128>(p, max_context, c);
  decode<T, 256>(p, max_context, c);
}

}  // namespace

void attention_decode(const AttentionParams& p, int max_context, int width, Context& c) {
  if (p.act == DType::f16) return decode<half_t>(p, max_context, width, c);
  decode<bfloat_t>(p, max_context, width, c);
}

}  // namespace q::cuda
