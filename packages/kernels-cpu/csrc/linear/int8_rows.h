// LLM.int8 activations, and what its kernels share. Per row of x: outliers are the values with |x| >= threshold (0:
// none), absmax is the largest of the others, codes = round_to_even(x * (127 * (1 / absmax))). bitsandbytes multiplies
// the columns in which any row of the batch has an outlier in 16 bits for all rows; here a value is an outlier by
// itself, so that a row does not depend on its neighbours. Alone, a row gives what it gives there. y = (sum of codes *
// CB * absmax / 127 + sum of outliers * CB) * SCB / 127: the first sum exact in i32, the second in f32.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include "../common/float_types.h"
#include "plan.h"

namespace q::cpu::Q_ISA {
namespace {

inline bool is_outlier(float v, float threshold) { return threshold > 0 && std::fabs(v) >= threshold; }

void measure(const linear::Plan& plan, const linear::QuantizedRows& q, float threshold, int64_t row0, int64_t row1) {
  const float limit = threshold > 0 ? threshold : INFINITY;
  for (int64_t r = row0; r < row1; ++r) {
    const float* x = plan.x + r * plan.ldx;
    float absmax = 0;
    int32_t outliers = 0, within = 0;
    for (int64_t k = 0; k < q.k; ++k) {
      const float magnitude = std::fabs(x[k]);
      const bool in = magnitude < limit;
      within += in;
      outliers += magnitude >= limit;
      absmax = std::max(absmax, in ? magnitude : 0.0f);
    }
    if (threshold <= 0) outliers = 0;
    // What has no code (NaN, and infinity where nothing is an outlier) must not vanish: it makes the row NaN.
    q.absmax[r] = within + outliers < q.k ? NAN : absmax;
    q.first[r + 1] = outliers;
  }
}

template <bool kTiles>
void quantize(const linear::Plan& plan, const linear::QuantizedRows& q, float threshold, int64_t row0, int64_t row1) {
  if (kTiles) std::memset(q.codes + row0 * q.ld, 0, size_t((row1 + 15) / 16 * 16 - row0) * size_t(q.ld));
  for (int64_t r = row0; r < row1; ++r) {
    const float* x = plan.x + r * plan.ldx;
    const float scale = q.absmax[r] > 0 ? 127.0f * (1.0f / q.absmax[r]) : 0.0f,
                limit = threshold > 0 ? threshold : INFINITY;
    int8_t* row = q.codes + r * q.ld;
    int8_t* tile = q.codes + r / 16 * 16 * q.ld + r % 16 * 4;
    int32_t sum = 0;
    const auto code = [&](int64_t k) {
      const float v = std::fabs(x[k]) < limit ? x[k] : 0.0f;
      return int32_t((v * scale + 12582912.0f) - 12582912.0f);  // 1.5 * 2^23: rounds to even
    };
    if (kTiles) {
      alignas(64) int8_t codes[256];  // made in a row, then dealt out four at a time
      for (int64_t k0 = 0; k0 < q.k; k0 += 256) {
        const int64_t count = std::min<int64_t>(256, q.k - k0);
        for (int64_t i = 0; i < count; ++i) codes[i] = int8_t(code(k0 + i));
        int64_t i = 0;
        for (; i + 4 <= count; i += 4) std::memcpy(tile + (k0 + i) * 16, codes + i, 4);
        if (i < count) std::memcpy(tile + (k0 + i) * 16, codes + i, size_t(count - i));
      }
    } else {
      for (int64_t k = 0; k < q.k; ++k) row[k] = int8_t(code(k)), sum += row[k];
      std::memset(row + q.k, 0, size_t(q.ld - q.k));
    }
    q.sums[r] = sum;
    int64_t at = q.first[r];
    if (q.first[r + 1] > at) {
      for (int64_t k = 0; k < q.k; ++k) {
        if (is_outlier(x[k], threshold)) q.columns[at] = int32_t(k), q.values[at] = x[k], ++at;
      }
    }
  }
}

/// y holds sum of codes * CB * absmax / 127; adds the outliers and scales by SCB / 127.
void finish_int8(const linear::Part& p, const linear::Block& b, const linear::Panel& panel) {
  const linear::QuantizedRows& q = *p.rows;
  const int64_t count = b.n1 - b.n0;
  if (q.first[b.row1] > q.first[b.row0]) {
    for (int64_t n = 0; n < count; ++n) {
      const int8_t* w = static_cast<const int8_t*>(p.weight) + (b.n0 + n) * p.k;
      for (int64_t i = 0; i < q.distinct_count; ++i) panel.outliers[i * count + n] = w[q.distinct[i]];
    }
  }
  const float* scb = p.scb + b.n0;
  for (int64_t r = b.row0; r < b.row1; ++r) {
    float* y = b.y + (r - b.row0) * b.ldy;
    for (int64_t i = q.first[r]; i < q.first[r + 1]; ++i) {
      const float value = q.values[i];
      const float* w = panel.outliers + q.columns[i] * count;
      for (int64_t n = 0; n < count; ++n) y[n] += value * w[n];
    }
    for (int64_t n = 0; n < count; ++n) y[n] *= scb[n] * (1.0f / 127.0f);
  }
}

}  // namespace
}  // namespace q::cpu::Q_ISA
