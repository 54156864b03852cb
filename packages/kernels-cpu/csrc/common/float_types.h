// The 16-bit floats as bits, converted without help of the instruction set. Exact for every value; NaN stays NaN.
// All functions are static: sources built for different instruction sets must not share their code.
#pragma once
#include <cstdint>
#include <cstring>

namespace q::cpu {

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

static inline float from_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
static inline uint32_t to_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

static inline float to_float(float f) { return f; }
static inline float to_float(BF16 h) { return from_bits(uint32_t(h.bits) << 16); }
static inline float to_float(F16 h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest < 0x400) return from_bits(sign | to_bits(float(rest) * 0x1p-24f));      // zero, subnormal
  return from_bits(sign | ((rest << 13) + 0x38000000));
}

/// Round to nearest, ties to even.
static inline BF16 to_bf16(float f) {
  const uint32_t u = to_bits(f);
  if ((u & 0x7fffffff) > 0x7f800000) return {uint16_t(u >> 16 | 0x40)};
  return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
static inline F16 to_f16(float f) {
  const uint32_t u = to_bits(f), magnitude = u & 0x7fffffff;
  const uint16_t sign = uint16_t(u >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and more
  if (magnitude < 0x38800000) {                                   // below 2^-14: a multiple of 2^-24
    const float scaled = from_bits(magnitude) + 0.5f;             // the addition rounds at 2^-24
    return {uint16_t(sign | (to_bits(scaled) - 0x3f000000))};
  }
  return {uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13))};
}

static inline void put_float(float& out, float f) { out = f; }
static inline void put_float(BF16& out, float f) { out = to_bf16(f); }
static inline void put_float(F16& out, float f) { out = to_f16(f); }

template <class T>
static inline T from_float(float f) {
  T out;
  put_float(out, f);
  return out;
}

}  // namespace q::cpu
