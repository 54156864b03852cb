// Unpacks 64 4-bit codes (32 bytes, high nibble = even k) into weights code[c] * absmax, rounded once to f32.
// Scaling the 16-entry table costs one multiplication for 64 weights, and a permutation then looks up a whole vector.
// The lanes come out in another order than k; nibble_order says which, and x is brought into the same order once per
// call.
#pragma once
#include "../common/simd.h"

namespace q::cpu::Q_ISA {

constexpr int kNibbleVectors = 64 / kLanes;

#if defined(__AVX512F__)

/// Which of the 64 values stands at `position`: lane l of vector j holds nibble j + 4 (l / 8) of the 32-bit word l % 8.
constexpr int nibble_order(int position) {
  const int j = position / 16, lane = position % 16, nibble = j + 4 * (lane / 8);
  return 8 * (lane % 8) + (nibble ^ 1);
}

struct Nibbles {
  V table;
  __m512i shift[4];
  explicit Nibbles(const float* code) : table(load(code)) {
    const __m512i half = _mm512_set_epi32(16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0);
    for (int j = 0; j < 4; ++j) shift[j] = _mm512_add_epi32(half, _mm512_set1_epi32(4 * j));
  }
  struct Chunk {
    __m512i words;
    V scaled;
  };
  Chunk chunk(const uint8_t* codes, float absmax) const {
    return {_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes))),
            _mm512_mul_ps(table, _mm512_set1_ps(absmax))};
  }
  V get(const Chunk& c, int j) const {
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(c.words, shift[j]), c.scaled);
  }  // reads 4 bits
};

#elif defined(__AVX2__)

/// Lane l of vector j holds nibble j of the 32-bit word l.
constexpr int nibble_order(int position) { return 8 * (position % 8) + (position / 8 ^ 1); }

struct Nibbles {
  V low, high;
  explicit Nibbles(const float* code) : low(load(code)), high(load(code + 8)) {}
  struct Chunk {
    __m256i words;
    V low, high;
  };
  Chunk chunk(const uint8_t* codes, float absmax) const {
    const V scale = _mm256_set1_ps(absmax);
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)), _mm256_mul_ps(low, scale),
            _mm256_mul_ps(high, scale)};
  }
  V get(const Chunk& c, int j) const {
    const __m256i index =
        _mm256_srli_epi32(c.words, 4 * j);  // the permutation reads 3 bits, the fourth chooses the table
    const V choose = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(c.low, index), _mm256_permutevar8x32_ps(c.high, index), choose);
  }
};

#else

constexpr int nibble_order(int position) { return position; }

struct Nibbles {
  const float* code;
  explicit Nibbles(const float* table) : code(table) {}
  struct Chunk {
    const uint8_t* codes;
    float scaled[16];
  };
  Chunk chunk(const uint8_t* codes, float absmax) const {
    Chunk c{codes, {}};
    for (int i = 0; i < 16; ++i) c.scaled[i] = code[i] * absmax;
    return c;
  }
  V get(const Chunk& c, int j) const {
    const uint8_t* p = c.codes + 2 * j;
    return V{c.scaled[p[0] >> 4], c.scaled[p[0] & 15], c.scaled[p[1] >> 4], c.scaled[p[1] & 15]};
  }
};

#endif

}  // namespace q::cpu::Q_ISA
