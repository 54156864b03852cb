// Sizes of the kernels for few rows of x that go through W by row_walk.cuh: row4.cuh, batch4.cuh, row8.cuh.
#pragma once
#include "machine.h"

namespace q::cuda {

constexpr int kStepBytes = 64;           // a step: so much of each of a tile's rows of W
constexpr int kCodeTableBytes = 65536;   // code_table.cuh
constexpr int kNestedTableBytes = 1040;  // of nested absmax: 256 values and the offset

/// The ring of a block's warps beside the code table (TableRing).
template <int Warps>
struct TableRingShape {
  static constexpr int kStepValues = 128;  // two blocks
  static constexpr int kStages = 4, kStageBytes = 2048,
                       kWarpBytes =
                           kStages * kStageBytes;  // from one stage to the next: 8 lines of 128 bytes, every 256
  static constexpr int kTableWarps = kCodeTableBytes / kWarpBytes, kPairs = (Warps - kTableWarps) / 2,
                       kBytes = (kTableWarps + kPairs) * kWarpBytes;
  static_assert(Warps >= kTableWarps);
};
/// A ring of its own (PlainRing).
template <int Stages>
struct PlainRingShape {
  static constexpr int kStepValues = 64;
  static constexpr int kStages = Stages, kStageBytes = 1024, kWarpBytes = kStages * kStageBytes;
};

// row4
constexpr int kRowWarps = 8, kRowThreads = kRowWarps * 32;
constexpr int kChunkSteps = 4;     // whose x takes 8 registers
constexpr int kMostShares = 8;     // of k
constexpr int kRowSumsBytes = 64;  // of a tile and warp: f32 [16]

/// batch4. Columns: of 8 rows of x, 1 or 2.
template <int Columns>
struct BatchShape {
  static constexpr int kWarps = Columns == 1 ? 8 : 16, kThreads = kWarps * 32;
  static constexpr int kChunkSteps = 4 / Columns, kLaneBlocks = 2 / Columns;  // whose x takes 64 registers
  static constexpr int kMostShares = kWarps;                                  // of k
  static constexpr int kSumsBytes = Columns * 512;  // of a tile and warp: a lane's 4 for each 8 columns
};
constexpr int kBatch4Most = 16;  // rows of x

constexpr int kRow8Most = 16;  // rows of x
/// row8. Columns: of 8 rows of x, 1 or 2. Own: there is one row, and every block quantizes it for itself.
template <int Columns, bool Own>
struct Row8Shape {
  static constexpr int kWarps = 16, kThreads = kWarps * 32;
  static constexpr int kChunkSteps = 4;                             // whose x takes 16 registers for each 8 rows
  static constexpr int kTileSums = Columns * 128;                   // a lane's 4 for each 8 columns
  static constexpr int kSumsBytes = kTileSums * 4 * (Own ? 1 : 4);  // of a tile: of codes, and of outliers' digits
  static constexpr int kMostTiles = kThreads / 16;                  // of a group: a thread brings absmax of a row of W
  static constexpr int kTileBytes = kSumsBytes + 64;                // and absmax of W's rows, f32 [16]
  static constexpr bool kKeepDigits =
      Columns == 1;  // a visit's sums of digits in registers; beside 16 rows of x there is no room
};

/// Rows of x as blocks quantize them (BlockRows of quantize_block.cuh).
template <int Threads, int Rows>
struct BlockRowsShape {
  static constexpr int
      kWarps = Threads / 32,
      kKept = 2;  // packs of 8 values that a thread keeps in registers; what a longer row has more is read again
  static constexpr int kMostNormed = kKept * Threads * 8;
  static constexpr int kScratchBytes = kWarps * 4 * (2 + kKept);
  static constexpr int kDigits = 3, kFlagged = 64;
  static Q_HOST_DEVICE int absmax_at(int k) { return (Rows * (k + k / kFlagged) + 15) / 16 * 16; }
  static Q_HOST_DEVICE int digits_at(int k) { return absmax_at(k) + (Rows + 1) / 2 * 16; }
  static Q_HOST_DEVICE int bytes(int k, bool with_digits) {
    return digits_at(k) + (with_digits ? kDigits * Rows * k : 0);
  }
};
template <bool Own>
using Row8Rows = BlockRowsShape<Row8Shape<1, Own>::kThreads, Own ? 1 : kRow8Most>;

/// Shared memory of row8 behind its sums: scratch, absmax and units of x's rows, then (from kRow8RowsAt) a row that is
/// the block's own, as the norm gave it and quantized.
template <bool Own>
constexpr int kRow8RowsAt = Row8Rows<Own>::kScratchBytes + kRow8Most * 8;
template <bool Own>
Q_HOST_DEVICE int row8_normed_bytes(int64_t k, bool normed) {
  return Own && normed ? static_cast<int>(k * 2) : 0;
}
template <bool Own>
int row8_table_bytes(int64_t k, bool normed, bool outliers) {
  return kRow8RowsAt<Own> + row8_normed_bytes<Own>(k, normed) +
         (Own ? Row8Rows<Own>::bytes(static_cast<int>(k), outliers) : 0);
}

}  // namespace q::cuda
