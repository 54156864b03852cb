// Reading and f32 FMAs with the vectors of one instruction set. See ceilings.h.
#include "../common/simd.h"
#include "ceilings.h"

namespace q::cpu::Q_ISA {
namespace {

constexpr int kChains = 10;  // independent sums: latency 4 times two units, and registers to spare

float total(V v) {
  float lanes[kLanes], sum = 0;
  store(lanes, v);
  for (float lane : lanes) sum += lane;
  return sum;
}

float read(const char* data, int64_t bytes) {
  constexpr int64_t kStep = 4 * kLanes * 4;
  V sums[4] = {};
  for (int64_t at = 0; at + kStep <= bytes; at += kStep) {
    __builtin_prefetch(data + at + 4096);
    for (int j = 0; j < 4; ++j) sums[j] = sums[j] + load(reinterpret_cast<const float*>(data + at) + j * kLanes);
  }
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float multiply_add(int64_t repeat) {
  float start[kChains][kLanes], factor[kLanes], step[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    factor[i] = 0.999f, step[i] = 0.5f;
    for (int j = 0; j < kChains; ++j)
      start[j][i] = float(i * kChains + j);  // all different, or the compiler merges chains
  }
  const V x = load(factor), y = load(step);
  V a[kChains];
#pragma GCC unroll 10
  for (int j = 0; j < kChains; ++j) a[j] = load(start[j]);
  for (int64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 10
    for (int j = 0; j < kChains; ++j) a[j] = fma(a[j], x, y);
    asm volatile("" ::: "memory");
  }
  V sum = a[0];
#pragma GCC unroll 10
  for (int j = 1; j < kChains; ++j) sum = sum + a[j];
  return total(sum);
}

}  // namespace

const ceilings::Kernels ceiling_kernels = {read, multiply_add, 2 * kChains * kLanes};

}  // namespace q::cpu::Q_ISA
