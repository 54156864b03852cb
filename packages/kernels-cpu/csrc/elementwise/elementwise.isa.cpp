// Flat f32 loops. floor: 4 bytes per element read and written. accuracy: vmath.h.
// softmax      exp(x - max) / sum; minus infinity gives 0       exact  the order of the sum depends on n only
// argmax       lowest index of the maximum, -1 for a broken row       ref    tensor/src/reference/commands.ts
#include <cmath>
#include "elementwise.h"
#include "../common/vmath.h"

namespace q::cpu::Q_ISA {
namespace {

template <class F>
inline void map(const float* x, float* out, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(load(x + i)));
  if (i < n) store_part(out + i, f(load_part(x + i, n - i)), n - i);
}
template <class F>
inline void map(const float* x, const float* y, float* out, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(load(x + i), load(y + i)));
  if (i < n) store_part(out + i, f(load_part(x + i, n - i), load_part(y + i, n - i)), n - i);
}

/// Calls `with` with the activation as a type.
template <class With>
inline void choose(ActivationKind kind, const With& with) {
  switch (kind) {
    case ActivationKind::none:
      return with(None{});
    case ActivationKind::silu:
      return with(Silu{});
    case ActivationKind::gelu:
      return with(Gelu{});
    case ActivationKind::gelu_tanh:
      return with(GeluTanh{});
    case ActivationKind::relu:
      return with(Relu{});
    case ActivationKind::quick_gelu:
      return with(QuickGelu{});
    case ActivationKind::sigmoid:
      return with(Sigmoid{});
    case ActivationKind::tanh:
      return with(Tanh{});
  }
}

void activation(ActivationKind kind, const float* x, float* out, int64_t n) {
  choose(kind, [&](auto f) { map(x, out, n, [](V v) { return decltype(f)::of(v); }); });
}
void gated(ActivationKind kind, const float* gate, const float* up, float* out, int64_t n) {
  choose(kind, [&](auto f) { map(gate, up, out, n, [](V g, V u) { return decltype(f)::of(g) * u; }); });
}
void bounded(const float* x, float* out, int64_t n, float low, float high, float offset) {
  map(x, out, n, [=](V v) { return max(min(v, splat(high)), splat(low)) + offset; });
}
void add(const float* a, const float* b, float* out, int64_t n) {
  map(a, b, out, n, [](V x, V y) { return x + y; });
}
void scale(const float* x, float* out, int64_t n, float factor, float softcap) {
  if (softcap > 0)
    map(x, out, n, [=](V v) { return softcap * tanh(v * factor / softcap); });
  else
    map(x, out, n, [=](V v) { return v * factor; });
}

float max_of(const float* x, int64_t n) {
  V most = splat(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = max(most, load(x + i));
  float best = max_lanes(most);
  for (; i < n; ++i) best = best < x[i] ? x[i] : best;
  return best;
}

/// Sum of exp(x - shift), which is also written to out unless null.
float exp_sum(const float* x, float* out, int64_t n, float shift) {
  V sum = zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V e = exp(load(x + i) - shift);
    if (out) store(out + i, e);
    sum = sum + e;
  }
  float total = sum_lanes(sum);
  if (i < n) {
    float tail[kLanes];
    store(tail, exp(load_part(x + i, n - i) - shift));
    for (int64_t j = 0; j < n - i; ++j) {
      if (out) out[i + j] = tail[j];
      total += tail[j];
    }
  }
  return total;
}

void softmax(const float* x, float* out, int64_t n) {
  const float sum = exp_sum(x, out, n, max_of(x, n));
  map(out, out, n, [=](V v) { return v / sum; });
}

double log_sum_exp(const float* x, int64_t n) {
  const float most = max_of(x, n);
  return double(most) + std::log(double(exp_sum(x, nullptr, n, most)));
}

int64_t argmax(const float* x, int64_t n) {
  V highest = splat(-INFINITY);
  I broken{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V v = load(x + i);
    broken = broken | (I)(v != v);
    highest = max(highest, v);
  }
  float most = max_lanes(highest);
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= broken[lane];
  for (; i < n; ++i) {
    any |= x[i] != x[i];
    most = most < x[i] ? x[i] : most;
  }
  if (any || !(std::fabs(most) < INFINITY)) return -1;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == most) return i;
  }
  return -1;
}

}  // namespace

extern const ElementwiseKernels elementwise_kernels;
const ElementwiseKernels elementwise_kernels{activation, gated, bounded, add, scale, softmax, log_sum_exp, argmax};

}  // namespace q::cpu::Q_ISA
