// Sizes and shared-memory layout of the streaming kernel (stream.cuh).
#pragma once
#include "q_ops.h"
#include "row_shapes.h"
#include "stream_weight.h"

namespace q::cuda {

constexpr int kWarps = 8, kStreamThreads = kWarps * 32, kSliceBytes = 128, kMostTiles = 6;
/// Sizes of one variant; ColumnTiles: x rows / 8.
template <StreamWeight Kind, int ColumnTiles>
struct StreamShape {
  static constexpr bool kBnb4 = Kind == StreamWeight::bnb4, kInt8 = Kind == StreamWeight::int8,
                        kWide = Kind == StreamWeight::wide;
  /// Blocks that share a multiprocessor. Two hide each other's latencies; bnb4 needs the registers for x, and x is read
  /// once a block.
  static constexpr int kBlocksPerMultiprocessor = kBnb4 && ColumnTiles > 1 ? 1 : 2;
  static constexpr bool kFourStages =
      kInt8 || kWide ? ColumnTiles <= 2 : !kBnb4 && ColumnTiles == 1;  // where shared memory has room
  /// wide: where k is long and n small, a tile has few rows and a stage few bytes; five are 24 KiB on their way to a
  /// multiprocessor with as few as three rows a tile.
  static constexpr int kStages = kWide && ColumnTiles == 1 ? 5 : kFourStages ? 4 : 3;
  /// Stages whose copies start before x is loaded, which would wait behind more of them (int8 11008 x 4096, 16 rows:
  /// 18.6 us, with three 19.0).
  static constexpr int kEarlyStages = 2;
  static constexpr int kBlockShift = kWide ? 5 : 6;                  // log2 of the values of k in a block
  static constexpr int kBlockBytes = kBnb4 ? 32 : kInt8 ? 64 : 128;  // of a block
  static constexpr int kBlocks = kSliceBytes / kBlockBytes;          // in a warp's slice of a row
  static constexpr int kOperands = kInt8 ? 4 : 8;  // registers that a block of one x column takes in a lane
  /// x of the next chunk is loaded a chunk ahead where registers allow; with one column tile of bnb4 the products need
  /// them more (46.7 -> 44.2 us, 28672 x 8192)
  static constexpr bool kLookAhead = kBlocks * kOperands * ColumnTiles <= (kBlocksPerMultiprocessor == 1 ? 64
                                                                           : kBnb4                       ? 0
                                                                                                         : 32);
  static constexpr int kRowStride = kBnb4 ? 256 : kSliceBytes;  // of a row in the ring
  static constexpr int kStageBytes = kWarps * 16 * kRowStride;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr bool kSumsInGaps = kBnb4 && ColumnTiles == 1;  // of the third stage; at most 4 tiles
  static constexpr int kStageAbsmaxBytes =
      256 + 128;  // of a warp: f32 [16, 4]; nested: what it is decoded from, codes [16, 4] and f32 scales [16]
  static constexpr int kAbsmaxBytes = kBnb4 ? kStages * kWarps * kStageAbsmaxBytes : 0;
  static constexpr int kSumsBytes = kWarps * ColumnTiles * 512;  // of a tile
};

/// One row of a group: where it is, so that the copies need no search.
struct StreamRow {
  const uint8_t* weight;  // null: the slot is empty
  int64_t first_part;     // first block of the row << 2 | part
};

/// Where the pieces of dynamic shared memory start.
template <class S>
struct StreamLayout {
  int absmax, sums, outliers, rows, nested, total;
  Q_HOST_DEVICE StreamLayout(int tiles, int outlier_rows, int nested_parts) {
    absmax = S::kRingBytes;
    sums = absmax + S::kAbsmaxBytes;
    outliers = sums + (S::kSumsInGaps ? 0 : tiles * S::kSumsBytes);
    rows = outliers + tiles * kWarps * outlier_rows * 64;
    nested = rows + tiles * 16 * static_cast<int>(sizeof(StreamRow));
    total = nested + nested_parts * kNestedTableBytes;
  }
};

struct StreamPlan {
  int group_rows, tile_rows;  // virtual rows; even when gated
  int virtual_rows, groups;
  int tiles;         // of a whole group
  int nested_parts;  // number of parts if absmax is nested
  bool direct;       // bnb4: absmax is copied four blocks at a time, as it is stored; otherwise each value is looked up
};

}  // namespace q::cuda
