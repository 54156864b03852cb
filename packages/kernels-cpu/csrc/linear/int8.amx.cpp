// LLM.int8 for many rows on AMX: 16 x 16 tiles of i32, 64 values of k at a time (TDPBSSD).
// layout   CB i8 [n, k] row-major is loaded as it lies: 16 rows of W by 64 bytes, stride k. The codes of x come in
//          tiles that hold [16 of k / 4, 16 rows, 4 of k], written so once per call. The result is y transposed, [16 n,
//          16 rows].
// math     2 x 2 tiles: 32 columns by 32 rows share four loads of 1 KB per 4 products of 16 cycles
// floor    rows n k multiplications at 1024 per cycle and core   exact  the i32 sum is
// needs    amx_tile, amx_int8, the system's permission for tile data (asked for when the features are read)
// ref      int8.isa.cpp                                          bench  csrc/bench/linear.cpp
#include <immintrin.h>
#include "int8_rows.h"

namespace q::cpu::Q_ISA {
namespace {
using namespace linear;

constexpr int64_t kSide = 16, kDepth = 64;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Sixteen rows of W by 64 values: where they lie, or a padded copy when the edge of W cuts them.
struct Weights {
  const int8_t* data;
  int64_t k, rows;  // rows of W from data on
  alignas(64) int8_t copy[kSide * kDepth];
  Weights(const int8_t* first, int64_t width, int64_t count) : data(first), k(width), rows(count) {}

  const int8_t* at(int64_t column, int64_t* stride) {
    if (rows >= kSide && column + kDepth <= k) {
      *stride = k;
      return data + column;
    }
    std::memset(copy, 0, sizeof copy);
    for (int64_t i = 0; i < std::min(rows, kSide); ++i)
      std::memcpy(copy + i * kDepth, data + i * k + column, size_t(std::min(kDepth, k - column)));
    asm volatile("" ::: "memory");  // nor that a tile load reads this
    *stride = kDepth;
    return copy;
  }
};

void store_transposed(const int32_t* sums, const QuantizedRows& q, const Block& b, int64_t row, int64_t n) {
  const int64_t columns = std::min(kSide, b.n1 - n);
  for (int64_t r = row; r < std::min(row + kSide, b.row1); ++r) {
    const float scale = q.absmax[r] * (1.0f / 127.0f);
    float* y = b.y + (r - b.row0) * b.ldy + (n - b.n0);
    for (int64_t c = 0; c < columns; ++c) y[c] = float(sums[c * kSide + (r - row)]) * scale;
  }
}

void block(const Part& p, const Block& b, const Panel& panel) {
  const QuantizedRows& q = *p.rows;
  static constexpr TileConfig config;  // static: the compiler does not see that the instruction reads all of it
  _tile_loadconfig(&config);
  alignas(64) int32_t sums[4][kSide * kSide];
  for (int64_t row = b.row0; row < b.row1; row += 2 * kSide) {
    const bool two = row + kSide < b.row1;
    const int8_t* x0 = q.codes + row * q.ld;
    const int8_t* x1 = two ? x0 + kSide * q.ld : x0;
    for (int64_t n = b.n0; n < b.n1; n += 2 * kSide) {
      const int8_t* w = static_cast<const int8_t*>(p.weight) + n * p.k;
      const bool wide = n + kSide < b.n1;
      Weights w0(w, p.k, b.n1 - n), w1(wide ? w + kSide * p.k : w, p.k, b.n1 - n - (wide ? kSide : 0));
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int64_t k = 0; k < q.ld; k += kDepth) {
        int64_t s0, s1;
        const int8_t *a0 = w0.at(k, &s0), *a1 = w1.at(k, &s1);
        _tile_loadd(4, a0, s0);
        _tile_loadd(6, x0 + k * kSide, kDepth);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, x1 + k * kSide, kDepth);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, a1, s1);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
      }
      _tile_stored(0, sums[0], kDepth);
      _tile_stored(1, sums[1], kDepth);
      _tile_stored(2, sums[2], kDepth);
      _tile_stored(3, sums[3], kDepth);
      store_transposed(sums[0], q, b, row, n);
      if (two) store_transposed(sums[1], q, b, row + kSide, n);
      if (wide) store_transposed(sums[2], q, b, row, n + kSide);
      if (two && wide) store_transposed(sums[3], q, b, row + kSide, n + kSide);
    }
  }
  _tile_release();
  finish_int8(p, b, panel);
}

}  // namespace

const linear::Int8Kernels int8_kernels = {true, measure, quantize<true>, block};

}  // namespace q::cpu::Q_ISA
