// stream_linear: out = epilogue(x W^T) for 1 to 32 rows of x; weights dense f16/bf16, bnb4 or int8           decode and small batches
// maths   tensor cores with W as the 16-row operand and x as the 8-column one, so 1..8 rows cost the same; f32 (int8: i32) sums
// layout  a virtual row is one row of one part (gated: a tile holds 8 gate rows and the 8 up rows that belong to them). A block owns a group of up to
//         96 virtual rows in tiles of at most 16, and walks k in chunks; a stage of the ring is one chunk of kTilesPerStage tiles.
//         bnb4 codes become f16/bf16 pairs through a table of 256 pairs, copied for each of the 32 banks (no conflicts); values are code * s, rounded,
//         and each 64 values of k are summed apart and then multiplied by absmax / s in f32.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 f16 21 us, int8 10.5 us, nf4 5.9 us; 28672 x 8192 nf4 31 us
// launch  about one block a multiprocessor, rows of W spread evenly; 8 warps compute, each 1/8 of every chunk's k; warp 8 issues bulk copies;
//         warp 9 brings absmax (nested: decodes it) or multiplies int8 outliers
// needs   sm_80 (bulk copies: sm_90), k % 64 == 0, 16-byte aligned x and W, bnb4: blockSize % 64 == 0; int8: rows quantized by quantize_rows
// exact   sums over k in a fixed order that depends on k only: same bits each run, whatever the other rows hold
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "../quant/codebook.h"
#include "launch.h"
#include "problem.h"
#include "ptx.cuh"

namespace q::cuda {

constexpr int kComputeWarps = 8, kStreamThreads = 320, kMaxTiles = 6;
constexpr int kTableBytes = 256 * 32 * 4;

/// Sizes of one variant; kColumnTiles: x rows / 8.
template <WeightKind Kind, int ColumnTiles> struct StreamShape {
  static constexpr bool kBnb4 = Kind == WeightKind::bnb4, kInt8 = Kind == WeightKind::int8;
  static constexpr int kColumnTiles = ColumnTiles;
  static constexpr int kChunk = kBnb4 ? (ColumnTiles == 4 ? 512 : 1024) : kInt8 ? 1024 : 512;  // k values in a stage
  static constexpr int kTilesPerStage = kBnb4 ? (ColumnTiles == 4 ? 3 : 2) : 1;
  static constexpr int kSets = kMaxTiles / kTilesPerStage;
  static constexpr int kBlocks = kChunk / 64, kBlocksPerWarp = kBlocks / kComputeWarps;
  static constexpr int kBlockBytes = kBnb4 ? 32 : kInt8 ? 64 : 128;          // of 64 values of k
  static constexpr int kRowBytes = kBlocks * kBlockBytes + (kBnb4 ? 32 : 64);  // padding: rows g and g + 1 fall into different banks
  static constexpr int kRows = kTilesPerStage * 16;
  static constexpr int kAbsmaxStride = kBlocks + 4;
  static constexpr int kWeightBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = (kWeightBytes + (kBnb4 ? kRows * kAbsmaxStride * 4 : 0) + 127) / 128 * 128;
  static constexpr int kSumStride = kRows + 4;
  static constexpr int kOperands = kInt8 ? 4 : 8;  // registers that 64 values of one x column take in a lane
  static constexpr bool kLookAhead = ColumnTiles <= 2 || kInt8;
};

struct StreamPlan {
  int group_rows, tile_rows;  // virtual rows; even when gated
  int64_t virtual_rows;
  int groups, stages;
};

/// Where the pieces of dynamic shared memory start.
template <class S> struct StreamShared {
  __host__ __device__ static constexpr int ring() { return S::kBnb4 ? kTableBytes : 0; }
  __host__ __device__ static constexpr int nested(int stages) { return ring() + stages * S::kStageBytes; }
  __host__ __device__ static constexpr int sums(int stages) { return nested(stages) + (S::kBnb4 ? kMaxRepeat * 1024 : 0); }
  __host__ __device__ static constexpr int outliers(int stages, int rows) { return sums(stages) + kComputeWarps * rows * S::kSumStride * 4; }
  __host__ __device__ static constexpr int barriers(int stages, int rows) { return outliers(stages, rows) + (S::kInt8 ? rows * S::kSumStride * 4 : 0); }
  __host__ __device__ static constexpr int total(int stages, int rows) { return barriers(stages, rows) + stages * 16; }
};

static __constant__ float kCodeBooks[2][16] = {
    {kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8], kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8], kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// The tiles of one group of virtual rows.
struct StreamGroup {
  int64_t begin;
  int rows, tile_rows, tiles;
  bool gated;
  __device__ StreamGroup(const LinearProblem& p, const StreamPlan& plan, int group) {
    begin = static_cast<int64_t>(group) * plan.group_rows;
    const int64_t left = plan.virtual_rows - begin;
    rows = left < plan.group_rows ? static_cast<int>(left) : plan.group_rows;
    tile_rows = plan.tile_rows;
    tiles = (rows + tile_rows - 1) / tile_rows;
    gated = p.gated;
  }
  __device__ int count(int tile) const { return tile < tiles ? min(tile_rows, rows - tile * tile_rows) : 0; }
  /// Part and row of slot r (0..15) of a tile; false: the slot is empty.
  __device__ bool locate(const LinearProblem& p, int tile, int r, int& part, int64_t& row) const {
    const int n = count(tile);
    const int64_t v = begin + tile * tile_rows;
    if (gated) {
      part = r >> 3;
      row = (v >> 1) + (r & 7);
      return (r & 7) < (n >> 1);
    }
    part = 0;
    while (part + 1 < p.parts && v + r >= p.part[part + 1].first) ++part;
    row = v + r - p.part[part].first;
    return r < n;
  }
};

/// Position in the ring.
struct RingPlace {
  int slot = 0;
  uint32_t phase = 0;
  __device__ void advance(int stages) {
    if (++slot == stages) {
      slot = 0;
      phase ^= 1;
    }
  }
};

template <WeightKind Kind, class T, int ColumnTiles> struct StreamKernel {
  using S = StreamShape<Kind, ColumnTiles>;
  using Shared = StreamShared<S>;
  using Sum = std::conditional_t<S::kInt8, int, float>;
  using Accumulators = Sum[kMaxTiles][ColumnTiles][4];
  using Operands = uint32_t[S::kBlocksPerWarp][ColumnTiles][S::kOperands];

  const LinearProblem& p;
  const StreamPlan& plan;
  const QuantizedRows& quantized;
  uint8_t* shared;
  uint32_t full, empty;  // barriers, 8 bytes each
  int warp, lane, chunks;

  __device__ int blocks_in(int chunk) const { return min(S::kBlocks, static_cast<int>((p.k - static_cast<int64_t>(chunk) * S::kChunk) >> 6)); }
  __device__ int stages_in(int tiles) const { return (tiles + S::kTilesPerStage - 1) / S::kTilesPerStage; }
  __device__ uint8_t* stage(int slot) const { return shared + Shared::ring() + slot * S::kStageBytes; }
  __device__ const uint8_t* weight_row(int part, int64_t row, int chunk) const {
    return p.part[part].weight + (row * p.k / 64 + static_cast<int64_t>(chunk) * S::kBlocks) * S::kBlockBytes;
  }

  /// Pairs of scaled codes by byte: the high nibble (even k) in the low half.
  __device__ void build_table() {
    const float scale = p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale;
    const float* codes = kCodeBooks[static_cast<int>(p.quant_type)];
    for (int i = threadIdx.x; i < 256 * 8; i += kStreamThreads) {
      const int byte = i >> 3;
      Pack<T, 2> pair{{from_float<T>(codes[byte >> 4] * scale), from_float<T>(codes[byte & 15] * scale)}};
      const uint32_t word = *reinterpret_cast<const uint32_t*>(&pair);
      reinterpret_cast<uint4*>(shared)[i] = make_uint4(word, word, word, word);
    }
  }

  /// Warp 8, before earlier kernels are done: the first stages of the weight move to the L2.
  __device__ void prefetch() {
#if Q_HAS_BULK_COPY
    if (static_cast<int>(blockIdx.x) >= plan.groups) return;
    const StreamGroup group(p, plan, blockIdx.x);
    const int sets = stages_in(group.tiles);
    for (int i = 0; i < min(plan.stages, chunks * sets); ++i) {
      const int chunk = i / sets, set = i % sets;
      for (int r = lane; r < S::kRows; r += 32) {
        int part;
        int64_t row;
        if (group.locate(p, set * S::kTilesPerStage + (r >> 4), r & 15, part, row)) bulk_prefetch(weight_row(part, row, chunk), blocks_in(chunk) * S::kBlockBytes);
      }
    }
#endif
  }

  /// Warp 8: fills the ring with weights.
  __device__ void produce() {
#if Q_HAS_MMA
    RingPlace at;
    for (int g = blockIdx.x; g < plan.groups; g += gridDim.x) {
      const StreamGroup group(p, plan, g);
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const uint32_t bytes = blocks_in(chunk) * S::kBlockBytes;
        for (int set = 0; set < stages_in(group.tiles); ++set, at.advance(plan.stages)) {
          const uint32_t to = shared_address(stage(at.slot)), barrier = full + at.slot * 8;
          int rows = 0;
          for (int i = 0; i < S::kTilesPerStage; ++i) rows += group.count(set * S::kTilesPerStage + i);
          barrier_wait(empty + at.slot * 8, at.phase ^ 1);
#if Q_HAS_BULK_COPY
          if (lane == 0) barrier_expect(barrier, rows * bytes);
          __syncwarp();
          for (int r = lane; r < S::kRows; r += 32) {
            int part;
            int64_t row;
            if (group.locate(p, set * S::kTilesPerStage + (r >> 4), r & 15, part, row)) bulk_copy(to + r * S::kRowBytes, weight_row(part, row, chunk), bytes, barrier);
          }
#else
          for (int r = 0; r < S::kRows; ++r) {
            int part;
            int64_t row;
            if (!group.locate(p, set * S::kTilesPerStage + (r >> 4), r & 15, part, row)) continue;
            for (uint32_t b = lane * 16; b < bytes; b += 512) async_copy16(to + r * S::kRowBytes + b, weight_row(part, row, chunk) + b);
          }
          async_arrive(barrier);
#endif
        }
      }
    }
#endif
  }

  /// absmax of one row of a stage as stored, in flight: f32 values, or u8 codes (4 a word) with the nested absmax of the first and last block.
  struct AbsmaxRow {
    uint32_t word[S::kBlocks];
    float nested_low, nested_high;
    int part, change;  // from block `change` on nested_high holds; part -1: no row
  };

  __device__ void load_absmax(const StreamGroup& group, int chunk, int set, int r, AbsmaxRow& a) const {
    int64_t row;
    if (!group.locate(p, set * S::kTilesPerStage + (r >> 4), r & 15, a.part, row)) {
      a.part = -1;
      return;
    }
    const LinearPartView& w = p.part[a.part];
    const int blocks = blocks_in(chunk), shift = w.block_shift - 6;
    const int64_t first = row * (p.k >> 6) + static_cast<int64_t>(chunk) * S::kBlocks;  // in units of 64 values
    const bool whole = shift == 0 && blocks % 4 == 0 && first % 4 == 0;
    if (!w.nested_absmax) {
      const float* from = static_cast<const float*>(w.absmax);
      if (whole && (reinterpret_cast<uintptr_t>(from) & 15) == 0) {
#pragma unroll
        for (int i = 0; i < S::kBlocks; i += 4)
          if (i < blocks) *reinterpret_cast<uint4*>(&a.word[i]) = __ldg(reinterpret_cast<const uint4*>(from + first + i));
      } else {
#pragma unroll
        for (int i = 0; i < S::kBlocks; ++i)
          if (i < blocks) a.word[i] = __float_as_uint(from[(first + i) >> shift]);
      }
      return;
    }
    const uint8_t* from = static_cast<const uint8_t*>(w.absmax);
    if (whole && (reinterpret_cast<uintptr_t>(from) & 3) == 0) {
#pragma unroll
      for (int i = 0; i < S::kBlocks; i += 4)
        if (i < blocks) a.word[i / 4] = __ldg(reinterpret_cast<const uint32_t*>(from + first + i));
    } else {
#pragma unroll
      for (int i = 0; i < S::kBlocks; ++i) {
        if (i % 4 == 0) a.word[i / 4] = 0;
        if (i < blocks) a.word[i / 4] |= static_cast<uint32_t>(from[(first + i) >> shift]) << (8 * (i % 4));
      }
    }
    const int64_t low = (first >> shift) >> w.nested_shift, high = ((first + blocks - 1) >> shift) >> w.nested_shift;
    a.nested_low = w.nested_absmax[low];
    a.nested_high = w.nested_absmax[high];
    a.change = static_cast<int>((high << w.nested_shift << shift) - first);
  }

  /// What was loaded becomes absmax / s in the stage.
  __device__ void store_absmax(const AbsmaxRow& a, float inverse, float offset, float* to) const {
    if (a.part < 0) return;
    const float* code = nested_table(a.part);
    const bool nested = p.part[a.part].nested_absmax;
#pragma unroll
    for (int i = 0; i < S::kBlocks; i += 4) {
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (nested)
          v[j] = __fadd_rn(__fmul_rn(code[a.word[i / 4] >> (8 * j) & 255], i + j < a.change ? a.nested_low : a.nested_high), offset);
        else
          v[j] = __uint_as_float(a.word[i + j]);
        v[j] *= inverse;
      }
      *reinterpret_cast<float4*>(to + i) = make_float4(v[0], v[1], v[2], v[3]);
    }
  }

  __device__ float* nested_table(int part) const { return reinterpret_cast<float*>(shared + Shared::nested(plan.stages)) + part * 256; }

  /// Warp 9 of bnb4: a lane a row, loads one stage ahead.
  __device__ void produce_absmax() {
#if Q_HAS_MMA
    constexpr int kRounds = (S::kRows + 31) / 32;
    float offset[kMaxRepeat];
#pragma unroll
    for (int part = 0; part < kMaxRepeat; ++part) {
      offset[part] = 0.f;
      if (part >= p.parts || !p.part[part].nested_absmax) continue;
      offset[part] = *p.part[part].offset;
      for (int i = lane; i < 256; i += 32) nested_table(part)[i] = p.part[part].nested_code[i];
    }
    __syncwarp();
    const float inverse = 1.f / (p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale);
    RingPlace at;
    AbsmaxRow now[kRounds], next[kRounds];
    const auto load = [&](const StreamGroup& group, int i, int sets, AbsmaxRow(&a)[kRounds]) {
#pragma unroll
      for (int n = 0; n < kRounds; ++n)
        if (lane + 32 * n < S::kRows) load_absmax(group, i / sets, i % sets, lane + 32 * n, a[n]);
    };
    for (int g = blockIdx.x; g < plan.groups; g += gridDim.x) {
      const StreamGroup group(p, plan, g);
      const int sets = stages_in(group.tiles), total = sets * chunks;
      load(group, 0, sets, now);
      for (int i = 0; i < total; ++i, at.advance(plan.stages)) {
        if (i + 1 < total) load(group, i + 1, sets, next);
        float* to = reinterpret_cast<float*>(stage(at.slot) + S::kWeightBytes);
        barrier_wait(empty + at.slot * 8, at.phase ^ 1);
#pragma unroll
        for (int n = 0; n < kRounds; ++n) {
          const int r = lane + 32 * n;
          const int part = now[n].part;
          const float o = part < 2 ? (part == 1 ? offset[1] : offset[0]) : (part == 2 ? offset[2] : offset[3]);
          if (r < S::kRows) store_absmax(now[n], inverse, o, to + r * S::kAbsmaxStride);
          now[n] = next[n];
        }
        barrier_arrive(full + at.slot * 8);
      }
    }
#endif
  }

  /// x of one chunk as the second operand: block w, w + 8, ... of warp w.
  __device__ void load_x(int chunk, Operands& b) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < S::kBlocksPerWarp; ++i) {
      const int64_t k = static_cast<int64_t>(chunk) * S::kChunk + (warp + kComputeWarps * i) * 64;
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

  template <int Byte> __device__ uint32_t pair(uint32_t codes) const {
    const uint32_t at = Byte == 0 ? codes << 7 : codes >> (8 * Byte - 7);
    return *reinterpret_cast<const uint32_t*>(shared + ((at & 0x7f80u) | (lane * 4)));
  }

  /// Adds one tile times 64 values of k.
  __device__ void multiply(const uint8_t* tile, const float* absmax, int block, const uint32_t (&b)[ColumnTiles][S::kOperands], Sum (&c)[ColumnTiles][4]) const {
    const int g = lane >> 2, t = lane & 3;
    const uint8_t* low = tile + g * S::kRowBytes + block * S::kBlockBytes;
    const uint8_t* high = low + 8 * S::kRowBytes;
    if constexpr (S::kBnb4) {
      const uint2 w0 = *reinterpret_cast<const uint2*>(low + t * 8), w1 = *reinterpret_cast<const uint2*>(high + t * 8);
      const float s0 = absmax[g * S::kAbsmaxStride + block], s1 = absmax[(g + 8) * S::kAbsmaxStride + block];
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
      constexpr int kLoads = S::kBlockBytes / 64;
#pragma unroll
      for (int h = 0; h < kLoads; ++h) {
        const uint4 w0 = *reinterpret_cast<const uint4*>(low + h * 64 + t * 16), w1 = *reinterpret_cast<const uint4*>(high + h * 64 + t * 16);
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

  __device__ void sync_consumers() const { asm volatile("bar.sync 1, %0;" ::"n"(S::kInt8 ? kComputeWarps * 32 + 32 : kComputeWarps * 32) : "memory"); }

  /// Adds the eight warps' sums of one stage's tiles in warp order and stores the outputs.
  __device__ void finish(const StreamGroup& group, int set) const {
    const Sum* sums = reinterpret_cast<const Sum*>(shared + Shared::sums(plan.stages));
    const float* outliers = reinterpret_cast<const float*>(shared + Shared::outliers(plan.stages, p.rows));
    const auto total = [&](int m, int r, int part, int64_t row) {
      Sum s = 0;
      for (int w = 0; w < kComputeWarps; ++w) s += sums[(w * p.rows + m) * S::kSumStride + r];
      float y = static_cast<float>(s);
      if constexpr (S::kInt8) {
        y *= quantized.scales[m] * static_cast<const float*>(p.part[part].absmax)[row] * (1.f / (127.f * 127.f));
        if (quantized.chunks) y += outliers[m * S::kSumStride + r];
      }
      return with_bias(p.part[part], row, y);
    };
    const int width = group.gated ? S::kRows / 2 : S::kRows;
    for (int i = threadIdx.x; i < width * p.rows; i += kComputeWarps * 32) {
      const int m = i / width, slot = i % width, in_tile = group.gated ? slot & 7 : slot & 15;
      const int tile = group.gated ? slot >> 3 : slot >> 4;
      int part;
      int64_t row;
      if (!group.locate(p, set * S::kTilesPerStage + tile, in_tile, part, row)) continue;
      float y = total(m, tile * 16 + in_tile, part, row);
      if (group.gated) {
        y = activate(p.activation, y) * total(m, tile * 16 + in_tile + 8, 1, row);
        store_output<T>(p, m, row, y);
      } else {
        store_output<T>(p, m, p.part[part].first + row, activate(p.activation, y));
      }
    }
  }

  /// Warps 0 to 7.
  __device__ void consume() {
#if Q_HAS_MMA
    const int g = lane >> 2, t = lane & 3;
    RingPlace at;
    Operands b, ahead;
    load_x(0, b);
    for (int gi = blockIdx.x; gi < plan.groups; gi += gridDim.x) {
      const StreamGroup group(p, plan, gi);
      Accumulators c;
#pragma unroll
      for (int i = 0; i < kMaxTiles; ++i)
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j) c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const int blocks = blocks_in(chunk), following = chunk + 1 < chunks ? chunk + 1 : 0;
        if constexpr (S::kLookAhead) load_x(following, ahead);
#pragma unroll
        for (int set = 0; set < S::kSets; ++set) {
          if (set * S::kTilesPerStage >= group.tiles) continue;
          barrier_wait(full + at.slot * 8, at.phase);
          const uint8_t* weights = stage(at.slot);
          const float* absmax = reinterpret_cast<const float*>(weights + S::kWeightBytes);
#pragma unroll
          for (int i = 0; i < S::kTilesPerStage; ++i) {
            if (set * S::kTilesPerStage + i >= group.tiles) continue;
#pragma unroll
            for (int w = 0; w < S::kBlocksPerWarp; ++w) {
              const int block = warp + kComputeWarps * w;
              if (block < blocks)
                multiply(weights + i * 16 * S::kRowBytes, absmax + i * 16 * S::kAbsmaxStride, block, b[w], c[set * S::kTilesPerStage + i]);
            }
          }
          __syncwarp();
          if (lane == 0) barrier_arrive(empty + at.slot * 8);
          at.advance(plan.stages);
          if (chunk + 1 < chunks) continue;
          Sum* sums = reinterpret_cast<Sum*>(shared + Shared::sums(plan.stages)) + warp * p.rows * S::kSumStride;
#pragma unroll
          for (int i = 0; i < S::kTilesPerStage; ++i)
#pragma unroll
            for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                const int m = j * 8 + 2 * t + (e & 1);
                if (m < p.rows) sums[m * S::kSumStride + i * 16 + g + (e & 2) * 4] = c[set * S::kTilesPerStage + i][j][e];
              }
          sync_consumers();
          finish(group, set);
          sync_consumers();
        }
        if constexpr (S::kLookAhead) {
#pragma unroll
          for (int i = 0; i < S::kBlocksPerWarp; ++i)
#pragma unroll
            for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
              for (int e = 0; e < S::kOperands; ++e) b[i][j][e] = ahead[i][j][e];
        } else {
          load_x(following, b);
        }
      }
    }
#endif
  }

  /// Warp 9 of int8: x's outliers times the dequantized weight. A lane holds one row of W and every second row of x; each row of x adds its own
  /// outliers in order of k, so it does not depend on the others.
  __device__ void multiply_outliers() {
#if Q_HAS_MMA
    constexpr int kPerLane = ColumnTiles * 4;
    const int r = lane & 15, half = lane >> 4;
    RingPlace at;
    for (int gi = blockIdx.x; gi < plan.groups; gi += gridDim.x) {
      const StreamGroup group(p, plan, gi);
      float c[kMaxTiles][kPerLane] = {};
      for (int chunk = 0; chunk < chunks; ++chunk) {
#pragma unroll
        for (int tile = 0; tile < kMaxTiles; ++tile) {
          if (tile >= group.tiles) continue;
          barrier_wait(full + at.slot * 8, at.phase);
          int part;
          int64_t row;
          if (quantized.chunks && group.locate(p, tile, r, part, row)) {
            const int8_t* weights = reinterpret_cast<const int8_t*>(stage(at.slot)) + r * S::kRowBytes;
            const float scale = static_cast<const float*>(p.part[part].absmax)[row];
#pragma unroll
            for (int i = 0; i < kPerLane; ++i) {
              const int m = half + 2 * i;
              if (m >= p.rows) continue;
              const int* starts = quantized.outlier_starts + m * (chunks + 1) + chunk;
              for (int j = starts[0]; j < starts[1]; ++j) {
                const int column = quantized.outlier_columns[m * p.k + j] - chunk * S::kChunk;
                const float w = to_float(from_float<T>(static_cast<float>(weights[column]) * scale * (1.f / 127.f)));
                c[tile][i] = fmaf(w, quantized.outlier_values[m * p.k + j], c[tile][i]);
              }
            }
          }
          __syncwarp();
          if (lane == 0) barrier_arrive(empty + at.slot * 8);
          at.advance(plan.stages);
          if (chunk + 1 < chunks) continue;
          float* outliers = reinterpret_cast<float*>(shared + Shared::outliers(plan.stages, p.rows));
#pragma unroll
          for (int i = 0; i < kPerLane; ++i)
            if (half + 2 * i < p.rows) outliers[(half + 2 * i) * S::kSumStride + r] = c[tile][i];
          sync_consumers();
          sync_consumers();
        }
      }
    }
#endif
  }

  __device__ void run() {
#if Q_HAS_MMA
    if (threadIdx.x < plan.stages) {
      // full: one arrival with the byte count (before sm_90: 32 lanes' copies), and 32 lanes of absmax; empty: one lane a consuming warp
      barrier_init(full + threadIdx.x * 8, (Q_HAS_BULK_COPY ? 1 : 32) + (S::kBnb4 ? 32 : 0));
      barrier_init(empty + threadIdx.x * 8, kComputeWarps + (S::kInt8 ? 1 : 0));
    }
    if (warp == 8) prefetch();
    if constexpr (S::kBnb4) build_table();
    fence_barriers();
    __syncthreads();
    pdl_begin();
    if (warp == 8) {
      produce();
    } else if (warp == 9) {
      if constexpr (S::kBnb4) produce_absmax();
      if constexpr (S::kInt8) multiply_outliers();
    } else {
      consume();
    }
#endif
  }
};

template <WeightKind Kind, class T, int ColumnTiles>
__global__ void __launch_bounds__(kStreamThreads, ColumnTiles == 1 ? 2 : 1)
    stream_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ StreamPlan plan, const __grid_constant__ QuantizedRows quantized) {
  using Kernel = StreamKernel<Kind, T, ColumnTiles>;
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t barriers = shared_address(shared + Kernel::Shared::barriers(plan.stages, p.rows));
  Kernel kernel{p, plan, quantized, shared, barriers, barriers + plan.stages * 8u, static_cast<int>(threadIdx.x >> 5), static_cast<int>(threadIdx.x & 31),
                static_cast<int>((p.k + Kernel::S::kChunk - 1) / Kernel::S::kChunk)};
  kernel.run();
}

}  // namespace q::cuda
