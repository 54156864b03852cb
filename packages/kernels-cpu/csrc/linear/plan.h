// What the linear command is turned into before the threads start: parts with their formats checked and their small
// tensors converted, x in the layouts the parts need, and the kernels of this machine. Read-only while the threads run.
#pragma once
#include <cstdint>
#include "choice.h"

namespace q::cpu::linear {

/// The sum over k is cut into blocks of this many values, for every shape and number of rows: inside a block each lane
/// of the vector adds its own values, the lanes are added in a fixed tree, and the blocks are added in order.
constexpr int64_t kBlockK = 1024;
/// Floats from one column of a panel, or row of a padded x, to the next: a cache line more than a power of two, so that
/// the rows of a tile do not meet in one set of the first cache.
constexpr int64_t kPad = 16, kPanelStride = kBlockK + kPad;
/// Columns that one thread is given at least; a whole AMX tile.
constexpr int64_t kUnit = 16;
/// x of an int8 part: each row quantized by its own absmax, its outliers taken out.
struct QuantizedRows {
  int8_t* codes;        // [rows, ld], zero from k to ld and at outliers; or, when the kernels want tiles,
                        // [rows / 16 rounded up, ld / 64, 16 of k / 4, 16 rows, 4 of k]
  int64_t rows, k, ld;  // ld: k rounded up to 64
  int32_t* sums;        // [rows] of the codes
  float* absmax;        // [rows]
  int64_t* first;       // [rows + 1]: outliers of row r are first[r] .. first[r + 1], in order of their columns
  int32_t* columns;     // their columns; later their place in `distinct`
  float* values;        // their x
  int32_t* distinct;    // columns in which any row has an outlier
  int64_t distinct_count;
};

struct Part {
  Format format;
  int64_t n, k;
  int64_t column;  // of its first output in out
  const void* weight;
  const float* bias;  // [n] or null
  // nibble
  const float* absmax;    // plain
  const uint8_t* nested;  // or nested
  const float* nested_absmax;
  const float* nested_code;
  float offset;
  int64_t blocks, block_size, nested_block_size;
  int shift;          // nibble: block_size = kChunk << shift
  const float* code;  // [16]
  // int8
  const float* scb;  // [n]
  const QuantizedRows* rows;
};

struct Plan {
  int64_t rows, k;
  const float* x;  // [rows, ldx], zero from k to ldx
  int64_t ldx;
  int64_t ld_nibble;
  const float* x_nibble;  // [rows, ld_nibble], each chunk in the order in which the kernels unpack nibbles
  Part parts[kMaxRepeat];
  int parts_count;
  bool gated;
  ActivationKind activation;
  float limit, up_offset;  // of a gate and its up; 0: none
  const float* residual;
  float* out;
  int64_t ldo;  // columns of out
};

/// A thread's own memory.
struct Panel {
  float* weights;   // [columns, kPanelStride]
  float* absmax;    // of kBlockK values of four rows of codes, absmax_per_row apart
  float* outliers;  // int8: [distinct outlier columns, columns]
};

constexpr int64_t absmax_per_row(int64_t block_size) { return kBlockK / block_size + 2; }

/// y[r - row0, n - n0] of one part, without bias.
struct Block {
  int64_t row0, row1, n0, n1;
  float* y;
  int64_t ldy;
};

/// The columns of a block in fours, far apart: each of the four is a stream of its own, which the processor's
/// prefetcher follows over row after row of W (of four neighbouring rows of 4-bit codes in one page it follows one).
struct Fours {
  const Block& block;
  int64_t step = (block.n1 - block.n0 + 3) / 4;  // i = 0 .. step - 1
  int64_t column(int64_t i, int c) const {
    return i + c * step < block.n1 - block.n0 ? block.n0 + i + c * step : block.n1 - 1;
  }
  int valid(int64_t i) const { return int((block.n1 - block.n0 - i + step - 1) / step); }
};

struct FloatKernels {
  int64_t max_direct_rows;  // up to so many rows the weights are unpacked straight into registers
  int lanes;                // x is padded to a multiple of this
  void (*order_nibbles)(const float* x, float* out, int64_t count);  // count % kChunk == 0
  void (*block)(const Part&, const Plan&, const Block&, const Panel&);
  void (*finish)(const Plan&, int64_t first_part, const Block&, const float* up);
};

struct Int8Kernels {
  bool tiles;  // layout of QuantizedRows.codes
  /// Rows [row0, row1): absmax and the number of outliers, into first[row + 1].
  void (*measure)(const Plan&, const QuantizedRows&, float threshold, int64_t row0, int64_t row1);
  /// Rows [row0, row1), whole tiles of 16: codes, sums, and the outliers.
  void (*quantize)(const Plan&, const QuantizedRows&, float threshold, int64_t row0, int64_t row1);
  void (*block)(const Part&, const Block&, const Panel&);
};

}  // namespace q::cpu::linear

namespace q::cpu {
namespace scalar {
extern const linear::FloatKernels float_kernels;
extern const linear::Int8Kernels int8_kernels;
}  // namespace scalar
namespace avx2 {
extern const linear::FloatKernels float_kernels;
extern const linear::Int8Kernels int8_kernels;
}  // namespace avx2
namespace avx512 {
extern const linear::FloatKernels float_kernels;
extern const linear::Int8Kernels int8_kernels;
}  // namespace avx512
namespace avx512_vnni {
extern const linear::Int8Kernels int8_kernels;
}
namespace avx512_amx {
extern const linear::Int8Kernels int8_kernels;
}
}  // namespace q::cpu
