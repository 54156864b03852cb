// stream_linear: out = epilogue(x W^T) for 1 to 32 rows of x; weights dense f16/bf16, bnb4 or int8           decode and small batches
// maths   tensor cores with W as the 16-row operand and x as the 8-column one, so 1..8 rows cost the same; f32 (int8: i32) sums
// layout  a virtual row is one row of one part (gated: a tile holds 8 gate rows and the 8 up rows that belong to them). A block owns a group of virtual
//         rows in tiles of at most 16 and walks k in chunks; each of its 8 warps takes 128 bytes of a row's chunk and has a ring of its own in shared
//         memory that cp.async fills: no barrier until the warps' sums, kept in shared memory, are added. 16-byte pieces are swizzled by row, so
//         reads have no bank conflicts. x of a chunk stays in registers over all tiles. The loops are not unrolled: code must fit the instruction cache.
//         bnb4 codes become f16/bf16 pairs through a table of 256 pairs, copied for each of the 32 banks (no conflicts) every 256 bytes, so that one
//         byte permute makes the address; the ring's rows lie in the gaps. Values are code * s, rounded; each 64 values of k are summed apart and then
//         multiplied by absmax in f32; 1 / s comes last.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 f16 21 us, int8 10.5 us, nf4 5.9 us; 28672 x 8192 nf4 31 us
// launch  two blocks of 256 threads a multiprocessor (bnb4 with over 16 rows: one), rows of W spread evenly over them
// needs   sm_80, k % 64 == 0, 16-byte aligned x and W, bnb4: blockSize a power of two from 64; int8: rows quantized by quantize_rows
// exact   sums over k in a fixed order that depends on k only: same bits each run, whatever the other rows hold and however many there are
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "../quant/codebook.h"
#include "launch.h"
#include "problem.h"
#include "ptx.cuh"

namespace q::cuda {

constexpr int kWarps = 8, kStreamThreads = kWarps * 32, kSliceBytes = 128, kMostTiles = 6;
/// Of each row, moved to the L2 ahead of use: with 42 rows a block and two blocks a multiprocessor 22 MB in all, under half of the L2.
constexpr int kPrefetchBytes = 2048;

/// Sizes of one variant; ColumnTiles: x rows / 8.
template <WeightKind Kind, int ColumnTiles> struct StreamShape {
  static constexpr bool kBnb4 = Kind == WeightKind::bnb4, kInt8 = Kind == WeightKind::int8;
  /// Blocks that share a multiprocessor. Two hide each other's latencies; bnb4 needs the registers for x, and x is read once a block.
  static constexpr int kBlocksPerMultiprocessor = kBnb4 && ColumnTiles > 1 ? 1 : 2;
  static constexpr int kStages = kBnb4 ? 3 : ColumnTiles == 1 ? 4 : 3;
  static constexpr int kBlockBytes = kBnb4 ? 32 : kInt8 ? 64 : 128;  // of 64 values of k
  static constexpr int kBlocks = kSliceBytes / kBlockBytes;          // in a warp's slice of a row
  static constexpr int kOperands = kInt8 ? 4 : 8;                    // registers that 64 values of one x column take in a lane
  static constexpr bool kLookAhead = kBlocks * kOperands * ColumnTiles <= (kBlocksPerMultiprocessor == 1 ? 64 : 32);
  static constexpr int kRowStride = kBnb4 ? 256 : kSliceBytes;       // of a row in the ring
  static constexpr int kStageBytes = kWarps * 16 * kRowStride;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr bool kSumsInGaps = kBnb4 && ColumnTiles == 1;     // of the third stage; at most 4 tiles
  static constexpr int kAbsmaxBytes = kBnb4 ? kStages * kWarps * 256 : 0;  // f32 [16, 4] a stage and warp
  static constexpr int kSumsBytes = kWarps * ColumnTiles * 512;            // of a tile
};

/// One row of a group: where it is, so that the copies need no search.
struct StreamRow {
  const uint8_t* weight;  // null: the slot is empty
  const uint8_t* absmax;  // bnb4
  const float* nested;
  int64_t first_part;     // first block of the row (units of 64 values) << 2 | part
};

/// Where the pieces of dynamic shared memory start.
template <class S> struct StreamLayout {
  int absmax, sums, outliers, rows, nested, total;
  __host__ __device__ StreamLayout(int tiles, bool has_outliers, int nested_parts) {
    absmax = S::kRingBytes;
    sums = absmax + S::kAbsmaxBytes;
    outliers = sums + (S::kSumsInGaps ? 0 : tiles * S::kSumsBytes);
    rows = outliers + (has_outliers ? tiles * S::kSumsBytes : 0);
    nested = rows + tiles * 16 * static_cast<int>(sizeof(StreamRow));
    total = nested + nested_parts * 1040;  // 256 values and the offset
  }
};

struct StreamPlan {
  int group_rows, tile_rows;  // virtual rows; even when gated
  int virtual_rows, groups;
  int tiles;         // of a whole group
  int nested_parts;  // number of parts if absmax is nested
};

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
  static constexpr int kStages = S::kStages;

  const LinearProblem& p;
  const StreamPlan& plan;
  const QuantizedRows& quantized;
  const StreamLayout<S> at;
  uint8_t* shared;
  uint32_t base;  // the same as an address of shared memory
  int warp, lane;
  int chunks;  // in which this warp has work
  bool direct;  // absmax is copied as it is stored; otherwise each value is looked up

  __device__ StreamRow* rows() const { return reinterpret_cast<StreamRow*>(shared + at.rows); }
  __device__ float* nested_table(int part) const { return reinterpret_cast<float*>(shared + at.nested + part * 1040); }
  /// A lane's 4 sums of column tile j of a tile, as the products leave them.
  __device__ __forceinline__ Sum* sums(int w, int tile, int j, int of_lane) const {
    if (S::kSumsInGaps) return reinterpret_cast<Sum*>(shared + 2 * S::kStageBytes + ((tile * kWarps + w) * 4 + (of_lane >> 3)) * 256 + (of_lane & 7) * 16);
    return reinterpret_cast<Sum*>(shared + at.sums + ((tile * kWarps + w) * ColumnTiles + j) * 512 + of_lane * 16);
  }
  __device__ float* outlier_sums(int w, int tile) const { return reinterpret_cast<float*>(shared + at.outliers + (tile * kWarps + w) * ColumnTiles * 512); }
  /// First block (64 values of k) of this warp's slice, and how many the slice holds.
  __device__ int first_block(int chunk) const { return (chunk * kWarps + warp) * S::kBlocks; }
  __device__ int blocks_in(int chunk) const { return min(S::kBlocks, static_cast<int>(p.k >> 6) - first_block(chunk)); }

  /// Offset of this warp's 16 rows of a stage.
  __device__ __forceinline__ int stage(int slot) const { return slot * S::kStageBytes + warp * (16 * S::kRowStride) + (S::kBnb4 ? 128 : 0); }
  __device__ __forceinline__ int absmax_of(int slot) const { return S::kRingBytes + (slot * kWarps + warp) * 256; }
  /// 16-byte pieces of row r change places so that the lanes of one access (2 rows of 64 bytes; bnb4: 4 rows of 32) fill all banks.
  __device__ __forceinline__ static int swizzled(int r, int piece) { return (piece ^ (S::kBnb4 ? (r & 3) << 1 : (r & 1) << 2)) * 16; }

  /// Pairs of scaled codes by byte: the high nibble (even k) in the low half. A thread an entry, rotated so that a quarter warp fills all banks.
  __device__ void build_table() {
    const float scale = p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale;
    const float* codes = kCodeBooks[static_cast<int>(p.quant_type)];
    const Pack<T, 2> pair{{from_float<T>(codes[threadIdx.x >> 4] * scale), from_float<T>(codes[threadIdx.x & 15] * scale)}};
    const uint32_t word = *reinterpret_cast<const uint32_t*>(&pair);
#pragma unroll
    for (int i = 0; i < 8; ++i) *reinterpret_cast<uint4*>(shared + threadIdx.x * 256 + ((i + threadIdx.x) & 7) * 16) = make_uint4(word, word, word, word);
  }


  /// Fills the table of rows and starts moving them to the L2, which is also what may be done before earlier kernels are done; the block
  /// synchronises after it.
  __device__ void locate_rows(const StreamGroup& group) const {
    const int64_t row_bytes = (p.k >> 6) * S::kBlockBytes;
    for (int i = threadIdx.x; i < group.tiles * 16; i += kStreamThreads) {
      int part, row;
      StreamRow r{};
      if (group.locate(p, i >> 4, i & 15, part, row)) {
        const LinearPartView& w = p.part[part];
        const int64_t first = row * (p.k >> 6);
        r.weight = w.weight + row * row_bytes;
        r.first_part = first << 2 | part;
        prefetch_l2(r.weight, static_cast<uint32_t>(min(row_bytes, static_cast<int64_t>(kPrefetchBytes))));
        if constexpr (S::kBnb4) {
          r.absmax = static_cast<const uint8_t*>(w.absmax) + first * (w.nested_absmax ? 1 : 4);
          r.nested = w.nested_absmax;
        }
      }
      rows()[i] = r;
    }
  }

  /// Nested absmax on its way through registers: two blocks of row lane / 2. They are loaded with a stage's copies, and decoded into the stage one
  /// step later, when the loads are done.
  struct Nested {
    uint32_t codes;
    float scale;
    int part, slot;  // slot -1: nothing to decode
  };
  __device__ __forceinline__ void load_nested(Nested& n, const uint8_t* codes, const float* nested, int64_t block, int part, int slot) const {
    n.codes = __ldg(reinterpret_cast<const uint16_t*>(codes + (lane & 1) * 2));
    n.scale = __ldg(nested + (block >> p.part[0].nested_shift));
    n.part = part;
    n.slot = slot;
  }
  __device__ __forceinline__ void store_nested(Nested& n) const {
    if (n.slot < 0) return;
    const float* table = nested_table(n.part);
    const float offset = table[256];
    reinterpret_cast<float2*>(shared + absmax_of(n.slot))[lane] =
        make_float2(__fadd_rn(__fmul_rn(table[n.codes & 255], n.scale), offset), __fadd_rn(__fmul_rn(table[n.codes >> 8], n.scale), offset));
    n.slot = -1;
  }

  /// Rows of a group that lie in one part (gated: in both parts side by side) are at even distances: where this lane's copies of the next stage come
  /// from, moved along instead of looked up. Rows lane / 8 and + 4 of the tile come from `low`, + 8 and + 12 from `high`.
  struct Walk {
    const uint8_t *low, *high;
    const uint8_t* absmax;  // row lane % 16; nested: lane / 2
    const float* nested;
    int64_t block;          // that row's first block in this slice
    int part;
    uint32_t full, last;    // what this lane copies of a tile, of the last tile: bits 0, 1 of low, 2, 3 of high, 4 absmax
    bool even;              // false: the rows are looked up
  };

  __device__ uint32_t copies(int count) const {
    const int r0 = lane >> 3, low = (p.gated ? count >> 1 : count) - r0, high = (p.gated ? count >> 1 : count - 8) - r0;
    const int r = plan.nested_parts ? lane >> 1 : lane;
    const bool absmax = S::kBnb4 && r < 16 && (p.gated ? (r & 7) < count >> 1 : r < count);
    return (low > 0) | (low > 4) << 1 | (high > 0) << 2 | (high > 4) << 3 | absmax << 4;
  }

  __device__ Walk walk(const StreamGroup& group) const {
    Walk w{};
    int part = 0, last = 0, row = 0, unused;
    group.locate(p, 0, 0, part, row);
    group.locate(p, group.tiles - 1, min(group.tile_rows, group.rows - (group.tiles - 1) * group.tile_rows) - 1, last, unused);
    w.even = (p.gated || part == last) && (!S::kBnb4 || direct);
    const int64_t row_blocks = p.k >> 6, row_bytes = row_blocks * S::kBlockBytes;
    const int64_t offset = static_cast<int64_t>(warp) * kSliceBytes + (lane & 7) * 16;
    w.low = p.part[part].weight + (row + (lane >> 3)) * row_bytes + offset;
    w.full = copies(group.tile_rows);
    w.last = copies(group.rows - (group.tiles - 1) * group.tile_rows);
    w.high = p.gated ? p.part[1].weight + (row + (lane >> 3)) * row_bytes + offset : w.low + 8 * row_bytes;
    if constexpr (S::kBnb4) {
      const int r = plan.nested_parts ? lane >> 1 : lane & 15;
      w.part = p.gated && r >= 8 ? 1 : part;
      const LinearPartView& v = p.part[w.part];
      w.block = (row + (p.gated ? r & 7 : r)) * row_blocks + first_block(0);
      w.nested = v.nested_absmax;
      w.absmax = static_cast<const uint8_t*>(v.absmax) + w.block * (v.nested_absmax ? 1 : 4);
    }
    return w;
  }

  /// Moves on by `rows` rows (per part), then by `chunks` chunks.
  __device__ __forceinline__ void move(Walk& w, int64_t rows, int moved_chunks) const {
    const int64_t blocks = rows * (p.k >> 6) + moved_chunks * (kWarps * S::kBlocks), bytes = blocks * S::kBlockBytes;
    w.low += bytes;
    w.high += bytes;
    if constexpr (S::kBnb4) {
      w.block += blocks;
      w.absmax += blocks * (plan.nested_parts ? 1 : 4);
    }
  }

  /// Starts the copies of one stage from the walk's place.
  __device__ __forceinline__ void issue_even(const Walk& w, int chunk, uint32_t copies, int slot, Nested& nested) const {
    const int piece = lane & 7, r0 = lane >> 3;
    const int64_t step = (p.k >> 6) * (4 * S::kBlockBytes);
    const uint32_t to = base + stage(slot) + r0 * S::kRowStride + swizzled(r0, piece);
    if (piece * 16 < blocks_in(chunk) * S::kBlockBytes) {
      if (copies & 1) async_copy<16>(to, w.low);
      if (copies & 2) async_copy<16>(to + 4 * S::kRowStride, w.low + step);
      if (copies & 4) async_copy<16>(to + 8 * S::kRowStride, w.high);
      if (copies & 8) async_copy<16>(to + 12 * S::kRowStride, w.high + step);
    }
    if constexpr (S::kBnb4) {
      if (!plan.nested_parts) {
        if (copies & 16) async_copy<16>(base + absmax_of(slot) + lane * 16, w.absmax);
      } else {
        store_nested(nested);
        if (copies & 16) load_nested(nested, w.absmax, w.nested, w.block, w.part, slot);
      }
    }
    async_commit();
  }

  /// Starts the copies of one stage. `offset`: of this lane's 16 bytes in a row of W.
  __device__ __forceinline__ void issue(int chunk, int tile, int slot, int64_t offset, Nested& nested) const {
    const uint32_t to = base + stage(slot);
    const int piece = lane & 7, r0 = lane >> 3;
    const StreamRow* table = rows() + tile * 16;
    if (piece * 16 < blocks_in(chunk) * S::kBlockBytes) {
      const uint8_t* from[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) from[i] = table[r0 + 4 * i].weight;
      // rows r and r + 4 are swizzled alike
      const uint32_t first = to + r0 * S::kRowStride + swizzled(r0, piece);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (from[i]) async_copy<16>(first + i * 4 * S::kRowStride, from[i] + offset);
    }
    if constexpr (S::kBnb4) {
      const int first = first_block(chunk);
      if (direct && plan.nested_parts) {
        const StreamRow& row = table[lane >> 1];
        store_nested(nested);
        if (row.weight) load_nested(nested, row.absmax + first, row.nested, (row.first_part >> 2) + first, static_cast<int>(row.first_part & 3), slot);
      } else if (const StreamRow& row = table[lane & 15]; lane < 16 && row.weight) {
        if (direct)
          async_copy<16>(base + absmax_of(slot) + lane * 16, row.absmax + first * 4);
        else
          look_up_absmax(row, first, blocks_in(chunk), reinterpret_cast<float*>(shared + absmax_of(slot)) + lane * 4);
      }
    }
    async_commit();
  }

  __device__ __noinline__ void look_up_absmax(const StreamRow& row, int first, int blocks, float* to) const {
    const LinearPartView& w = p.part[row.first_part & 3];
    for (int i = 0; i < blocks; ++i) to[i] = block_absmax(w, ((row.first_part >> 2) + first + i) >> (w.block_shift - 6));
  }

  /// absmax of rows g and g + 8 for the blocks of a stage, in every lane.
  __device__ __forceinline__ void read_absmax(int slot, float (&s0)[4], float (&s1)[4]) const {
    const float4* values = reinterpret_cast<const float4*>(shared + absmax_of(slot));
    const float4 low = values[lane >> 2], high = values[(lane >> 2) + 8];
    s0[0] = low.x, s0[1] = low.y, s0[2] = low.z, s0[3] = low.w;
    s1[0] = high.x, s1[1] = high.y, s1[2] = high.z, s1[3] = high.w;
  }

  /// x of this warp's slice of one chunk as the second operand.
  __device__ __forceinline__ void load_x(int chunk, Operands& b) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j) {
      const int m = j * 8 + g;
      const int64_t row = m * p.k + static_cast<int64_t>(first_block(chunk)) * 64;
      const int blocks = m < p.rows ? blocks_in(chunk) : 0;
#pragma unroll
      for (int i = 0; i < S::kBlocks; ++i) {
#pragma unroll
        for (int h = 0; h < S::kOperands / 4; ++h) {
          uint4 v = make_uint4(0, 0, 0, 0);
          if constexpr (S::kInt8) {
            if (i < blocks) v = *reinterpret_cast<const uint4*>(quantized.codes + row + i * 64 + t * 16);
          } else {
            const int offset = i * 64 + (S::kBnb4 ? t * 16 + h * 8 : t * 8 + h * 32);
            if (i < blocks) v = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + row + offset);
          }
          b[i][j][4 * h] = v.x, b[i][j][4 * h + 1] = v.y, b[i][j][4 * h + 2] = v.z, b[i][j][4 * h + 3] = v.w;
        }
      }
    }
  }

  template <int Byte> __device__ __forceinline__ uint32_t pair(uint32_t codes) const {
    return *reinterpret_cast<const uint32_t*>(shared + __byte_perm(codes, lane * 4, 0x5504 | Byte << 4));
  }

  /// Adds one tile times one block of 64 values of k; `row`: row g of the stage.
  __device__ __forceinline__ void multiply(const uint8_t* row, int block, float s0, float s1, const uint32_t (&b)[ColumnTiles][S::kOperands], Sum (&c)[ColumnTiles][4]) const {
    const int g = lane >> 2, t = lane & 3;
    if constexpr (S::kBnb4) {
      const uint8_t* low = row + swizzled(g, block * 2 + (t >> 1)) + (t & 1) * 8;
      const uint2 w0 = *reinterpret_cast<const uint2*>(low), w1 = *reinterpret_cast<const uint2*>(low + 8 * S::kRowStride);
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
        const uint8_t* low = row + swizzled(g, (block * S::kBlockBytes / 64 + h) * 4 + t);
        const uint4 w0 = *reinterpret_cast<const uint4*>(low), w1 = *reinterpret_cast<const uint4*>(low + 8 * S::kRowStride);
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
  __device__ __forceinline__ void multiply_outliers(const uint8_t* weights, int chunk, int tile) const {
    const int r = lane & 15;
    const StreamRow& row = rows()[tile * 16 + r];
    if (!row.weight) return;
    const int n = static_cast<int>((row.first_part >> 2) / (p.k >> 6)), slice = chunk * kWarps + warp, first = first_block(chunk) * 64;
    const float scale = static_cast<const float*>(p.part[row.first_part & 3].absmax)[n];
    float* to = outlier_sums(warp, tile) + lane;
    for (int m = lane >> 4, i = 0; m < p.rows; m += 2, ++i) {
      const int* starts = quantized.outlier_starts + static_cast<int64_t>(m) * (quantized.slices + 1) + slice;
      const int end = starts[1];
      if (starts[0] == end) continue;
      float sum = to[i * 32];
      for (int j = starts[0]; j < end; ++j) {
        const int k = quantized.outlier_columns[m * p.k + j] - first;
        const int code = static_cast<int8_t>(weights[r * kSliceBytes + swizzled(r, k >> 4) + (k & 15)]);
        sum = fmaf(to_float(from_float<T>(static_cast<float>(code) * scale * (1.f / 127.f))), quantized.outlier_values[m * p.k + j], sum);
      }
      to[i * 32] = sum;
    }
  }

  /// Whether any row of x has outliers in this warp's slice.
  __device__ bool any_outliers(int chunk) const {
    if (!S::kInt8 || quantized.slices == 0) return false;
    const int* starts = quantized.outlier_starts + static_cast<int64_t>(lane) * (quantized.slices + 1) + chunk * kWarps + warp;
    return __any_sync(0xffffffffu, lane < p.rows && starts[0] != starts[1]);
  }

  /// One output before bias: the warps' sums in warp order. Row m of x, slot r of a tile.
  __device__ float total(int m, int tile, int r, float scale) const {
    Sum s = 0;
    const int holder = (r & 7) << 2 | (m & 7) >> 1, element = (m & 1) | (r >> 3) << 1;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) s += sums(w, tile, m >> 3, holder)[element];
    float y = static_cast<float>(s);
    if constexpr (S::kInt8) {
      y *= quantized.scales[m] * scale * (1.f / (127.f * 127.f));
      if (quantized.slices) {
        float outliers = 0.f;
        for (int w = 0; w < kWarps; ++w) outliers += outlier_sums(w, tile)[(m >> 1) * 32 + (m & 1) * 16 + r];
        y += outliers;
      }
    }
    if constexpr (S::kBnb4) y *= 1.f / (p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale);
    return y;
  }

  /// Adds the warps' sums and stores the outputs of a group.
  __device__ void finish(const StreamGroup& group) const {
    const int per_tile = p.gated ? 8 : 16, width = group.tiles * per_tile;
#pragma unroll 1
    for (int i = threadIdx.x; i < width * p.rows; i += kStreamThreads) {
      const int m = i / width, slot = i - m * width, tile = slot / per_tile, r = slot % per_tile;
      int part, row;
      if (!group.locate(p, tile, r, part, row)) continue;
      const auto output = [&](int in_tile, int of) {
        const LinearPartView& w = p.part[of];
        return with_bias(w, row, total(m, tile, in_tile, S::kInt8 ? static_cast<const float*>(w.absmax)[row] : 0.f));
      };
      float y = activate(p.activation, output(r, part));
      if (p.gated) y *= output(r + 8, 1);
      store_output<T>(p, m, p.gated ? row : p.part[part].first + row, y);
    }
  }

  __device__ void run_group(const StreamGroup& group) {
    const int g = lane >> 2;
    // Where the copies are, kStages - 1 stages ahead of the products.
    int ahead_chunk = 0, ahead_tile = 0, ahead_slot = 0, slot = 0;
    int64_t ahead_offset = static_cast<int64_t>(warp) * kSliceBytes + (lane & 7) * 16;
    Walk ahead_walk = walk(group);
    Nested nested{0, 0.f, 0, -1};
    const int tile_rows = p.gated ? group.tile_rows >> 1 : group.tile_rows;
    const auto issue_next = [&] {
      if (ahead_chunk >= chunks) {
        if constexpr (S::kBnb4) store_nested(nested);
        return async_commit();
      }
      if (ahead_walk.even)
        issue_even(ahead_walk, ahead_chunk, ahead_tile + 1 == group.tiles ? ahead_walk.last : ahead_walk.full, ahead_slot, nested);
      else
        issue(ahead_chunk, ahead_tile, ahead_slot, ahead_offset, nested);
      if (++ahead_tile == group.tiles) {
        move(ahead_walk, -static_cast<int64_t>(tile_rows) * (group.tiles - 1), 1);
        ahead_tile = 0, ++ahead_chunk, ahead_offset += kWarps * kSliceBytes;
      } else {
        move(ahead_walk, tile_rows, 0);
      }
      if (++ahead_slot == kStages) ahead_slot = 0;
    };
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) issue_next();
    Operands b, ahead;
    if (chunks > 0) load_x(0, b);
#pragma unroll 1
    for (int tile = 0; tile < group.tiles; ++tile) {
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        if (chunks == 0) *reinterpret_cast<uint4*>(sums(warp, tile, j, lane)) = make_uint4(0, 0, 0, 0);
        if (S::kInt8 && quantized.slices) *reinterpret_cast<uint4*>(outlier_sums(warp, tile) + j * 128 + lane * 4) = make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk) {
      if (S::kLookAhead && chunk + 1 < chunks) load_x(chunk + 1, ahead);
      const bool has_outliers = any_outliers(chunk);
      const int blocks = blocks_in(chunk);
#pragma unroll 1
      for (int tile = 0; tile < group.tiles; ++tile) {
        Sum c[ColumnTiles][4] = {};
        if (chunk > 0)
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j) *reinterpret_cast<uint4*>(c[j]) = *reinterpret_cast<const uint4*>(sums(warp, tile, j, lane));
        async_wait<kStages - 2>();
        __syncwarp();
        issue_next();
        const uint8_t* weights = shared + stage(slot);
        float s0[4]{}, s1[4]{};
        if constexpr (S::kBnb4) read_absmax(slot, s0, s1);
        if (++slot == kStages) slot = 0;
        const auto block = [&](int i) {
          multiply(weights + g * S::kRowStride, i, s0[i], s1[i], b[i], c);
        };
        if (blocks == S::kBlocks) {  // without branches between them the blocks overlap
#pragma unroll
          for (int i = 0; i < S::kBlocks; ++i) block(i);
        } else {
#pragma unroll
          for (int i = 0; i < S::kBlocks - 1; ++i)
            if (i < blocks) block(i);
        }
        if (has_outliers) multiply_outliers(weights, chunk, tile);
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j) *reinterpret_cast<uint4*>(sums(warp, tile, j, lane)) = *reinterpret_cast<const uint4*>(c[j]);
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
  }

  __device__ void run() {
    const int blocks = static_cast<int>(p.k >> 6), first = warp * S::kBlocks, step = kWarps * S::kBlocks;
    chunks = first < blocks ? (blocks - first + step - 1) / step : 0;
    direct = (p.k & 255) == 0;
    if constexpr (S::kBnb4)
      for (int i = 0; i < p.parts; ++i) {
        const LinearPartView& w = p.part[i];
        direct = direct && w.block_shift == 6 && (reinterpret_cast<uintptr_t>(w.absmax) & (w.nested_absmax ? 3 : 15)) == 0 && w.nested_shift == p.part[0].nested_shift && !w.nested_absmax == !p.part[0].nested_absmax;
      }
    locate_rows(StreamGroup(plan, blockIdx.x));
    if constexpr (S::kBnb4) build_table();
    pdl_begin();
    for (int i = 0; i < plan.nested_parts; ++i) {
      if (!p.part[i].nested_absmax) continue;
      nested_table(i)[threadIdx.x] = p.part[i].nested_code[threadIdx.x];
      if (threadIdx.x == 0) nested_table(i)[256] = *p.part[i].offset;
    }
    __syncthreads();
    for (int index = blockIdx.x;;) {
      const StreamGroup group(plan, index);
      run_group(group);
      __syncthreads();
      index += gridDim.x;
      if (index < plan.groups) locate_rows(StreamGroup(plan, index));
      finish(group);
      if (index >= plan.groups) return;
      __syncthreads();
    }
  }
};

template <WeightKind Kind, class T, int ColumnTiles>
__global__ void __launch_bounds__(kStreamThreads, (StreamShape<Kind, ColumnTiles>::kBlocksPerMultiprocessor))
    stream_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ StreamPlan plan, const __grid_constant__ QuantizedRows quantized) {
  using Kernel = StreamKernel<Kind, T, ColumnTiles>;
  extern __shared__ __align__(128) uint8_t shared[];
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));  // kept in a register: reading the thread index is slow
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0);
  Kernel kernel{p, plan, quantized, StreamLayout<typename Kernel::S>(plan.tiles, quantized.slices > 0, plan.nested_parts), shared, shared_address(shared), warp, lane, 0, false};
  kernel.run();
}

}  // namespace q::cuda
