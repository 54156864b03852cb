// What the kernels for few rows of x and 4-bit weights with one block a multiprocessor share (row4.cuh, batch4.cuh): how rows and k are cut, each warp's
// copies of W into its ring, and absmax.
#pragma once
#include <climits>
#include "code_table.cuh"
#include "launch.h"

namespace q::cuda {

constexpr int kRowWarps = 16, kRowThreads = kRowWarps * 32;
constexpr int kStepBytes = 64;                        // a step: 128 values of a row of W, two blocks
constexpr int kStages = 4, kStageBytes = 2048, kRingBytes = kStages * kStageBytes;  // steps in a warp's ring; from one to the next: 8 lines of 128 bytes, every 256
/// Steps whose copies start before x is loaded, which would wait behind more of them (11008 x 4096, 1 row: 1 step 10.0 us, 3 steps 10.4; 16 rows 14.2 and 15.8).
constexpr int kEarlySteps = 1;
constexpr int kTableWarps = kCodeTableBytes / kRingBytes;       // their rings lie between the table's lines, those of the others behind it two by two
constexpr int kPairs = (kRowWarps - kTableWarps) / 2, kRingEnd = (kTableWarps + kPairs) * kRingBytes;
constexpr int kRowNestedBytes = 1040;                 // 256 values and the offset

/// Groups of rows. They differ by at most one row (gated: pair of rows), so that their sizes in bytes are no multiples of a large power of two: blocks that
/// walk in step would otherwise meet in the same channels of memory (12288 x 4096 in groups of 96 rows: 16.9 us instead of 10.6).
struct RowPart {
  int begin;         // first group
  int rows, larger;  // of a group; the first `larger` groups have one more. gated: pairs
};

struct RowPlan {
  RowPart part[kMaxRepeat];   // parts that are not there begin at INT_MAX
  int groups;
  int tiles, tile_rows;       // of any group; the last tiles may hold fewer rows. gated: pairs
  int split_shift;            // log2 of the warps that share k; the others are further sides, which share the tiles
  int steps;                  // of a warp along k, at most
  int sums, nested, total;    // where shared memory's pieces start, in bytes
  uint32_t zero;              // 0, which the compiler does not know
  int64_t pitch;              // bytes of a row of W
  int64_t high;               // bytes from a tile's row r to its row r + 8
  int64_t next_tile;          // bytes from a warp's tile to its next
  int64_t group_bytes;        // next_tile times the tiles of a warp
  int high_blocks, next_blocks, group_blocks;  // the last three in blocks of absmax
};

/// ChunkSteps: steps whose x is in registers at once, all tiles long. LaneBlocks: blocks of a chunk whose absmax a lane holds, 1 or 2; its four neighbours
/// with the same rows hold the others.
template <bool Nested, int ChunkSteps, int LaneBlocks> struct RowWalk {
  static_assert(LaneBlocks * 4 == ChunkSteps * 2);
  const LinearProblem& p;
  const RowPlan& plan;
  uint8_t* shared;
  uint32_t base;  // the same as an address of shared memory
  int warp, lane;
  int side, sides, share;  // of this warp: which tiles and which part of k
  int first, steps;        // this warp's steps along k
  int part, begin, rows;   // of the group: its part, first row and number of rows (gated: pairs)

  __device__ RowWalk(const LinearProblem& p, const RowPlan& plan, uint8_t* shared) : p(p), plan(plan), shared(shared), base(shared_address(shared)) {
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));  // kept in a register: reading the thread index is slow
    warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0);
    sides = kRowWarps >> plan.split_shift, side = warp >> plan.split_shift, share = warp & ((1 << plan.split_shift) - 1);
    first = share * plan.steps;
    steps = max(0, min(plan.steps, static_cast<int>(p.k >> 7) - first));
  }

  /// Where this warp's stages start: at multiples of kRingBytes, plus 128 for the half of a line that is theirs.
  __device__ int ring() const {
    const int behind = warp - kTableWarps;
    return (behind < 0 ? warp : kTableWarps + behind % kPairs) * kRingBytes + (behind < 0 || behind >= kPairs ? 128 : 0);
  }
  static __device__ __forceinline__ int row_offset(int r) { return (r >> 1) * 256 + (r & 1) * 64; }
  /// From a place in one stage to the same in the next.
  static __device__ __forceinline__ void next_stage(int& at) {
    constexpr int kMask = (kStages - 1) * kStageBytes;
    at = (at & ~kMask) | ((at + kStageBytes) & kMask);
  }
  /// Where this lane reads the first stage: 8 bytes of row lane / 4, of the first block; from there to the second block's.
  __device__ int stage_start() const {
    const int t = lane % 4, g = lane / 4;
    return ring() + row_offset(g) + ((t >> 1) ^ (g & 2)) * 16 + (t & 1) * 8;
  }
  __device__ int second_block() const { return 32 - ((lane / 4 & 2) << 5); }

  __device__ void enter(int group) {
    part = (group >= plan.part[1].begin) + (group >= plan.part[2].begin) + (group >= plan.part[3].begin);
    const RowPart& of = plan.part[part];
    const int in_part = group - of.begin;
    begin = in_part * of.rows + min(in_part, of.larger);
    rows = of.rows + (in_part < of.larger);
  }
  __device__ __forceinline__ int rows_in(int tile) const { return min(plan.tile_rows, rows - tile * plan.tile_rows); }
  /// Whether a tile has this lane's rows lane / 4 and lane / 4 + 8.
  __device__ __forceinline__ bool has_low(int tile) const { return lane / 4 < rows_in(tile); }
  __device__ __forceinline__ bool has_high(int tile) const { return lane / 4 + (p.gated ? 0 : 8) < rows_in(tile); }
  __device__ __forceinline__ int steps_in(int chunk) const { return min(ChunkSteps, steps - chunk * ChunkSteps); }

  /// Where a warp is on its way through the group: all tiles of a chunk, then the next chunk.
  struct Visit {
    int chunk, tile;
  };
  /// Goes on; true: to the next chunk.
  __device__ __forceinline__ bool next(Visit& v) const {
    v.tile += sides;
    if (v.tile < plan.tiles) return false;
    v.tile = side, ++v.chunk;
    return true;
  }

  /// Where the copies are: 16 bytes of a tile's row lane / 4; its row 8 further is plan.high away.
  struct Copies {
    const uint8_t* from;
    int to;    // in shared memory
    Visit at;
    int left;  // steps of this visit that are not copied yet
    bool low, high;
  };
  __device__ Copies start_copies() const {
    Copies c;
    c.from = p.part[part].weight + (begin + side * plan.tile_rows + lane / 4) * plan.pitch + (first * kStepBytes + lane % 4 * 16);
    c.to = ring() + row_offset(lane / 4) + (lane % 4 ^ (lane / 4 & 2)) * 16;
    c.at = {0, side};
    c.left = steps_in(0);
    c.low = has_low(side) && steps > 0, c.high = has_high(side) && steps > 0;
    return c;
  }
  /// Starts the copies of the next step; past the end an empty group, so that waits count on.
  __device__ __forceinline__ void issue(Copies& c) const {
    if (c.low) async_copy<16>(base + c.to, c.from);
    if (c.high) async_copy<16>(base + c.to + row_offset(8), c.from + plan.high);
    async_commit();
    next_stage(c.to);
    c.from += kStepBytes;
    if (--c.left == 0) {
      const int done = steps_in(c.at.chunk) * kStepBytes;
      c.from += plan.next_tile - done;
      if (next(c.at)) c.from += done - plan.group_bytes;
      const bool more = c.at.chunk * ChunkSteps < steps;
      c.left = more ? steps_in(c.at.chunk) : INT_MAX;
      c.low = more && has_low(c.at.tile), c.high = more && has_high(c.at.tile);
    }
  }
  template <int From, int To> __device__ __forceinline__ void issue_steps(Copies& c) const {
#pragma unroll 1
    for (int i = From; i < To; ++i) issue(c);
  }

  /// absmax of rows lane / 4 and lane / 4 + 8 for this lane's blocks of a chunk, on its way: as it is stored.
  struct Absmax {
    uint32_t low[2], high[2];  // f32 of one or two blocks; nested: their codes, f32 scale
  };
  /// Where its loads are.
  struct Ahead {
    Visit at;
    int block;  // of row lane / 4
  };
  __device__ Ahead start_ahead() const {
    return {{0, side}, (begin + side * plan.tile_rows + lane / 4) * static_cast<int>(p.k >> 6) + first * 2 + lane % 4 * LaneBlocks};
  }
  __device__ __forceinline__ void next(Ahead& a) const {
    a.block += plan.next_blocks;
    if (next(a.at)) a.block += ChunkSteps * 2 - plan.group_blocks;
  }
  __device__ __forceinline__ void load_absmax(uint32_t (&to)[2], int of_part, int block) const {
    const LinearPartView& w = p.part[of_part];
    if constexpr (Nested) {
      const uint8_t* codes = static_cast<const uint8_t*>(w.absmax) + block;
      to[0] = LaneBlocks == 2 ? __ldg(reinterpret_cast<const uint16_t*>(codes)) : __ldg(codes);
      to[1] = __ldg(reinterpret_cast<const uint32_t*>(w.nested_absmax) + (block >> w.nested_shift));
    } else {
      const uint32_t* values = static_cast<const uint32_t*>(w.absmax) + block;
      if constexpr (LaneBlocks == 2) {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(values));
        to[0] = v.x, to[1] = v.y;
      } else {
        to[0] = __ldg(values);
      }
    }
  }
  /// Nothing past the end.
  __device__ __forceinline__ void load_absmax(Absmax& a, const Ahead& v) const {
    if (v.at.chunk * (ChunkSteps * 2) + lane % 4 * LaneBlocks >= steps * 2) return;
    const int left = rows_in(v.at.tile);
    if (lane / 4 < left) load_absmax(a.low, part, v.block);
    if (lane / 4 + (p.gated ? 0 : 8) < left) load_absmax(a.high, p.gated ? 1 : part, v.block + plan.high_blocks);
  }
  __device__ __forceinline__ void decode_absmax(const uint32_t (&from)[2], int of_part, float (&to)[LaneBlocks]) const {
    if constexpr (Nested) {
      const float* table = nested_table(of_part);
      const float scale = __uint_as_float(from[1]), offset = table[256];
#pragma unroll
      for (int i = 0; i < LaneBlocks; ++i) to[i] = __fadd_rn(__fmul_rn(table[from[0] >> i * 8 & 255], scale), offset);
    } else {
#pragma unroll
      for (int i = 0; i < LaneBlocks; ++i) to[i] = __uint_as_float(from[i]);
    }
  }
  __device__ __forceinline__ void decode_absmax(const Absmax& from, float (&low)[LaneBlocks], float (&high)[LaneBlocks]) const {
    decode_absmax(from.low, part, low);
    decode_absmax(from.high, p.gated ? 1 : part, high);
  }

  __device__ float* nested_table(int of_part) const { return reinterpret_cast<float*>(shared + plan.nested + of_part * kRowNestedBytes); }
  /// This thread's part of the nested tables, on its way: they are cold.
  __device__ void load_nested(float (&value)[kMaxRepeat]) const {
#pragma unroll
    for (int i = 0; i < kMaxRepeat; ++i) {
      if (!Nested || i >= p.parts || threadIdx.x > 256) continue;
      value[i] = __ldg(threadIdx.x < 256 ? p.part[i].nested_code + threadIdx.x : p.part[i].offset);
    }
  }
  template <class T> __device__ void set_up(const float (&nested)[kMaxRepeat]) const {
    build_code_table<T, kRowThreads>(shared, p.quant_type);
    if constexpr (Nested) {
#pragma unroll
      for (int i = 0; i < kMaxRepeat; ++i)
        if (i < p.parts && threadIdx.x <= 256) nested_table(i)[threadIdx.x] = nested[i];
    }
    __syncthreads();
  }

  __device__ int64_t column_of(int row) const { return p.gated ? row : p.part[part].first + row; }
};

}  // namespace q::cuda
