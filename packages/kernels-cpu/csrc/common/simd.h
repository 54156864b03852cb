// One vector of floats, three ways. A source that includes this is compiled once per instruction set, with
// -DQ_ISA=scalar, avx2 or avx512 and the matching flags; everything it defines lives in q::cpu::Q_ISA, so that the
// linker never mixes them up.
//   scalar  4 lanes, the compiler's generic vectors: SSE2 on x86, NEON on ARM
//   avx2    8 lanes, + FMA + F16C
//   avx512  16 lanes, F, BW, VL, DQ
// The sum of a vector is taken in one fixed order (reduce4), so results are the same bits on every run of one
// instruction set.
#pragma once
#include <cstdint>
#include <cstring>
#include "float_types.h"

#ifndef Q_ISA
#error "compile with -DQ_ISA=scalar, avx2 or avx512"
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace q::cpu::Q_ISA {

typedef float V4 __attribute__((vector_size(16)));
inline V4 load4(const float* p) {
  V4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store4(float* p, V4 v) { std::memcpy(p, &v, sizeof v); }

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using V = __m512;
inline V zero() { return _mm512_setzero_ps(); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline V load(const BF16* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
inline V load(const F16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }

/// Element i is the sum of vi's lanes.
inline V4 reduce4(V v0, V v1, V v2, V v3) {
  const V a = _mm512_add_ps(_mm512_unpacklo_ps(v0, v1), _mm512_unpackhi_ps(v0, v1));
  const V b = _mm512_add_ps(_mm512_unpacklo_ps(v2, v3), _mm512_unpackhi_ps(v2, v3));
  const V c = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
  return _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using V = __m256;
inline V zero() { return _mm256_setzero_ps(); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline V load(const BF16* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline V load(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void store(float* p, V v) { _mm256_storeu_ps(p, v); }

inline V4 reduce4(V v0, V v1, V v2, V v3) {
  const V a = _mm256_add_ps(_mm256_unpacklo_ps(v0, v1), _mm256_unpackhi_ps(v0, v1));
  const V b = _mm256_add_ps(_mm256_unpacklo_ps(v2, v3), _mm256_unpackhi_ps(v2, v3));
  const V c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  return _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
}

#else

constexpr int kLanes = 4;
using V = V4;
inline V zero() { return V{0, 0, 0, 0}; }
#if defined(__ARM_NEON)
inline V fma(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
inline V fma(V a, V b, V c) { return a * b + c; }
#endif
template <class T>
inline V load(const T* p) {
  return V{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}
inline V load(const float* p) { return load4(p); }
inline void store(float* p, V v) { store4(p, v); }

inline V4 reduce4(V v0, V v1, V v2, V v3) {
  const V all[4] = {v0, v1, v2, v3};
  V4 sums{};
  for (int i = 0; i < 4; ++i) sums[i] = (all[i][0] + all[i][1]) + (all[i][2] + all[i][3]);
  return sums;
}

#endif

/// The first `count` < kLanes elements, then zeros.
template <class T>
inline V load_part(const T* p, int64_t count) {
  T padded[kLanes] = {};
  std::memcpy(padded, p, size_t(count) * sizeof(T));
  return load(padded);
}

}  // namespace q::cpu::Q_ISA
