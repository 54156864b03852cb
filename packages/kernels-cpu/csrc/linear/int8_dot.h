// LLM.int8: y[rows, n] = codes[rows, k] . CB[n, k]^T in i32, see int8_rows.h for the rest.
// layout   CB i8 row-major, codes i8 [rows, ld], zero from k to ld. A tile of R rows by 4 columns, k along the lanes.
// math     VNNI multiplies u8 by i8: CB + 128 (one xor) takes the place of CB, and 128 * sum(codes) is taken off at the
//          end. Arithmetic mod 2^32 makes that exact as long as the true sum fits i32 (k <= 133152). Without VNNI: i8
//          -> i16, multiply and add pairs.
// floor    n k bytes at the read bandwidth for few rows; rows n k multiplications, 128 (VNNI) per cycle and core, for
//          many
// exact    the i32 sum is; f32 after it in a fixed order        bench  csrc/bench/linear.cpp
// ref      bitsandbytes 0.50 int8_scaled_mm, shared values in the tests
#pragma once
#include <utility>
#include "int8_rows.h"
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace q::cpu::Q_ISA {
namespace {
using namespace linear;

#if defined(__AVX512VNNI__)
constexpr int kRows = 6, kBytes = 64, kShift = 128;
using Sum = __m512i;
using Codes = __m512i;
using Weights = __m512i;
inline Sum none() { return _mm512_setzero_si512(); }
inline Codes codes(const int8_t* p) { return _mm512_loadu_si512(p); }
inline Weights weights(const int8_t* p) {
  return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(char(0x80)));
}
inline Sum multiply(Sum s, Weights w, Codes x) { return _mm512_dpbusd_epi32(s, w, x); }
inline int32_t total(Sum s) {
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, s);
  int32_t sum = 0;
  for (int32_t lane : lanes) sum += lane;
  return sum;
}
#elif defined(__AVX512BW__)
constexpr int kRows = 6, kBytes = 32, kShift = 0;
using Sum = __m512i;
using Codes = __m512i;
using Weights = __m512i;
inline Sum none() { return _mm512_setzero_si512(); }
inline Codes codes(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Weights weights(const int8_t* p) { return codes(p); }
inline Sum multiply(Sum s, Weights w, Codes x) { return _mm512_add_epi32(s, _mm512_madd_epi16(w, x)); }
inline int32_t total(Sum s) {
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, s);
  int32_t sum = 0;
  for (int32_t lane : lanes) sum += lane;
  return sum;
}
#elif defined(__AVX2__)
constexpr int kRows = 2, kBytes = 16, kShift = 0;
using Sum = __m256i;
using Codes = __m256i;
using Weights = __m256i;
inline Sum none() { return _mm256_setzero_si256(); }
inline Codes codes(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Weights weights(const int8_t* p) { return codes(p); }
inline Sum multiply(Sum s, Weights w, Codes x) { return _mm256_add_epi32(s, _mm256_madd_epi16(w, x)); }
inline int32_t total(Sum s) {
  const __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  const __m128i q = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
#else
constexpr int kRows = 1, kBytes = 16, kShift = 0;
using Sum = int32_t;
using Codes = const int8_t*;
using Weights = const int8_t*;
inline Sum none() { return 0; }
inline Codes codes(const int8_t* p) { return p; }
inline Weights weights(const int8_t* p) { return p; }
inline Sum multiply(Sum s, Weights w, Codes x) {
  for (int i = 0; i < kBytes; ++i) s += int32_t(w[i]) * x[i];
  return s;
}
inline int32_t total(Sum s) { return s; }
#endif

template <int R>
void tile(const Part& p, const Block& b, int64_t row, const Fours& fours, int64_t i) {
  const QuantizedRows& q = *p.rows;
  const int8_t* x = q.codes + row * q.ld;
  const int8_t* w[4];
  for (int c = 0; c < 4; ++c) w[c] = static_cast<const int8_t*>(p.weight) + fours.column(i, c) * p.k;
  const int8_t *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
  Sum sums[R][4];
  for (auto& four : sums)
    for (Sum& sum : four) sum = none();
  const auto step = [&](int64_t k, Weights a, Weights b, Weights c, Weights d) {
    for (int r = 0; r < R; ++r) {
      const Codes v = codes(x + r * q.ld + k);
      sums[r][0] = multiply(sums[r][0], a, v);
      sums[r][1] = multiply(sums[r][1], b, v);
      sums[r][2] = multiply(sums[r][2], c, v);
      sums[r][3] = multiply(sums[r][3], d, v);
    }
  };
  constexpr int64_t ahead = 1024;
  int64_t k = 0;
  for (; k + kBytes <= p.k; k += kBytes) {
    __builtin_prefetch(w0 + k + ahead), __builtin_prefetch(w1 + k + ahead);
    __builtin_prefetch(w2 + k + ahead), __builtin_prefetch(w3 + k + ahead);
    step(k, weights(w0 + k), weights(w1 + k), weights(w2 + k), weights(w3 + k));
  }
  if (k < p.k) {  // codes are zero there, so any byte will do that may be read
    int8_t rest[4][kBytes] = {};
    for (int c = 0; c < 4; ++c) std::memcpy(rest[c], w[c] + k, size_t(p.k - k));
    step(k, weights(rest[0]), weights(rest[1]), weights(rest[2]), weights(rest[3]));
  }
  for (int r = 0; r < R; ++r) {
    const float scale = q.absmax[row + r] * (1.0f / 127.0f);
    float* y = b.y + (row + r - b.row0) * b.ldy + i;
    for (int c = 0; c < fours.valid(i); ++c) {
      y[c * fours.step] =
          float(int32_t(uint32_t(total(sums[r][c])) - uint32_t(kShift) * uint32_t(q.sums[row + r]))) * scale;
    }
  }
}

using Tile = void (*)(const Part&, const Block&, int64_t, const Fours&, int64_t);
template <int... R>
Tile tile_of(int rows, std::integer_sequence<int, R...>) {
  static constexpr Tile all[] = {tile<R + 1>...};
  return all[rows - 1];
}

void block(const Part& p, const Block& b, const Panel& panel) {
  const Fours fours{b};
  for (int64_t i = 0; i < fours.step; ++i) {
    for (int64_t r = b.row0; r < b.row1; r += kRows) {
      tile_of(int(std::min<int64_t>(kRows, b.row1 - r)), std::make_integer_sequence<int, kRows>{})(p, b, r, fours, i);
    }
  }
  finish_int8(p, b, panel);
}

}  // namespace

const linear::Int8Kernels int8_kernels = {false, measure, quantize<false>, block};

}  // namespace q::cpu::Q_ISA
