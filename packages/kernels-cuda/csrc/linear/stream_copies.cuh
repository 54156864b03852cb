// What brings W into shared memory for the streaming kernel (stream.cuh): the rows of a group, and each warp's copies.
#pragma once
#include "stream_group.cuh"

namespace q::cuda {

template <StreamWeight Kind, class T, int ColumnTiles>
struct StreamCopies {
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

  __device__ StreamRow* rows() const { return reinterpret_cast<StreamRow*>(shared + at.rows); }
  __device__ float* nested_table(int part) const {
    return reinterpret_cast<float*>(shared + at.nested + part * kNestedTableBytes);
  }
  /// A lane's 4 sums of column tile j of a tile, as the products leave them.
  __device__ __forceinline__ Sum* sums(int w, int tile, int j, int of_lane) const {
    if (S::kSumsInGaps)
      return reinterpret_cast<Sum*>(shared + 2 * S::kStageBytes + ((tile * kWarps + w) * 4 + (of_lane >> 3)) * 256 +
                                    (of_lane & 7) * 16);
    return reinterpret_cast<Sum*>(shared + at.sums + ((tile * kWarps + w) * ColumnTiles + j) * 512 + of_lane * 16);
  }
  __device__ float* outlier_sums(int w, int tile) const {
    return reinterpret_cast<float*>(shared + at.outliers + (tile * kWarps + w) * p.rows * 64);
  }
  /// First block of this warp's slice, and how many the slice holds.
  __device__ int first_block(int chunk) const { return (chunk * kWarps + warp) * S::kBlocks; }
  __device__ int blocks_in(int chunk) const {
    return min(S::kBlocks, static_cast<int>(p.k >> S::kBlockShift) - first_block(chunk));
  }

  /// Offset of this warp's 16 rows of a stage.
  __device__ __forceinline__ int stage(int slot) const {
    return slot * S::kStageBytes + warp * (16 * S::kRowStride) + (S::kBnb4 ? 128 : 0);
  }
  __device__ __forceinline__ int absmax_of(int slot) const {
    return S::kRingBytes + (slot * kWarps + warp) * S::kStageAbsmaxBytes;
  }
  __device__ __forceinline__ int raw_absmax_of(int slot) const { return absmax_of(slot) + 256; }
  /// 16-byte pieces of row r change places so that the lanes of one access (2 rows of 64 bytes; bnb4: 4 rows of 32)
  /// fill all banks.
  __device__ __forceinline__ static int swizzled(int r, int piece) {
    return (piece ^ (S::kBnb4 ? (r & 3) << 1 : (r & 1) << 2)) * 16;
  }

  /// Fills the table of rows; the block synchronises after it.
  __device__ void locate_rows(const StreamGroup& group) const {
    const int64_t row_bytes = (p.k >> S::kBlockShift) * S::kBlockBytes;
    for (int i = threadIdx.x; i < group.tiles * 16; i += kStreamThreads) {
      int part, row;
      StreamRow r{};
      if (group.locate(p, i >> 4, i & 15, part, row)) {
        const LinearPartView& w = p.part[part];
        const int64_t first = row * (p.k >> S::kBlockShift);
        r.weight = w.weight + row * row_bytes;
        r.first_part = first << 2 | part;
      }
      rows()[i] = r;
    }
  }

  /// Starts the copies of the tables of nested absmax, which are cold, as a group of their own.
  __device__ void copy_nested() const {
    for (int i = 0; i < plan.nested_parts; ++i) {
      if (!p.part[i].nested_absmax) continue;
      const uint32_t to = base + at.nested + i * kNestedTableBytes;
      async_copy<4>(to + threadIdx.x * 4, p.part[i].nested_code + threadIdx.x);
      if (threadIdx.x == 0) async_copy<4>(to + 1024, p.part[i].offset);
    }
    async_commit();
  }

  /// Starts the copies of absmax of a stage, this lane's row: f32 of 4 blocks; nested: their codes, and the scale they
  /// share.
  __device__ __forceinline__ void copy_absmax(const uint8_t* from, const float* nested, int64_t block, int slot) const {
    if (plan.nested_parts == 0) return async_copy<16>(base + absmax_of(slot) + lane * 16, from);
    async_copy<4>(base + raw_absmax_of(slot) + lane * 4, from);
    async_copy<4>(base + raw_absmax_of(slot) + 64 + lane * 4, nested + (block >> p.part[0].nested_shift));
  }
  /// Decodes what was copied, two blocks of row lane / 2 of the tile, for all lanes of the warp.
  __device__ __forceinline__ void decode_absmax(int tile, int slot) const {
    const uint8_t* raw = shared + raw_absmax_of(slot);
    const float* table = nested_table(static_cast<int>(rows()[tile * 16 + (lane >> 1)].first_part & 3));
    const uint32_t codes = reinterpret_cast<const uint16_t*>(raw)[lane];
    const float scale = reinterpret_cast<const float*>(raw + 64)[lane >> 1], offset = table[256];
    reinterpret_cast<float2*>(shared + absmax_of(slot))[lane] =
        make_float2(__fadd_rn(__fmul_rn(table[codes & 255], scale), offset),
                    __fadd_rn(__fmul_rn(table[codes >> 8], scale), offset));
    __syncwarp();
  }

  /// Rows of a group that lie in one part (gated: in both parts side by side) are at even distances: where this lane's
  /// copies of the next stage come from, moved along instead of looked up. Rows lane / 8 and + 4 of the tile come from
  /// `low`, + 8 and + 12 from `high`.
  struct Walk {
    const uint8_t *low, *high;
    const uint8_t* absmax;  // row lane % 16
    const float* nested;
    int64_t block;        // that row's first block in this slice
    uint32_t full, last;  // what this lane copies of a tile, of the last tile: bits 0, 1 of low, 2, 3 of high, 4 absmax
    bool even;            // false: the rows are looked up
  };

  __device__ uint32_t copies(int count) const {
    const int r0 = lane >> 3, low = (p.gated ? count >> 1 : count) - r0, high = (p.gated ? count >> 1 : count - 8) - r0;
    const bool absmax = S::kBnb4 && lane < 16 && (p.gated ? (lane & 7) < count >> 1 : lane < count);
    return (low > 0) | (low > 4) << 1 | (high > 0) << 2 | (high > 4) << 3 | absmax << 4;
  }

  __device__ Walk walk(const StreamGroup& group) const {
    Walk w{};
    int part = 0, last = 0, row = 0, unused;
    group.locate(p, 0, 0, part, row);
    group.locate(p, group.tiles - 1, min(group.tile_rows, group.rows - (group.tiles - 1) * group.tile_rows) - 1, last,
                 unused);
    w.even = (p.gated || part == last) && (!S::kBnb4 || plan.direct);
    const int64_t row_blocks = p.k >> S::kBlockShift, row_bytes = row_blocks * S::kBlockBytes;
    const int64_t offset = static_cast<int64_t>(warp) * kSliceBytes + (lane & 7) * 16;
    w.low = p.part[part].weight + (row + (lane >> 3)) * row_bytes + offset;
    w.full = copies(group.tile_rows);
    w.last = copies(group.rows - (group.tiles - 1) * group.tile_rows);
    w.high = p.gated ? p.part[1].weight + (row + (lane >> 3)) * row_bytes + offset : w.low + 8 * row_bytes;
    if constexpr (S::kBnb4) {
      const int r = lane & 15;
      const LinearPartView& v = p.part[p.gated && r >= 8 ? 1 : part];
      w.block = (row + (p.gated ? r & 7 : r)) * row_blocks + first_block(0);
      w.nested = v.nested_absmax;
      w.absmax = static_cast<const uint8_t*>(v.absmax) + w.block * (v.nested_absmax ? 1 : 4);
    }
    return w;
  }

  /// Moves on by `rows` rows (per part), then by `chunks` chunks.
  __device__ __forceinline__ void move(Walk& w, int64_t rows, int moved_chunks) const {
    const int64_t blocks = rows * (p.k >> S::kBlockShift) + moved_chunks * (kWarps * S::kBlocks),
                  bytes = blocks * S::kBlockBytes;
    w.low += bytes;
    w.high += bytes;
    if constexpr (S::kBnb4) {
      w.block += blocks;
      w.absmax += blocks * (plan.nested_parts ? 1 : 4);
    }
  }

  /// Starts the copies of one stage from the walk's place.
  __device__ __forceinline__ void issue_even(const Walk& w, int chunk, uint32_t copies, int slot) const {
    const int piece = lane & 7, r0 = lane >> 3;
    const int64_t step = (p.k >> S::kBlockShift) * (4 * S::kBlockBytes);
    const uint32_t to = base + stage(slot) + r0 * S::kRowStride + swizzled(r0, piece);
    if (piece * 16 < blocks_in(chunk) * S::kBlockBytes) {
      if (copies & 1) async_copy<16>(to, w.low);
      if (copies & 2) async_copy<16>(to + 4 * S::kRowStride, w.low + step);
      if (copies & 4) async_copy<16>(to + 8 * S::kRowStride, w.high);
      if (copies & 8) async_copy<16>(to + 12 * S::kRowStride, w.high + step);
    }
    if constexpr (S::kBnb4) {
      if (copies & 16) copy_absmax(w.absmax, w.nested, w.block, slot);
    }
    async_commit();
  }

  /// Starts the copies of one stage. `offset`: of this lane's 16 bytes in a row of W.
  __device__ __forceinline__ void issue(int chunk, int tile, int slot, int64_t offset) const {
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
      if (const StreamRow& row = table[lane & 15]; lane < 16 && row.weight) {
        const LinearPartView& w = p.part[row.first_part & 3];
        const int64_t block = (row.first_part >> 2) + first;
        if (plan.direct)
          copy_absmax(static_cast<const uint8_t*>(w.absmax) + block * (plan.nested_parts ? 1 : 4), w.nested_absmax,
                      block, slot);
        else
          look_up_absmax(row, first, blocks_in(chunk), reinterpret_cast<float*>(shared + absmax_of(slot)) + lane * 4);
      }
    }
    async_commit();
  }

  __device__ __noinline__ void look_up_absmax(const StreamRow& row, int first, int blocks, float* to) const {
    const LinearPartView& w = p.part[row.first_part & 3];
    for (int i = 0; i < blocks; ++i)
      to[i] = block_absmax(w, ((row.first_part >> 2) + first + i) >> (w.block_shift - 6));
  }
};

}  // namespace q::cuda
