// fill    out[i] = value, converted to the dtype of out
// random  element i comes from Philox4x32-10 at counter (i low, i high, 0, 0), key = seed: the same for any number of
//         threads. normal: scale * sqrt(-2 ln u) cos(2 pi v); uniform: scale * (2u - 1); bits: low byte of the first
//         word, per byte
// copy    bytes       cast  floats by cells.isa.cpp; i64 to i32, refused when a value does not fit
// floor   bytes written (+ read)         ref  tensor/src/reference/commands.ts
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include "../common/checks.h"
#include "../common/float_types.h"
#include "../common/philox.h"
#include "cells.h"

namespace q::cpu {
namespace {

constexpr int64_t kGrain = 1 << 16;

/// A number as an integer, the nearest that there is; NaN gives 0.
template <class T>
T whole(double value) {
  if (!(value == value)) return 0;
  if (value >= double(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  if (value <= double(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  return T(value);
}

template <class T>
void fill_with(const Tensor& out, T value, Context& context) {
  T* to = out.as<T>();
  context.workers.parallel(out.bytes / int64_t(sizeof(T)), kGrain,
                           [=](int64_t begin, int64_t end, int) { std::fill(to + begin, to + end, value); });
}

double random_value(RandomKind kind, double scale, int64_t seed, int64_t i) {
  const Words4 words = philox({{uint32_t(i), uint32_t(i >> 32), 0, 0}}, uint32_t(seed), uint32_t(seed >> 32));
  if (kind == RandomKind::uniform) return (2 * unit(words.w[0]) - 1) * scale;
  return std::sqrt(-2 * std::log(unit(words.w[0]))) * std::cos(6.283185307179586 * unit(words.w[1])) * scale;
}

template <class T>
void random_floats(const RandomArgs& a, Context& context) {
  T* to = a.out.as<T>();
  context.workers.parallel(a.out.bytes / int64_t(sizeof(T)), 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      to[i] = from_float<T>(float(random_value(RandomKind(a.kind), a.scale, a.seed, i)));
  });
}

void random_bytes(const RandomArgs& a, Context& context) {
  uint8_t* to = a.out.as<uint8_t>();
  context.workers.parallel(a.out.bytes, 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      to[i] = uint8_t(philox({{uint32_t(i), uint32_t(i >> 32), 0, 0}}, uint32_t(a.seed), uint32_t(a.seed >> 32)).w[0]);
  });
}

void narrow(const CastArgs& a, int64_t count, Context& context) {
  const int64_t* from = a.x.as<int64_t>();
  int32_t* to = a.out.as<int32_t>();
  std::atomic<int64_t> bad{-1};
  context.workers.parallel(count, kGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      to[i] = int32_t(from[i]);
      if (to[i] != from[i]) bad.store(i, std::memory_order_relaxed);
    }
  });
  if (bad >= 0) refuse("element " + std::to_string(bad) + ", " + std::to_string(from[bad]) + ", does not fit in i32");
}

}  // namespace

void run(const FillArgs& a, Context& context) {
  switch (a.out.dtype) {
    case DType::f32:
      return fill_with(a.out, float(a.value), context);
    case DType::f16:
      return fill_with(a.out, to_f16(float(a.value)).bits, context);
    case DType::bf16:
      return fill_with(a.out, to_bf16(float(a.value)).bits, context);
    case DType::i32:
      return fill_with(a.out, whole<int32_t>(a.value), context);
    case DType::i64:
      return fill_with(a.out, whole<int64_t>(a.value), context);
    default:
      return fill_with(a.out, uint8_t(whole<int64_t>(a.value)), context);
  }
}

void run(const RandomArgs& a, Context& context) {
  if (a.kind == int64_t(RandomKind::bits)) return random_bytes(a, context);
  if (a.out.dtype == DType::f32) return random_floats<float>(a, context);
  if (a.out.dtype == DType::f16) return random_floats<F16>(a, context);
  random_floats<BF16>(a, context);
}

void run(const CopyArgs& a, Context& context) {
  char* to = a.out.as<char>();
  const char* from = a.src.as<char>();
  if (from == to) return;
  context.workers.parallel(a.out.bytes, 1 << 18, [=](int64_t begin, int64_t end, int) {
    std::memcpy(to + begin, from + begin, size_t(end - begin));
  });
}

void run(const CastArgs& a, Context& context) {
  const int64_t count = a.x.bytes / dtype_bytes(a.x.dtype);
  if (a.x.dtype == DType::i64 && a.out.dtype == DType::i32) return narrow(a, count, context);
  const auto cast = cell_kernels(context.features.isa).cast;
  const int64_t in = dtype_bytes(a.x.dtype), out = dtype_bytes(a.out.dtype);
  context.workers.parallel(count, kGrain, [&](int64_t begin, int64_t end, int) {
    cast(a.x.as<char>() + begin * in, a.x.dtype, a.out.as<char>() + begin * out, a.out.dtype, end - begin);
  });
}

}  // namespace q::cpu
