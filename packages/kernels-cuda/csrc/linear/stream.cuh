// stream_linear: out = epilogue(x W^T) for 1 to 32 rows of x; weights dense f16/bf16, bnb4 or int8           decode and small batches
// maths   tensor cores with W as the 16-row operand and x as the 8-column one, so 1..8 rows cost the same; f32 (int8: i32) sums
// layout  a virtual row is one row of one part (gated: a tile holds 8 gate rows and the 8 up rows that belong to them). A block owns a group of virtual
//         rows in tiles of at most 16 and walks k in chunks; each of its 8 warps takes 128 bytes of a row's chunk and has a ring of its own in shared
//         memory that cp.async fills: no barrier until the warps' sums are added. 16-byte pieces are swizzled by row, so reads have no bank conflicts.
//         bnb4 codes become f16/bf16 pairs through a table of 256 pairs, copied for each of the 32 banks (no conflicts); values are code * s, rounded,
//         and each 64 values of k are summed apart and then multiplied by absmax in f32; 1 / s comes last.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 f16 21 us, int8 10.5 us, nf4 5.9 us; 28672 x 8192 nf4 31 us
// launch  one or two blocks a multiprocessor, rows of W spread evenly over them; 256 threads
// needs   sm_80, k % 64 == 0, 16-byte aligned x and W, bnb4: blockSize a power of two from 64; int8: rows quantized by quantize_rows
// exact   sums over k in a fixed order that depends on k only: same bits each run, whatever the other rows hold and however many there are
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "../quant/codebook.h"
#include "launch.h"
#include "problem.h"
#include "ptx.cuh"

namespace q::cuda {

#ifndef Q_TUNE_STAGES
#define Q_TUNE_STAGES 4
#endif
#ifndef Q_TUNE_AHEAD
#define Q_TUNE_AHEAD 64
#endif
constexpr int kWarps = 8, kStreamThreads = kWarps * 32, kSliceBytes = 128, kStages = Q_TUNE_STAGES;
constexpr int kTableBytes = 256 * 32 * 4;

/// Sizes of one variant; ColumnTiles: x rows / 8.
template <WeightKind Kind, int ColumnTiles> struct StreamShape {
  static constexpr bool kBnb4 = Kind == WeightKind::bnb4, kInt8 = Kind == WeightKind::int8;
  static constexpr int kMaxTiles = ColumnTiles == 4 ? 3 : 6;
  static constexpr int kBlockBytes = kBnb4 ? 32 : kInt8 ? 64 : 128;  // of 64 values of k
  static constexpr int kBlocks = kSliceBytes / kBlockBytes;          // in a warp's slice of a row
  static constexpr int kChunk = kWarps * kBlocks * 64;               // k values of all warps' slices
  static constexpr int kWeightBytes = 16 * kSliceBytes;
  static constexpr int kAbsmaxBytes = kBnb4 ? 16 * 16 + 16 * 8 : 0;  // f32 [16, 4]; nested: u8 [16, 4] and f32 [16]
  static constexpr int kStageBytes = kWeightBytes + kAbsmaxBytes;
  static constexpr int kSumStride = kMaxTiles * 16 + 4;
  static constexpr int kSumBytes = ColumnTiles * 8 * kSumStride * 4 * (kInt8 ? 2 : 1);  // int8: dot products and outlier sums
  static constexpr int kRingBytes = kStages * kStageBytes > kSumBytes ? kStages * kStageBytes : kSumBytes;  // of one warp; holds its sums in the end
  static constexpr int kOperands = kInt8 ? 4 : 8;                    // registers that 64 values of one x column take in a lane
  static constexpr bool kLookAhead = kBlocks * kOperands * ColumnTiles <= Q_TUNE_AHEAD;
};

struct StreamPlan {
  int group_rows, tile_rows;  // virtual rows; even when gated
  int virtual_rows, groups;
};

template <class S> constexpr int stream_shared_bytes(int nested_parts) {
  return (S::kBnb4 ? kTableBytes : 0) + kWarps * S::kRingBytes + nested_parts * 1024;
}

static __constant__ float kCodeBooks[2][16] = {
    {kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8], kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8], kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// The tiles of one group of virtual rows.
struct StreamGroup {
  int begin, rows, tile_rows, tiles;
  __device__ StreamGroup(const StreamPlan& plan, int group) {
    begin = group * plan.group_rows;
    rows = min(plan.group_rows, plan.virtual_rows - begin);
    tile_rows = plan.tile_rows;
    tiles = (rows + tile_rows - 1) / tile_rows;
  }
  /// Part and row of slot r (0..15) of a tile; false: the slot is empty.
  __device__ __forceinline__ bool locate(const LinearProblem& p, int tile, int r, int& part, int& row) const {
    const int n = min(tile_rows, rows - tile * tile_rows), v = begin + tile * tile_rows;
    if (p.gated) {
      part = r >> 3;
      row = (v >> 1) + (r & 7);
      return (r & 7) < (n >> 1);
    }
    part = 0;
    row = v + r;
    if (p.parts > 1) {
#pragma unroll
      for (int i = 1; i < kMaxRepeat; ++i) part += i < p.parts && v + r >= p.part[i].first;
      row -= p.part[part].first;
    }
    return r < n;
  }
};

template <WeightKind Kind, class T, int ColumnTiles> struct StreamKernel {
  using S = StreamShape<Kind, ColumnTiles>;
  using Sum = std::conditional_t<S::kInt8, int, float>;
  using Operands = uint32_t[S::kBlocks][ColumnTiles][S::kOperands];
  static constexpr int kOutliersPerLane = ColumnTiles * 4;

  const LinearProblem& p;
  const StreamPlan& plan;
  const QuantizedRows& quantized;
  uint8_t* shared;
  uint8_t* ring;  // of this warp
  int warp, lane, chunks;  // chunks in which this warp has work

  __device__ float* nested_table(int part) const { return reinterpret_cast<float*>(shared + (S::kBnb4 ? kTableBytes : 0) + kWarps * S::kRingBytes) + part * 256; }
  /// First block (64 values of k) of this warp's slice, and how many the slice holds.
  __device__ int first_block(int chunk) const { return (chunk * kWarps + warp) * S::kBlocks; }
  __device__ int blocks_in(int chunk) const { return min(S::kBlocks, static_cast<int>(p.k >> 6) - first_block(chunk)); }
  /// absmax is copied as it is stored; otherwise each value is looked up.
  __device__ bool direct_absmax(const LinearPartView& w) const { return w.block_shift == 6 && (p.k & 255) == 0 && (reinterpret_cast<uintptr_t>(w.absmax) & (w.nested_absmax ? 3 : 15)) == 0; }

  /// Pairs of scaled codes by byte: the high nibble (even k) in the low half.
  __device__ void build_table() {
    const float scale = p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale;
    const float* codes = kCodeBooks[static_cast<int>(p.quant_type)];
    const int high = threadIdx.x >> 4 & 15, low = threadIdx.x & 15;
    const Pack<T, 2> pair{{from_float<T>(codes[high] * scale), from_float<T>(codes[low] * scale)}};
    const uint32_t word = *reinterpret_cast<const uint32_t*>(&pair);
    // a thread an entry; 16-byte steps rotated by thread, so that a quarter warp fills all banks
#pragma unroll
    for (int i = 0; i < 8; ++i) reinterpret_cast<uint4*>(shared)[threadIdx.x * 8 + ((i + threadIdx.x) & 7)] = make_uint4(word, word, word, word);
  }

  __device__ __forceinline__ const uint8_t* weight_row(int part, int row) const { return p.part[part].weight + static_cast<int64_t>(row) * (p.k >> 6) * S::kBlockBytes; }

  /// Before earlier kernels are done only the L2 may be touched: the group's first stages.
  __device__ void prefetch(const StreamGroup& group) const {
    for (int i = 0; i < kStages; ++i) {
      const int chunk = i / group.tiles, tile = i % group.tiles;
      if (chunk >= chunks) return;
      int part, row;
      if (!group.locate(p, tile, lane & 15, part, row)) continue;
      if (lane < 16)
        prefetch_l2(weight_row(part, row) + first_block(chunk) * S::kBlockBytes);
      else if (S::kBnb4)
        prefetch_l2(static_cast<const uint8_t*>(p.part[part].absmax) + (((row * (p.k >> 6) + first_block(chunk)) << 6) >> p.part[part].block_shift) * (p.part[part].nested_absmax ? 1 : 4));
    }
  }

  /// Starts the copies of one stage.
  __device__ __forceinline__ void issue(const StreamGroup& group, int chunk, int tile, int slot) const {
    uint8_t* to = ring + slot * S::kStageBytes;
    const int piece = lane & 7, blocks = blocks_in(chunk);
    if (piece * 16 < blocks * S::kBlockBytes) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = (lane >> 3) + 4 * i;
        int part, row;
        if (group.locate(p, tile, r, part, row)) async_copy<16>(to + swizzled(r, piece), weight_row(part, row) + first_block(chunk) * S::kBlockBytes + piece * 16);
      }
    }
    if constexpr (S::kBnb4) {
      int part, row;
      const int r = lane & 15;
      if (group.locate(p, tile, r, part, row)) issue_absmax(p.part[part], row * (p.k >> 6) + first_block(chunk), blocks, r, to + S::kWeightBytes);
    }
    async_commit();
  }

  /// Lanes r and r + 16 share row r; `first`: its first block, in units of 64 values.
  __device__ __forceinline__ void issue_absmax(const LinearPartView& w, int64_t first, int blocks, int r, uint8_t* to) const {
    float* values = reinterpret_cast<float*>(to) + r * 4;
    if (direct_absmax(w)) {
      if (!w.nested_absmax) {
        if (lane < 16) async_copy<16>(values, static_cast<const float*>(w.absmax) + first);
      } else if (lane < 16) {
        async_copy<4>(to + 256 + r * 4, static_cast<const uint8_t*>(w.absmax) + first);
      } else {
        async_copy<4>(to + 320 + r * 4, w.nested_absmax + (first >> w.nested_shift));
      }
    } else if (lane < 16) {
      for (int i = 0; i < blocks; ++i) values[i] = block_absmax(w, (first + i) >> (w.block_shift - 6));
    }
  }

  /// 16-byte pieces of row r change places so that the lanes of one access (2 rows of 64 bytes; bnb4: 4 rows of 32) fill all banks.
  __device__ __forceinline__ static int swizzled(int r, int piece) { return r * kSliceBytes + (piece ^ (S::kBnb4 ? (r & 3) << 1 : (r & 1) << 2)) * 16; }

  /// Nested absmax of a stage, u8 codes to f32, two values a lane.
  __device__ __forceinline__ void decode_absmax(const StreamGroup& group, int tile, uint8_t* absmax) const {
    int part, row;
    const int r = lane >> 1, half = lane & 1;
    if (group.locate(p, tile, r, part, row) && direct_absmax(p.part[part])) {
      const uint32_t codes = reinterpret_cast<const uint16_t*>(absmax + 256)[lane];
      const float scale = reinterpret_cast<const float*>(absmax + 320)[r], offset = *p.part[part].offset;
      const float* table = nested_table(part);
      reinterpret_cast<float2*>(absmax)[r * 2 + half] =
          make_float2(__fadd_rn(__fmul_rn(table[codes & 255], scale), offset), __fadd_rn(__fmul_rn(table[codes >> 8], scale), offset));
    }
    __syncwarp();
  }

  /// x of this warp's slice of one chunk as the second operand.
  __device__ __forceinline__ void load_x(int chunk, Operands& b) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < S::kBlocks; ++i) {
      const int64_t k = static_cast<int64_t>(first_block(chunk) + i) * 64;
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        const int m = j * 8 + g;
        const bool valid = m < p.rows && k < p.k;
#pragma unroll
        for (int h = 0; h < S::kOperands / 4; ++h) {
          uint4 v = make_uint4(0, 0, 0, 0);
          if constexpr (S::kInt8) {
            if (valid) v = *reinterpret_cast<const uint4*>(quantized.codes + m * p.k + k + t * 16);
          } else {
            const int offset = S::kBnb4 ? t * 16 + h * 8 : t * 8 + h * 32;
            if (valid) v = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + m * p.k + k + offset);
          }
          b[i][j][4 * h] = v.x, b[i][j][4 * h + 1] = v.y, b[i][j][4 * h + 2] = v.z, b[i][j][4 * h + 3] = v.w;
        }
      }
    }
  }

  template <int Byte> __device__ __forceinline__ uint32_t pair(uint32_t codes) const {
    const uint32_t at = Byte == 0 ? codes << 7 : codes >> (8 * Byte - 7);
    return *reinterpret_cast<const uint32_t*>(shared + ((at & 0x7f80u) | (lane * 4)));
  }

  /// Adds one tile times one block of 64 values of k.
  __device__ __forceinline__ void multiply(const uint8_t* tile, int block, float s0, float s1, const uint32_t (&b)[ColumnTiles][S::kOperands], Sum (&c)[ColumnTiles][4]) const {
    const int g = lane >> 2, t = lane & 3;
    if constexpr (S::kBnb4) {
      const int at = swizzled(g, block * 2 + (t >> 1)) + (t & 1) * 8;
      const uint2 w0 = *reinterpret_cast<const uint2*>(tile + at), w1 = *reinterpret_cast<const uint2*>(tile + at + 8 * kSliceBytes);
      const uint32_t a[4][4] = {{pair<0>(w0.x), pair<0>(w1.x), pair<1>(w0.x), pair<1>(w1.x)},
                                {pair<2>(w0.x), pair<2>(w1.x), pair<3>(w0.x), pair<3>(w1.x)},
                                {pair<0>(w0.y), pair<0>(w1.y), pair<1>(w0.y), pair<1>(w1.y)},
                                {pair<2>(w0.y), pair<2>(w1.y), pair<3>(w0.y), pair<3>(w1.y)}};
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        float d[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int i = 0; i < 4; ++i) mma<T>(d, a[i], b[j][2 * i], b[j][2 * i + 1]);
        c[j][0] = fmaf(s0, d[0], c[j][0]), c[j][1] = fmaf(s0, d[1], c[j][1]);
        c[j][2] = fmaf(s1, d[2], c[j][2]), c[j][3] = fmaf(s1, d[3], c[j][3]);
      }
    } else {
#pragma unroll
      for (int h = 0; h < S::kBlockBytes / 64; ++h) {
        const int at = swizzled(g, (block * S::kBlockBytes / 64 + h) * 4 + t);
        const uint4 w0 = *reinterpret_cast<const uint4*>(tile + at), w1 = *reinterpret_cast<const uint4*>(tile + at + 8 * kSliceBytes);
        const uint32_t a[2][4] = {{w0.x, w1.x, w0.y, w1.y}, {w0.z, w1.z, w0.w, w1.w}};
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j) {
            if constexpr (S::kInt8)
              mma_int8(c[j], a[i], b[j][2 * i], b[j][2 * i + 1]);
            else
              mma<T>(c[j], a[i], b[j][4 * h + 2 * i], b[j][4 * h + 2 * i + 1]);
          }
      }
    }
  }

  /// x's outliers in this warp's slice times the dequantized weight. A lane holds one row of the tile and every second row of x; a row of x adds
  /// its own outliers in order of k.
  __device__ void multiply_outliers(const StreamGroup& group, const uint8_t* stage, int chunk, int tile, float (&c)[kOutliersPerLane]) const {
    const int r = lane & 15, slices = quantized.slices;
    int part, row;
    if (!group.locate(p, tile, r, part, row)) return;
    const float scale = static_cast<const float*>(p.part[part].absmax)[row];
    const int slice = chunk * kWarps + warp, first = first_block(chunk) * 64;
#pragma unroll
    for (int i = 0; i < kOutliersPerLane; ++i) {
      const int m = (lane >> 4) + 2 * i;
      if (m >= p.rows) continue;
      const int* starts = quantized.outlier_starts + static_cast<int64_t>(m) * (slices + 1) + slice;
      for (int j = starts[0]; j < starts[1]; ++j) {
        const int k = quantized.outlier_columns[m * p.k + j] - first;
        const int code = static_cast<int8_t>(stage[swizzled(r, k >> 4) + (k & 15)]);
        c[i] = fmaf(to_float(from_float<T>(static_cast<float>(code) * scale * (1.f / 127.f))), quantized.outlier_values[m * p.k + j], c[i]);
      }
    }
  }

  /// Whether any row of x has outliers in this warp's slice.
  __device__ bool any_outliers(int chunk) const {
    if (!S::kInt8 || quantized.slices == 0) return false;
    const int* starts = quantized.outlier_starts + static_cast<int64_t>(lane) * (quantized.slices + 1) + chunk * kWarps + warp;
    return __any_sync(0xffffffffu, lane < p.rows && starts[0] != starts[1]);
  }

  /// Adds the warps' sums in warp order and stores the outputs of a group. int8 keeps outlier sums behind the dot products.
  __device__ void finish(const StreamGroup& group) const {
    const uint8_t* rings = shared + (S::kBnb4 ? kTableBytes : 0);
    const auto total = [&](int m, int r, int part, int row) {
      Sum s = 0;
      float outliers = 0.f;
      for (int w = 0; w < kWarps; ++w) {
        const Sum* sums = reinterpret_cast<const Sum*>(rings + w * S::kRingBytes);
        s += sums[m * S::kSumStride + r];
        if (S::kInt8) outliers += reinterpret_cast<const float*>(sums)[(p.rows + m) * S::kSumStride + r];
      }
      float y = static_cast<float>(s);
      if constexpr (S::kInt8) y = y * (quantized.scales[m] * static_cast<const float*>(p.part[part].absmax)[row] * (1.f / (127.f * 127.f))) + outliers;
      if constexpr (S::kBnb4) y *= 1.f / (p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale);
      return with_bias(p.part[part], row, y);
    };
    const int per_tile = p.gated ? 8 : 16, width = group.tiles * per_tile;
    for (int i = threadIdx.x; i < width * p.rows; i += kStreamThreads) {
      const int m = i / width, slot = i - m * width, tile = slot / per_tile, r = slot % per_tile;
      int part, row;
      if (!group.locate(p, tile, r, part, row)) continue;
      float y = activate(p.activation, total(m, tile * 16 + r, part, row));
      if (p.gated) y *= total(m, tile * 16 + r + 8, 1, row);
      store_output<T>(p, m, p.gated ? row : p.part[part].first + row, y);
    }
  }

  __device__ void run_group(int index) {
    const int g = lane >> 2, t = lane & 3;
    const StreamGroup group(plan, index);
    // Where the copies are, kStages - 1 stages ahead of the products.
    int ahead_chunk = 0, ahead_tile = 0, ahead_slot = 0, slot = 0;
    const auto issue_next = [&] {
      if (ahead_chunk < chunks) {
        issue(group, ahead_chunk, ahead_tile, ahead_slot);
        if (++ahead_tile == group.tiles) ahead_tile = 0, ++ahead_chunk;
        ahead_slot = ahead_slot + 1 == kStages ? 0 : ahead_slot + 1;
      } else {
        async_commit();
      }
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) issue_next();
    Sum c[S::kMaxTiles][ColumnTiles][4];
    float outliers[S::kInt8 ? S::kMaxTiles : 1][kOutliersPerLane];
#pragma unroll
    for (int i = 0; i < S::kMaxTiles; ++i) {
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
      if constexpr (S::kInt8)
#pragma unroll
        for (int j = 0; j < kOutliersPerLane; ++j) outliers[i][j] = 0.f;
    }
    Operands b, ahead;
    if (chunks > 0) load_x(0, b);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      if (S::kLookAhead && chunk + 1 < chunks) load_x(chunk + 1, ahead);
      const bool has_outliers = any_outliers(chunk);
      const int blocks = blocks_in(chunk);
#pragma unroll
      for (int tile = 0; tile < S::kMaxTiles; ++tile) {
        if (tile >= group.tiles) continue;
        async_wait<kStages - 2>();
        __syncwarp();
        issue_next();
        uint8_t* stage = ring + slot * S::kStageBytes;
        slot = slot + 1 == kStages ? 0 : slot + 1;
        float4 s0{}, s1{};
        if constexpr (S::kBnb4) {
          if (p.part[0].nested_absmax) decode_absmax(group, tile, stage + S::kWeightBytes);
          s0 = reinterpret_cast<const float4*>(stage + S::kWeightBytes)[g];
          s1 = reinterpret_cast<const float4*>(stage + S::kWeightBytes)[g + 8];
        }
#pragma unroll
        for (int block = 0; block < S::kBlocks; ++block)
          if (block < blocks)
            multiply(stage, block, block == 0 ? s0.x : block == 1 ? s0.y : block == 2 ? s0.z : s0.w, block == 0 ? s1.x : block == 1 ? s1.y : block == 2 ? s1.z : s1.w, b[block], c[tile]);
        if constexpr (S::kInt8)
          if (has_outliers) multiply_outliers(group, stage, chunk, tile, outliers[tile]);
      }
      if constexpr (S::kLookAhead) {
#pragma unroll
        for (int i = 0; i < S::kBlocks; ++i)
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
            for (int e = 0; e < S::kOperands; ++e) b[i][j][e] = ahead[i][j][e];
      } else if (chunk + 1 < chunks) {
        load_x(chunk + 1, b);
      }
    }
    async_wait<0>();
    __syncwarp();
    if (index + static_cast<int>(gridDim.x) < plan.groups) prefetch(StreamGroup(plan, index + gridDim.x));
    Sum* sums = reinterpret_cast<Sum*>(ring);
#pragma unroll
    for (int i = 0; i < S::kMaxTiles; ++i) {
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int m = j * 8 + 2 * t + (e & 1);
          if (m < p.rows) sums[m * S::kSumStride + i * 16 + g + (e & 2) * 4] = c[i][j][e];
        }
      if constexpr (S::kInt8)
#pragma unroll
        for (int j = 0; j < kOutliersPerLane; ++j) {
          const int m = (lane >> 4) + 2 * j;
          if (m < p.rows) reinterpret_cast<float*>(ring)[(p.rows + m) * S::kSumStride + i * 16 + (lane & 15)] = outliers[i][j];
        }
    }
    __syncthreads();
    finish(group);
    __syncthreads();
  }

  __device__ void run() {
    const int blocks = static_cast<int>(p.k >> 6), first = warp * S::kBlocks, step = kWarps * S::kBlocks;
    chunks = first < blocks ? (blocks - first + step - 1) / step : 0;
    if (static_cast<int>(blockIdx.x) < plan.groups) prefetch(StreamGroup(plan, blockIdx.x));
    if constexpr (S::kBnb4) build_table();
    pdl_begin();
    if constexpr (S::kBnb4)
      for (int part = 0; part < p.parts; ++part)
        if (p.part[part].nested_absmax) nested_table(part)[threadIdx.x] = p.part[part].nested_code[threadIdx.x];
    __syncthreads();
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) run_group(group);
  }
};

template <WeightKind Kind, class T, int ColumnTiles>
__global__ void __launch_bounds__(kStreamThreads, ColumnTiles == 1 ? 2 : 1)
    stream_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ StreamPlan plan, const __grid_constant__ QuantizedRows quantized) {
  using Kernel = StreamKernel<Kind, T, ColumnTiles>;
  extern __shared__ __align__(128) uint8_t shared[];
  const int warp = threadIdx.x >> 5;
  Kernel kernel{p, plan, quantized, shared, shared + (Kernel::S::kBnb4 ? kTableBytes : 0) + warp * Kernel::S::kRingBytes, warp, static_cast<int>(threadIdx.x & 31), 0};
  kernel.run();
}

}  // namespace q::cuda
