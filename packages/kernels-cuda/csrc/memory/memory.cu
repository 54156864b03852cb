// fill, random, copy, cast: one pass over memory, 16 bytes a thread and step where the pointers allow it.
// floor   bytes written (+ read); ~4.3 TB/s on an H200; launch grid-stride, 256 threads, at most 16 blocks a
//         multiprocessor
// exact   bit-defined                                         ref     tensor/src/driver/schema.ts
#include "device.cuh"
#include "launch.h"
#include "philox.cuh"
#include <cstring>

namespace q::cuda {
namespace {

constexpr int kThreads = 256;

unsigned grid_for(const Context& c, int64_t items) {
  const int64_t most = 16ll * c.multiprocessors;
  const int64_t blocks = (items + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

// The 16-byte pattern repeats with a period of 1, 2, 4 or 8 bytes, so a tail is written from its start.
__global__ void fill_kernel(uint8_t* out, int64_t bytes, uint4 pattern) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t packs = bytes / 16;
  for (int64_t i = first; i < packs; i += step) reinterpret_cast<uint4*>(out)[i] = pattern;
  if (first < bytes % 16) out[packs * 16 + first] = reinterpret_cast<const uint8_t*>(&pattern)[first];
}

__global__ void fill_bytes_kernel(uint8_t* out, int64_t bytes, uint4 pattern) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < bytes; i += step)
    out[i] = reinterpret_cast<const uint8_t*>(&pattern)[i % 16];
}

/// Four values a thread: counter (group index, 0, 0), key seed. Normal by Box-Muller on pairs of words.
__device__ void random4(float (&v)[4], int64_t group, RandomKind kind, float scale, uint2 key) {
  const uint4 r = philox(make_uint4(uint32_t(group), uint32_t(uint64_t(group) >> 32), 0, 0), key);
  const uint32_t word[4] = {r.x, r.y, r.z, r.w};
  constexpr float kUnit = 2.3283064365386963e-10f;  // 2^-32
  if (kind == RandomKind::uniform) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = scale * (2.f * ((float(word[i] >> 8) + 0.5f) * 5.9604644775390625e-08f) - 1.f);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float radius = scale * sqrtf(-2.f * logf((float(word[i]) + 0.5f) * kUnit));
    float s, c;
    sincospif(2.f * (float(word[i + 1]) * kUnit), &s, &c);
    v[i] = radius * c;
    v[i + 1] = radius * s;
  }
}

template <class T>
__global__ void random_kernel(T* out, int64_t count, RandomKind kind, float scale, uint2 key) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t g = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; g < (count + 3) / 4; g += step) {
    float v[4];
    random4(v, g, kind, scale, key);
    for (int i = 0; i < 4 && 4 * g + i < count; ++i) out[4 * g + i] = from_float<T>(v[i]);
  }
}

__global__ void random_bits_kernel(uint8_t* out, int64_t bytes, uint2 key) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t g = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; g < (bytes + 15) / 16; g += step) {
    const uint4 r = philox(make_uint4(uint32_t(g), uint32_t(uint64_t(g) >> 32), 0, 0), key);
    for (int i = 0; i < 16 && 16 * g + i < bytes; ++i) out[16 * g + i] = reinterpret_cast<const uint8_t*>(&r)[i];
  }
}

__global__ void copy_kernel(const uint4* src, uint4* out, int64_t packs) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < packs; i += step) out[i] = src[i];
}

template <class X, class Y>
__global__ void cast_kernel(const X* x, Y* out, int64_t count, bool wide) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t packs = wide ? count / 4 : 0;
  for (int64_t i = first; i < packs; i += step) {
    float v[4];
    load(v, x + 4 * i);
    store(out + 4 * i, v);
  }
  for (int64_t i = 4 * packs + first; i < count; i += step) out[i] = from_float<Y>(to_float(x[i]));
}

__global__ void narrow_kernel(const int64_t* x, int32_t* out, int64_t count) {
  pdl_begin();
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    out[i] = static_cast<int32_t>(x[i]);
}

template <class E>
uint4 repeated(E element) {
  uint4 pattern;
  for (size_t i = 0; i < 16 / sizeof(E); ++i)
    memcpy(reinterpret_cast<char*>(&pattern) + i * sizeof(E), &element, sizeof(E));
  return pattern;
}

uint4 pattern_of(DType dtype, double value) {
  switch (dtype) {
    case DType::f32:
      return repeated(static_cast<float>(value));
    case DType::f16:
      return repeated(__double2half(value));
    case DType::bf16:
      return repeated(__double2bfloat16(value));
    case DType::i8:
      return repeated(static_cast<int8_t>(value));
    case DType::i32:
      return repeated(static_cast<int32_t>(value));
    case DType::i64:
      return repeated(static_cast<int64_t>(value));
    default:
      return repeated(static_cast<uint8_t>(value));
  }
}

uint2 key_of(int64_t seed) {
  return make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32));
}

}  // namespace

void run(const FillArgs& a, Context& c) {
  if (a.out.bytes == 0) return;
  const uint4 pattern = pattern_of(a.out.dtype, a.value);
  const bool wide = aligned16(a.out.data);
  launch(c, "fill", wide ? fill_kernel : fill_bytes_kernel, grid_for(c, wide ? a.out.bytes / 16 + 1 : a.out.bytes),
         kThreads, 0, a.out.as<uint8_t>(), a.out.bytes, pattern);
}

void run(const RandomArgs& a, Context& c) {
  if (a.out.bytes == 0) return;
  const RandomKind kind = static_cast<RandomKind>(a.kind);
  if (kind == RandomKind::bits) {
    return launch(c, "random", random_bits_kernel, grid_for(c, (a.out.bytes + 15) / 16), kThreads, 0,
                  a.out.as<uint8_t>(), a.out.bytes, key_of(a.seed));
  }
  with_float(a.out.dtype, "random", [&](auto zero) {
    using T = decltype(zero);
    const int64_t count = count_of(a.out);
    launch(c, "random", random_kernel<T>, grid_for(c, (count + 3) / 4), kThreads, 0, a.out.as<T>(), count, kind,
           static_cast<float>(a.scale), key_of(a.seed));
  });
}

void run(const CopyArgs& a, Context& c) {
  if (a.out.bytes == 0 || a.src.data == a.out.data) return;
  constexpr int64_t kSmall = 4 << 20;  // above it the copy engine's own kernel is as fast
  if (a.out.bytes < kSmall && a.out.bytes % 16 == 0 && aligned16(a.src.data) && aligned16(a.out.data)) {
    return launch(c, "copy", copy_kernel, grid_for(c, a.out.bytes / 16), kThreads, 0, a.src.as<const uint4>(),
                  a.out.as<uint4>(), a.out.bytes / 16);
  }
  check(cudaMemcpyAsync(a.out.data, a.src.data, static_cast<size_t>(a.out.bytes), cudaMemcpyDeviceToDevice, c.stream),
        "copy");
}

void run(const CastArgs& a, Context& c) {
  const int64_t count = count_of(a.x);
  if (count == 0) return;
  if (a.x.dtype == DType::i64 && a.out.dtype == DType::i32) {
    return launch(c, "cast", narrow_kernel, grid_for(c, count), kThreads, 0, a.x.as<const int64_t>(),
                  a.out.as<int32_t>(), count);
  }
  const bool wide = aligned16(a.x.data) && aligned16(a.out.data);
  with_float(a.x.dtype, "cast", [&](auto x0) {
    with_float(a.out.dtype, "cast", [&](auto y0) {
      using X = decltype(x0);
      using Y = decltype(y0);
      launch(c, "cast", cast_kernel<X, Y>, grid_for(c, wide ? count / 4 + 4 : count), kThreads, 0, a.x.as<const X>(),
             a.out.as<Y>(), count, wide);
    });
  });
}

}  // namespace q::cuda
