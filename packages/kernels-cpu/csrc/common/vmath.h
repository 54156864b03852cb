// Arithmetic on the vectors of simd.h: selection, rounding, exp, tanh, erf, and the activation functions. For .isa.cpp
// sources.
// accuracy  exp, tanh, erf, sigmoid: about 2e-7 relative; exp gives 0 below -87.3 and 2.4e38 above 88.37; NaN stays NaN
// method    exp: 2^n * Taylor(r), r = x - n ln 2, degree 7 on |r| <= 0.347 (error 5e-9)
//           tanh: continued fraction to x/(1+z/(3+z/(5+z/(7+z/9)))), z = x^2, below 0.625; above, (1 - t) / (1 + t), t
//           = exp(-2x) erf: Taylor series below 1; above, Abramowitz and Stegun 7.1.26
#pragma once
#include "simd.h"

namespace q::cpu::Q_ISA {

typedef int32_t I __attribute__((vector_size(sizeof(V))));

#if defined(__AVX512F__)
static inline V splat(float x) { return _mm512_set1_ps(x); }
#elif defined(__AVX2__)
static inline V splat(float x) { return _mm256_set1_ps(x); }
#else
static inline V splat(float x) { return V{x, x, x, x}; }
#endif
static inline I splat(int32_t x) { return I{} + x; }
static inline V select(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }
static inline I less(V a, V b) { return (I)(a < b); }
static inline V max(V a, V b) { return select(less(a, b), b, a); }  // a NaN in a stays
static inline V min(V a, V b) { return select(less(b, a), b, a); }
static inline V abs(V a) { return (V)((I)a & 0x7fffffff); }
static inline V with_sign(V magnitude, V of) { return (V)((I)magnitude | ((I)of & int32_t(0x80000000))); }

static inline float sum_lanes(V v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
static inline float max_lanes(V v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] < lanes[i + half] ? lanes[i + half] : lanes[i];
  }
  return lanes[0];
}

static inline void store_part(float* p, V v, int64_t count) {
  float lanes[kLanes];
  store(lanes, v);
  std::memcpy(p, lanes, size_t(count) * 4);
}

/// Rounds to the 16-bit float, to nearest even.
static inline void store(BF16* p, V v) {
  typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
  typedef uint32_t U __attribute__((vector_size(4 * kLanes)));
  const U u = (U)v;
  const U nan = (U)((I)(u & 0x7fffffff) > 0x7f800000);
  const U bits = (~nan & ((u + 0x7fff + ((u >> 16) & 1)) >> 16)) | (nan & ((u >> 16) | 0x40));
  const Half half = __builtin_convertvector(bits, Half);
  std::memcpy(p, &half, sizeof half);
}
static inline void store(F16* p, V v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = to_f16(v[i]);
#endif
}

static inline V exp(V x) {
  const V clamped = min(max(x, splat(-87.33f)), splat(88.37f));
  const V magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const V shifted = fma(clamped, splat(1.44269504f), magic);
  const V n = shifted - magic;
  const V r = fma(n, splat(-1.42860682e-6f), fma(n, splat(-0.693145752f), clamped));
  V p = splat(1.f / 5040);
  p = fma(p, r, splat(1.f / 720));
  p = fma(p, r, splat(1.f / 120));
  p = fma(p, r, splat(1.f / 24));
  p = fma(p, r, splat(1.f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.f));
  p = fma(p, r, splat(1.f));
  const I power = ((I)shifted - (I)magic + 127) << 23;
  return select(less(x, splat(-87.33f)), V{}, p * (V)power);
}

static inline V tanh(V x) {
  const V a = abs(x), z = a * a;
  const V small = a * (fma(z, z + 105.f, splat(945.f)) / fma(z, fma(z, splat(15.f), splat(420.f)), splat(945.f)));
  const V t = exp(a * -2.f);
  return with_sign(select(less(a, splat(0.625f)), small, (1.f - t) / (1.f + t)), x);
}

static inline V erf(V x) {
  const V a = abs(x), z = a * a;
  // sum over n of (-1)^n z^n / (n! (2n + 1)), times 2 / sqrt(pi)
  V s = splat(1.f / 76204800);
  s = fma(s, z, splat(-1.f / 6894720));
  s = fma(s, z, splat(1.f / 685440));
  s = fma(s, z, splat(-1.f / 75600));
  s = fma(s, z, splat(1.f / 9360));
  s = fma(s, z, splat(-1.f / 1320));
  s = fma(s, z, splat(1.f / 216));
  s = fma(s, z, splat(-1.f / 42));
  s = fma(s, z, splat(1.f / 10));
  s = fma(s, z, splat(-1.f / 3));
  s = fma(s, z, splat(1.f));
  const V small = a * s * 1.12837917f;
  const V t = 1.f / fma(a, splat(0.3275911f), splat(1.f));
  V q = splat(1.061405429f);
  q = fma(q, t, splat(-1.453152027f));
  q = fma(q, t, splat(1.421413741f));
  q = fma(q, t, splat(-0.284496736f));
  q = fma(q, t, splat(0.254829592f));
  return with_sign(select(less(a, splat(1.f)), small, 1.f - q * t * exp(-z)), x);
}

static inline V sigmoid(V x) { return 1.f / (1.f + exp(-x)); }

struct None {
  static V of(V x) { return x; }
};
struct Silu {
  static V of(V x) { return x / (1.f + exp(-x)); }
};
struct Gelu {
  static V of(V x) { return 0.5f * x * (1.f + erf(x * 0.707106781f)); }
};
struct GeluTanh {
  static V of(V x) { return 0.5f * x * (1.f + tanh(0.797884561f * fma(x * x * x, splat(0.044715f), x))); }
};
struct Relu {
  static V of(V x) { return max(x, V{}); }
};
struct QuickGelu {
  static V of(V x) { return x / (1.f + exp(x * -1.702f)); }
};
struct Sigmoid {
  static V of(V x) { return sigmoid(x); }
};
struct Tanh {
  static V of(V x) { return tanh(x); }
};

}  // namespace q::cpu::Q_ISA
