// What the kernels for few rows of x and 4-bit weights share beyond row_walk.cuh (row4.cuh, batch4.cuh): the ring
// between the code table's lines, and absmax.
#pragma once
#include "code_table.cuh"
#include "row_walk.cuh"

namespace q::cuda {

/// The warps' rings lie in the halves of 256 bytes that the code table leaves, those of more than 8 warps behind it two
/// by two. A row's pieces of 16 bytes change places by row, so that no two lanes meet in a bank.
template <int Warps>
struct TableRing : TableRingShape<Warps> {
  using Shape = TableRingShape<Warps>;
  using Shape::kPairs;
  using Shape::kStageBytes;
  using Shape::kTableWarps;
  using Shape::kWarpBytes;
  /// Steps whose copies start before x is loaded, which would wait behind more of them (11008 x 4096, 1 row: 1 step
  /// 8.65 us, 2 steps 8.89).
  static constexpr int kEarlySteps = 1;
  /// At multiples of kWarpBytes, plus 128 for the half of a line that is this warp's.
  static __device__ int start(int warp) {
    if (kPairs == 0 || warp < kTableWarps) return warp * kWarpBytes + 128;
    const int behind = warp - kTableWarps;
    return (kTableWarps + behind % max(kPairs, 1)) * kWarpBytes + (behind >= kPairs ? 128 : 0);
  }
  static __device__ __forceinline__ int next(int at, int) {
    constexpr int kMask = kWarpBytes - kStageBytes;
    return (at & ~kMask) | ((at + kStageBytes) & kMask);
  }
  static __device__ __forceinline__ int row_offset(int r) { return (r >> 1) * 256 + (r & 1) * 64; }
  static __device__ __forceinline__ int piece(int r, int i) { return i ^ (r & 2); }
};

/// LaneBlocks: blocks of a chunk whose absmax a lane holds, 1 or 2; its four neighbours with the same rows hold the
/// others.
template <int Warps, bool Nested, int ChunkSteps, int LaneBlocks>
struct Row4Walk : RowWalk<Warps, TableRing<Warps>, ChunkSteps> {
  static_assert(LaneBlocks * 4 == ChunkSteps * 2);
  using Walk = RowWalk<Warps, TableRing<Warps>, ChunkSteps>;
  using typename Walk::Visit;
  using Walk::base;
  using Walk::begin;
  using Walk::first;
  using Walk::kThreads;
  using Walk::lane;
  using Walk::next;
  using Walk::p;
  using Walk::part;
  using Walk::plan;
  using Walk::row_offset;
  using Walk::rows_in;
  using Walk::shared;
  using Walk::side;
  using Walk::steps;
  using Walk::Walk;

  /// Where this lane reads the first stage: 8 bytes of row lane / 4, of the first block; from there to the second
  /// block's.
  __device__ int stage_start() const {
    const int t = lane % 4, g = lane / 4;
    return this->ring() + row_offset(g) + ((t >> 1) ^ (g & 2)) * 16 + (t & 1) * 8;
  }
  __device__ int second_block() const { return 32 - ((lane / 4 & 2) << 5); }

  /// absmax of rows lane / 4 and lane / 4 + 8 for this lane's blocks of a chunk, on its way: as it is stored.
  struct Absmax {
    uint32_t low[2], high[2];  // f32 of one or two blocks; nested: their codes, f32 scale
  };
  /// The first of this lane's blocks in the first visit, of row lane / 4.
  __device__ int first_block() const {
    return (begin + side * plan.tile_rows + lane / 4) * static_cast<int>(p.k >> 6) + first * 2 + lane % 4 * LaneBlocks;
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
  /// absmax of a visit, whose first block it is; nothing past the end.
  __device__ __forceinline__ void load_absmax(Absmax& a, Visit of, int block) const {
    if (of.chunk * (ChunkSteps * 2) + lane % 4 * LaneBlocks >= steps * 2) return;
    const int left = rows_in(of.tile);
    if (lane / 4 < left) load_absmax(a.low, part, block);
    if (lane / 4 + (p.gated ? 0 : 8) < left) load_absmax(a.high, p.gated ? 1 : part, block + plan.high_blocks);
  }
  /// absmax of the visit after `now`, and to its first block.
  __device__ __forceinline__ void load_next_absmax(Absmax& a, Visit now, int& block) const {
    block += plan.next_blocks;
    if (next(now)) block += ChunkSteps * 2 - plan.group_blocks;
    load_absmax(a, now, block);
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
  __device__ __forceinline__ void decode_absmax(const Absmax& from, float (&low)[LaneBlocks],
                                                float (&high)[LaneBlocks]) const {
    decode_absmax(from.low, part, low);
    decode_absmax(from.high, p.gated ? 1 : part, high);
  }

  __device__ float* nested_table(int of_part) const {
    return reinterpret_cast<float*>(shared + plan.tables + of_part * kNestedTableBytes);
  }
  /// Starts the copies of the tables of nested absmax, which are cold, as a group of their own.
  __device__ void copy_nested() const {
    if constexpr (Nested) {
      const int of = this->warp / 2, piece = threadIdx.x % 64;
      if (of < p.parts) {
        const uint32_t to = base + plan.tables + of * kNestedTableBytes;
        async_copy<16>(to + piece * 16, p.part[of].nested_code + piece * 4);
        if (piece == 0) async_copy<4>(to + 1024, p.part[of].offset);
      }
      async_commit();
    }
  }
  /// The tables that are needed before the first product; they depend on weights only. The first steps' copies have
  /// been started.
  __device__ void set_up() const {
    build_code_table<kThreads>(shared, p.codes);
    if constexpr (Nested) async_wait<TableRing<Warps>::kEarlySteps>();
    __syncthreads();
  }
};

}  // namespace q::cuda
