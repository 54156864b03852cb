// What follows the matrix product, while the sums are still in cache: out = act(y + bias), or act(gate + bias) * (up +
// bias + upOffset) with gate and up within their limits, then + residual. The exponential is a degree-7 polynomial
// after exact range reduction (below 2 ulp), written so that the compiler makes vectors of it; erf follows the C
// library.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include "../common/float_types.h"
#include "plan.h"

namespace q::cpu::Q_ISA {
namespace {

inline float exp_fast(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);                       // in this order NaN passes
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // round(x / ln 2): 1.5 * 2^23 leaves no fraction bits
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;    // ln 2 in two parts, the first exact in 10 bits
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  return p * from_bits(uint32_t(int32_t(n) + 127) << 23);
}
inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

template <ActivationKind kind>
inline float activate(float x) {
  if constexpr (kind == ActivationKind::silu) return x * sigmoid(x);
  if constexpr (kind == ActivationKind::gelu) return 0.5f * x * (1.0f + std::erf(x * 0.707106781f));
  if constexpr (kind == ActivationKind::gelu_tanh)
    return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));    // (1 + tanh z) / 2 = sigmoid(2 z)
  if constexpr (kind == ActivationKind::relu) return x <= 0 ? 0 : x;  // NaN stays
  if constexpr (kind == ActivationKind::quick_gelu) return x * sigmoid(1.702f * x);
  if constexpr (kind == ActivationKind::sigmoid) return sigmoid(x);
  if constexpr (kind == ActivationKind::tanh) return std::tanh(x);
  return x;
}

/// y *= up + bias, within the limits, + upOffset
inline void multiply_bounded(const linear::Plan& plan, const float* up, const float* bias, float* y, int64_t count) {
  const float limit = plan.limit > 0 ? plan.limit : INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    float u = bias ? up[i] + bias[i] : up[i];
    u = u > limit ? limit : u < -limit ? -limit : u;  // NaN stays
    y[i] *= u + plan.up_offset;
  }
}

/// `up` is the second part's block, of the same size, when the plan is gated.
template <ActivationKind kind>
void finish_rows(const linear::Plan& plan, int64_t part, const linear::Block& b, const float* up) {
  const linear::Part& p = plan.parts[part];
  const float* bias = p.bias ? p.bias + b.n0 : nullptr;
  const float* up_bias = up && plan.parts[part + 1].bias ? plan.parts[part + 1].bias + b.n0 : nullptr;
  const int64_t count = b.n1 - b.n0;
  for (int64_t r = b.row0; r < b.row1; ++r) {
    float* y = b.y + (r - b.row0) * b.ldy;
    float* out = plan.out + r * plan.ldo + p.column + b.n0;
    if (bias)
      for (int64_t i = 0; i < count; ++i) y[i] += bias[i];
    if (plan.limit > 0)
      for (int64_t i = 0; i < count; ++i) y[i] = y[i] > plan.limit ? plan.limit : y[i];  // NaN stays
    if (kind != ActivationKind::none)
      for (int64_t i = 0; i < count; ++i) y[i] = activate<kind>(y[i]);
    if (up) {
      const float* other = up + (r - b.row0) * b.ldy;
      if (plan.limit > 0 || plan.up_offset != 0)
        multiply_bounded(plan, other, up_bias, y, count);
      else if (up_bias)
        for (int64_t i = 0; i < count; ++i) y[i] *= other[i] + up_bias[i];
      else
        for (int64_t i = 0; i < count; ++i) y[i] *= other[i];
    }
    if (plan.residual) {
      const float* residual = plan.residual + r * plan.ldo + p.column + b.n0;  // may be out itself
      for (int64_t i = 0; i < count; ++i) y[i] += residual[i];
    }
    std::copy(y, y + count, out);
  }
}

void finish(const linear::Plan& plan, int64_t part, const linear::Block& b, const float* up) {
  switch (plan.activation) {
    case ActivationKind::none:
      return finish_rows<ActivationKind::none>(plan, part, b, up);
    case ActivationKind::silu:
      return finish_rows<ActivationKind::silu>(plan, part, b, up);
    case ActivationKind::gelu:
      return finish_rows<ActivationKind::gelu>(plan, part, b, up);
    case ActivationKind::gelu_tanh:
      return finish_rows<ActivationKind::gelu_tanh>(plan, part, b, up);
    case ActivationKind::relu:
      return finish_rows<ActivationKind::relu>(plan, part, b, up);
    case ActivationKind::quick_gelu:
      return finish_rows<ActivationKind::quick_gelu>(plan, part, b, up);
    case ActivationKind::sigmoid:
      return finish_rows<ActivationKind::sigmoid>(plan, part, b, up);
    case ActivationKind::tanh:
      return finish_rows<ActivationKind::tanh>(plan, part, b, up);
  }
}

}  // namespace
}  // namespace q::cpu::Q_ISA
