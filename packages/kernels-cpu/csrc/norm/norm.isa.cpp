// rms    out = h / sqrt(mean(h^2) + eps) * weight                 h = x, or sum = x + residual (written first)
// layer  out = (h - mean h) / sqrt(mean((h - mean h)^2) + eps) * weight + bias
// layout  rows [width] f32; sum may be x or residual, out may be h      floor  8 bytes per element, 16 with a residual
// exact   per-lane sums in two accumulators, lanes added in a fixed tree: a row's bits do not depend on other rows
// ref     tensor/src/reference/commands.ts
#include <cmath>
#include "norm.h"
#include "../common/vmath.h"

namespace q::cpu::Q_ISA {
namespace {

/// Calls body(index, count) for the vectors of a row; the last may be short.
template <class Body>
inline void each_vector(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) body(i, int64_t(kLanes));
  if (i < width) body(i, width - i);
}
inline V take(const float* p, int64_t count) { return count == kLanes ? load(p) : load_part(p, count); }
inline void put(float* p, V v, int64_t count) { count == kLanes ? store(p, v) : store_part(p, v, count); }

/// Adds the residual if there is one; returns what is to be normalised.
inline const float* input(const NormRow& row) {
  if (!row.residual) return row.x;
  each_vector(row.width,
              [&](int64_t i, int64_t n) { put(row.sum + i, take(row.x + i, n) + take(row.residual + i, n), n); });
  return row.sum;
}

template <class Of>
inline float sum_of(int64_t width, const Of& of) {
  V even = zero(), odd = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    even = even + of(i, int64_t(kLanes));
    odd = odd + of(i + kLanes, int64_t(kLanes));
  }
  if (i + kLanes <= width) {
    even = even + of(i, int64_t(kLanes));
    i += kLanes;
  }
  if (i < width) odd = odd + of(i, width - i);
  return sum_lanes(even + odd);
}

void rms(const NormRow& row, const float* weight) {
  const float* h = input(row);
  const float squares = sum_of(row.width, [&](int64_t i, int64_t n) {
    const V v = take(h + i, n);
    return v * v;
  });
  const float scale = 1.f / std::sqrt(squares / float(row.width) + row.eps);
  each_vector(row.width,
              [&](int64_t i, int64_t n) { put(row.out + i, take(h + i, n) * scale * take(weight + i, n), n); });
}

void layer(const NormRow& row, const float* weight, const float* bias) {
  const float* h = input(row);
  const float mean = sum_of(row.width, [&](int64_t i, int64_t n) { return take(h + i, n); }) / float(row.width);
  const float squares = sum_of(row.width, [&](int64_t i, int64_t n) {
    const V centred = take(h + i, n) - mean;
    V square = centred * centred;
    if (n < kLanes) {  // the padding is not part of the row
      float lanes[kLanes];
      store(lanes, square);
      square = load_part(lanes, n);
    }
    return square;
  });
  const float scale = 1.f / std::sqrt(squares / float(row.width) + row.eps);
  each_vector(row.width, [&](int64_t i, int64_t n) {
    V y = (take(h + i, n) - mean) * scale;
    if (weight) y = y * take(weight + i, n);
    if (bias) y = y + take(bias + i, n);
    put(row.out + i, y, n);
  });
}

}  // namespace

extern const NormKernels norm_kernels;
const NormKernels norm_kernels{rms, layer};

}  // namespace q::cpu::Q_ISA
