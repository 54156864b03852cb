// y[rows, n] = x[rows, k] . W[n, k]^T for f32, f16, bf16 and 4-bit weights; sums in f32.
// layout   W row-major; x f32 [rows, ldx] padded with zeros to whole vectors. k runs along the lanes of a vector, for 1
//          row as for 512, so nothing is transposed: a tile of R rows by 4 columns holds 4 R accumulators and reads R +
//          4 vectors per 4 R FMAs.
// few rows weights are widened (or looked up) in registers and meet each row at once: one pass over the bytes.
// many     a panel of columns by kBlockK is widened to f32 once, stays in L2, and meets all rows; 6 rows of x (24 KB)
//          stay in L1.
// floor    decode: bytes of W (n k b / 8 + absmax) at the machine's read bandwidth. Prefill: rows n k FMAs at lanes x 2
//          a cycle.
// exact    order of the sum: see kBlockK. The same for every number of rows and every tile shape: a row's bits do not
//          depend on how many rows there are. 4-bit weights are code * absmax rounded to f32, as dequantize4bit gives
//          them.
// needs    nothing of k and n; 4-bit with k % 64 != 0 or blocks that straddle rows are unpacked one by one
//          (nibble_any).
// ref      packages/tensor, reference backend     bench  csrc/bench/linear.cpp
#include <algorithm>
#include <utility>
#include "../common/bnb_codes.h"
#include "../common/simd.h"
#include "epilogue.h"
#include "nibbles.h"
#include "plan.h"

namespace q::cpu::Q_ISA {
namespace {
using namespace linear;

#if defined(__AVX512F__)
constexpr int kRows = 6;        // 24 accumulators, 4 weights, 1 x of 32 registers
constexpr int kNibbleRows = 4;  // 16 accumulators, 4 chunks and their tables, 4 weights
constexpr int64_t kDirectRows = 16;
#elif defined(__AVX2__)
constexpr int kRows = 2;  // 8 accumulators, 4 weights, 1 x of 16 registers
constexpr int kNibbleRows = 2;
constexpr int64_t kDirectRows = 4;
#else
constexpr int kRows = 2;
constexpr int kNibbleRows = 2;
constexpr int64_t kDirectRows = 2;
#endif

constexpr int64_t kFetchAhead = 1024;  // bytes; 512 to 2048 measure the same

struct Target {
  float* y;
  int64_t ldy, step;  // from row to row, from one of the four columns to the next
  int columns;        // 1 to 4
  bool add;           // to what the k blocks before gave
};

template <int R>
inline void emit(const V (&sums)[R][4], const Target& t) {
  const bool whole = t.columns == 4 && t.step == 1;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const V4 four = reduce4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    float* y = t.y + r * t.ldy;
    if (whole)
      store4(y, t.add ? load4(y) + four : four);
    else
      for (int c = 0; c < t.columns; ++c) y[c * t.step] = t.add ? y[c * t.step] + four[c] : four[c];
  }
}

/// R rows by 4 columns of a panel; `count` is whole vectors. One loop and nothing else: the sums stay in registers.
/// The panel is in the second cache: its next lines are fetched a little ahead (512 bytes measured best of 256, 512,
/// 1024).
template <int R>
void panel_tile(const float* x, int64_t ldx, const float* const* w, int64_t count, const Target& target) {
  const float *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
  V sums[R][4];
  for (auto& row : sums)
    for (V& sum : row) sum = zero();
  for (int64_t k = 0; k < count; k += kLanes) {
    for (const float* column : {w0, w1, w2, w3}) __builtin_prefetch(column + k + 128);
    const V a = load(w0 + k), b = load(w1 + k), c = load(w2 + k), d = load(w3 + k);
    for (int r = 0; r < R; ++r) {
      const V v = load(x + r * ldx + k);
      sums[r][0] = fma(v, a, sums[r][0]);
      sums[r][1] = fma(v, b, sums[r][1]);
      sums[r][2] = fma(v, c, sums[r][2]);
      sums[r][3] = fma(v, d, sums[r][3]);
    }
  }
  emit(sums, target);
}

/// R rows by 4 columns of W itself, fetching what lies `ahead` bytes further.
template <class T, int R>
void dense_tile(const float* x, int64_t ldx, const T* const* w, int64_t count, int64_t ahead, const Target& target) {
  const T *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
  V sums[R][4];
  for (auto& row : sums)
    for (V& sum : row) sum = zero();
  const auto step = [&](int64_t k, V a, V b, V c, V d) {
    for (int r = 0; r < R; ++r) {
      const V v = load(x + r * ldx + k);
      sums[r][0] = fma(v, a, sums[r][0]);
      sums[r][1] = fma(v, b, sums[r][1]);
      sums[r][2] = fma(v, c, sums[r][2]);
      sums[r][3] = fma(v, d, sums[r][3]);
    }
  };
  const auto fetch = [ahead](const T* p) { __builtin_prefetch(reinterpret_cast<const char*>(p) + ahead); };
  constexpr int64_t kLine = 64 / sizeof(T);
  int64_t k = 0;
  for (; k + kLine <= count; k += kLine) {
    fetch(w0 + k), fetch(w1 + k), fetch(w2 + k), fetch(w3 + k);
    for (int64_t i = k; i < k + kLine; i += kLanes) step(i, load(w0 + i), load(w1 + i), load(w2 + i), load(w3 + i));
  }
  for (; k + kLanes <= count; k += kLanes) step(k, load(w0 + k), load(w1 + k), load(w2 + k), load(w3 + k));
  if (const int64_t rest = count - k) {
    step(k, load_part(w0 + k, rest), load_part(w1 + k, rest), load_part(w2 + k, rest), load_part(w3 + k, rest));
  }
  emit(sums, target);
}

/// Four rows of codes and where their absmax values are.
struct NibbleRows {
  const uint8_t* codes[4];
  const float* absmax[4];
  int64_t chunk[4];  // of the first code, counted from absmax
  int shift;
};

template <int R>
void nibble_tile(const float* x, int64_t ldx, const NibbleRows& rows, const Nibbles& nibbles, int64_t chunks,
                 int64_t ahead, const Target& target) {
  const NibbleRows w = rows;
  const Nibbles table = nibbles;
  V sums[R][4];
  for (auto& row : sums)
    for (V& sum : row) sum = zero();
  const auto chunk = [&](int c, int64_t i) {
    __builtin_prefetch(w.codes[c] + 32 * i + ahead);
    return table.chunk(w.codes[c] + 32 * i, w.absmax[c][(w.chunk[c] + i) >> w.shift]);
  };
  for (int64_t i = 0; i < chunks; ++i) {
    const Nibbles::Chunk c0 = chunk(0, i), c1 = chunk(1, i), c2 = chunk(2, i), c3 = chunk(3, i);
#pragma GCC unroll 16
    for (int j = 0; j < kNibbleVectors; ++j) {
      const V a = table.get(c0, j), b = table.get(c1, j), c = table.get(c2, j), d = table.get(c3, j);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V v = load(x + r * ldx + i * kChunk + j * kLanes);
        sums[r][0] = fma(v, a, sums[r][0]);
        sums[r][1] = fma(v, b, sums[r][1]);
        sums[r][2] = fma(v, c, sums[r][2]);
        sums[r][3] = fma(v, d, sums[r][3]);
      }
    }
  }
  emit(sums, target);
}

template <class T>
using DenseTile = void (*)(const float*, int64_t, const T* const*, int64_t, int64_t, const Target&);
using PanelTile = void (*)(const float*, int64_t, const float* const*, int64_t, const Target&);
using NibbleTile = void (*)(const float*, int64_t, const NibbleRows&, const Nibbles&, int64_t, int64_t, const Target&);
template <class T, int... R>
DenseTile<T> dense_tile_of(int rows, std::integer_sequence<int, R...>) {
  static constexpr DenseTile<T> all[] = {dense_tile<T, R + 1>...};
  return all[rows - 1];
}
template <int... R>
PanelTile panel_tile_of(int rows, std::integer_sequence<int, R...>) {
  static constexpr PanelTile all[] = {panel_tile<R + 1>...};
  return all[rows - 1];
}
template <int... R>
NibbleTile nibble_tile_of(int rows, std::integer_sequence<int, R...>) {
  static constexpr NibbleTile all[] = {nibble_tile<R + 1>...};
  return all[rows - 1];
}
using Rows = std::make_integer_sequence<int, kRows>;

/// absmax of blocks [first, first + count) as f32, in place or decoded into `out`.
const float* absmax_of(const Part& p, int64_t first, int64_t count, float* out) {
  if (!p.nested) return p.absmax + first;
  for (int64_t i = 0; i < count;) {
    const int64_t outer = (first + i) / p.nested_block_size,
                  end = std::min(count, (outer + 1) * p.nested_block_size - first);
    const float scale = p.nested_absmax[outer];
#if defined(__AVX512F__)
    for (; i + 16 <= end; i += 16) {
      const __m512i index =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.nested + first + i)));
      const V product = _mm512_mul_ps(_mm512_i32gather_ps(index, p.nested_code, 4), _mm512_set1_ps(scale));
      store(out + i, _mm512_add_ps(product, _mm512_set1_ps(p.offset)));
    }
#endif
    for (; i < end; ++i) {
      const float product = p.nested_code[p.nested[first + i]] * scale;  // rounded, then the offset, as dequantize4bit
      out[i] = product + p.offset;
    }
  }
  return out;
}

/// The codes of row n of W, from k on for `count` values.
void set_row(NibbleRows& rows, int c, const Part& p, int64_t n, int64_t k, int64_t count, float* scratch) {
  const int64_t chunk = (n * p.k + k) / kChunk, first = chunk >> p.shift,
                end = ((chunk + count / kChunk - 1) >> p.shift) + 1;
  rows.codes[c] = static_cast<const uint8_t*>(p.weight) + chunk * (kChunk / 2);
  rows.absmax[c] = absmax_of(p, first, end - first, scratch + c * absmax_per_row(p.block_size));
  rows.chunk[c] = chunk - (first << p.shift);
  rows.shift = p.shift;
}

Target target_of(const Fours& fours, const Block& b, int64_t i, bool add) {
  return {b.y + i, b.ldy, fours.step, fours.valid(i), add};
}

/// Calls run(i, k, ahead) for each four columns i and each block of k. One or two rows follow the streams of W to their
/// ends; more rows take the blocks of k one by one, so that their x stays in the first cache, and fetch what the next
/// columns need.
template <class Run>
void each_four(const Part& p, const Block& b, const Fours& fours, int64_t row_bytes, const Run& run) {
  if (b.row1 - b.row0 <= 2) {
    for (int64_t i = 0; i < fours.step; ++i)
      for (int64_t k = 0; k < p.k; k += kBlockK) run(i, k, kFetchAhead);
  } else {
    for (int64_t k = 0; k < p.k; k += kBlockK)
      for (int64_t i = 0; i < fours.step; ++i) run(i, k, row_bytes);
  }
}

/// The rows of a block in passes of at most `most`, as equal as can be.
template <class Run>
void each_pass(const Block& b, int most, const Run& run) {
  const int64_t rows = b.row1 - b.row0, passes = (rows + most - 1) / most;
  for (int64_t pass = 0; pass < passes; ++pass)
    run(rows * pass / passes, int(rows * (pass + 1) / passes - rows * pass / passes));
}

template <class T>
void direct_dense(const Part& p, const Plan& plan, const Block& b) {
  const T* weight = static_cast<const T*>(p.weight);
  const Fours fours{b};
  each_four(p, b, fours, p.k * int64_t(sizeof(T)), [&](int64_t i, int64_t k, int64_t ahead) {
    const T* w[4];
    for (int c = 0; c < 4; ++c) w[c] = weight + fours.column(i, c) * p.k + k;
    Target target = target_of(fours, b, i, k > 0);
    each_pass(b, kRows, [&](int64_t r, int rows) {
      target.y = b.y + r * b.ldy + i;
      dense_tile_of<T>(rows, Rows{})(plan.x + (b.row0 + r) * plan.ldx + k, plan.ldx, w, std::min(kBlockK, p.k - k),
                                     ahead, target);
    });
  });
}

void direct_nibble(const Part& p, const Plan& plan, const Block& b, const Panel& panel) {
  const Nibbles table(p.code);
  const Fours fours{b};
  each_four(p, b, fours, p.k / 2, [&](int64_t i, int64_t k, int64_t ahead) {
    const int64_t count = std::min(kBlockK, p.k - k);
    NibbleRows w;
    for (int c = 0; c < 4; ++c) set_row(w, c, p, fours.column(i, c), k, count, panel.absmax);
    Target target = target_of(fours, b, i, k > 0);
    each_pass(b, kNibbleRows, [&](int64_t r, int rows) {
      target.y = b.y + r * b.ldy + i;
      nibble_tile_of(rows, std::make_integer_sequence<int, kNibbleRows>{})(
          plan.x_nibble + (b.row0 + r) * plan.ld_nibble + k, plan.ld_nibble, w, table, count / kChunk, ahead, target);
    });
  });
}

template <class T>
void widen(const Part& p, int64_t n, int64_t k, int64_t count, float* out) {
  const T* w = static_cast<const T*>(p.weight) + n * p.k + k;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(w + i));
  if (i < count) store(out + i, load_part(w + i, count - i));
}

void widen_any_nibble(const Part& p, int64_t n, int64_t k, int64_t count, float* out) {
  const uint8_t* codes = static_cast<const uint8_t*>(p.weight);
  const int64_t flat = n * p.k + k;
  for (int64_t i = 0; i < count;) {
    const int64_t block = (flat + i) / p.block_size, end = std::min(count, (block + 1) * p.block_size - flat);
    float decoded;
    const float absmax = *absmax_of(p, block, 1, &decoded);
    for (; i < end; ++i) out[i] = p.code[codes[(flat + i) / 2] >> ((flat + i) % 2 ? 0 : 4) & 15] * absmax;
  }
  for (int64_t i = count; i % kLanes; ++i) out[i] = 0;
}

void widen_nibbles(const Part& p, const Nibbles& table, int64_t n, int64_t k, int64_t count, float* absmax,
                   float* out) {
  NibbleRows w;
  set_row(w, 0, p, n, k, count, absmax);
  for (int64_t i = 0; i < count / kChunk; ++i) {
    const Nibbles::Chunk chunk = table.chunk(w.codes[0] + 32 * i, w.absmax[0][(w.chunk[0] + i) >> w.shift]);
    for (int j = 0; j < kNibbleVectors; ++j) store(out + i * kChunk + j * kLanes, table.get(chunk, j));
  }
}

/// Columns [n0, n1) from k on into the panel.
void fill_panel(const Part& p, int64_t n0, int64_t n1, int64_t k, int64_t count, const Panel& panel) {
  const Nibbles table(p.code ? p.code : kNf4);
  for (int64_t n = n0; n < n1; ++n) {
    float* out = panel.weights + (n - n0) * kPanelStride;
    if (p.format == Format::f32) widen<float>(p, n, k, count, out);
    if (p.format == Format::f16) widen<F16>(p, n, k, count, out);
    if (p.format == Format::bf16) widen<BF16>(p, n, k, count, out);
    if (p.format == Format::nibble_any) widen_any_nibble(p, n, k, count, out);
    if (p.format == Format::nibble) widen_nibbles(p, table, n, k, count, panel.absmax, out);
  }
}

void through_panel(const Part& p, const Plan& plan, const Block& b, const Panel& panel) {
  const bool ordered = p.format == Format::nibble;
  const float* x = ordered ? plan.x_nibble : plan.x;
  const int64_t ldx = ordered ? plan.ld_nibble : plan.ldx;
  for (int64_t k = 0; k < p.k; k += kBlockK) {
    const int64_t count = std::min(kBlockK, p.k - k), padded = (count + kLanes - 1) / kLanes * kLanes;
    fill_panel(p, b.n0, b.n1, k, count, panel);
    for (int64_t r = b.row0; r < b.row1; r += kRows) {
      const PanelTile tile = panel_tile_of(int(std::min<int64_t>(kRows, b.row1 - r)), Rows{});
      for (int64_t n = b.n0; n < b.n1; n += 4) {
        const float* w[4];
        for (int c = 0; c < 4; ++c) w[c] = panel.weights + (std::min(n + c, b.n1 - 1) - b.n0) * kPanelStride;
        tile(x + r * ldx + k, ldx, w, padded,
             {b.y + (r - b.row0) * b.ldy + (n - b.n0), b.ldy, 1, int(std::min<int64_t>(4, b.n1 - n)), k > 0});
      }
    }
  }
}

void block(const Part& p, const Plan& plan, const Block& b, const Panel& panel) {
  if (b.row1 - b.row0 <= kDirectRows) {
    if (p.format == Format::f32) return direct_dense<float>(p, plan, b);
    if (p.format == Format::f16) return direct_dense<F16>(p, plan, b);
    if (p.format == Format::bf16) return direct_dense<BF16>(p, plan, b);
    if (p.format == Format::nibble) return direct_nibble(p, plan, b, panel);
  }
  through_panel(p, plan, b, panel);
}

void order_nibbles(const float* x, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kChunk) {
    for (int position = 0; position < kChunk; ++position) out[i + position] = x[i + nibble_order(position)];
  }
}

}  // namespace

const linear::FloatKernels float_kernels = {kDirectRows, kLanes, order_nibbles, block, finish};

}  // namespace q::cpu::Q_ISA
