// From 4-bit codes and their absmax to wgmma's A registers: the pieces of gemm_bnb4 that know the format.
#pragma once
#include "gemm_finish.cuh"
#include "gemm_sm90.cuh"

namespace q::cuda {

/// The absmax of one output row for the next eight K steps: fetched long before they are wanted, then denested into shared memory.
struct AbsmaxReader {
  const void* absmax;
  const float* nested_absmax;
  const float* code;  // nested code, in shared memory
  uint32_t first;
  float offset;
  int steps_shift, nested_shift;
  bool valid;
  float plain[8];
  int nested[8];

  __device__ __forceinline__ void fetch(int step, int last) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      plain[i] = 0.f;
      nested[i] = 0;
      if (!valid || step + i >= last) continue;
      const uint32_t block = first + (static_cast<uint32_t>(step + i) >> steps_shift);
      if (nested_absmax) {
        nested[i] = static_cast<const uint8_t*>(absmax)[block];
        plain[i] = nested_absmax[block >> nested_shift];
      } else {
        plain[i] = static_cast<const float*>(absmax)[block];
      }
    }
  }
  __device__ __forceinline__ void put(float* to) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i * 128] = nested_absmax ? code[nested[i]] * plain[i] + offset : plain[i];
  }
};

/// An absmax as the dequantization wants it: for f16 two halves of a pair of f16 (22 bits), else f32.
template <class T> struct Absmax {
  float value;
  __device__ __forceinline__ explicit Absmax(float a) : value(a) {}
  __device__ __forceinline__ uint32_t times(uint32_t codes) const {
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&codes));
    return Pair<T>::pack(v.x * value, v.y * value);
  }
};
template <> struct Absmax<half_t> {
  __half2 high, low;
  __device__ __forceinline__ explicit Absmax(float a) : high(__float2half2_rn(a)), low(__float2half2_rn(a - __half2float(__low2half(high)))) {}
  __device__ __forceinline__ uint32_t times(uint32_t codes) const {
    const __half2 c = *reinterpret_cast<const __half2*>(&codes), v = __hfma2(c, high, __hmul2(c, low));
    return *reinterpret_cast<const uint32_t*>(&v);
  }
};

/// One A register from byte `select` of a word of codes: W(row, 2j) in the low half, W(row, 2j + 1) in the high. `table` is this lane's copy.
template <class T> __device__ __forceinline__ uint32_t dequantize_byte(uint32_t word, uint32_t select, uint32_t table, const Absmax<T>& absmax) {
  uint32_t codes;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(codes) : "r"(table + __byte_perm(word, 0, select) * 128));
  return absmax.times(codes);
}

__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ float4 load_shared_floats(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ float load_shared(uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}

}  // namespace q::cuda
