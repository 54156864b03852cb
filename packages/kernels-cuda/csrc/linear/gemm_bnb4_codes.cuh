// From 4-bit codes and their absmax to wgmma's A registers: the pieces of gemm_bnb4 that know the format.
#pragma once
#include "gemm_finish.cuh"
#include "gemm_sm90.cuh"
#include "launch.h"

namespace q::cuda {

struct Bnb4Part {
  const void* absmax;          // f32, or u8 when nested
  const float* nested_absmax;  // null: plain
  const float* nested_code;
  const float* offset;
};

/// An absmax in 32 bits as the dequantization wants it, so that one shuffle hands it on: for f16 a pair of f16 whose
/// sum it is (22 bits), else f32.
template <class T>
struct Absmax {
  float value;
  static __device__ __forceinline__ uint32_t pack(float a) { return *reinterpret_cast<const uint32_t*>(&a); }
  __device__ __forceinline__ explicit Absmax(uint32_t packed) : value(*reinterpret_cast<const float*>(&packed)) {}
  __device__ __forceinline__ uint32_t times(uint32_t codes) const {
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&codes));
    return Pair<T>::pack(v.x * value, v.y * value);
  }
};
template <>
struct Absmax<half_t> {
  __half2 high, low;
  static __device__ __forceinline__ uint32_t pack(float a) {
    const __half h = __float2half_rn(a);
    const __half2 v = __halves2half2(h, __float2half_rn(a - __half2float(h)));
    return *reinterpret_cast<const uint32_t*>(&v);
  }
  __device__ __forceinline__ explicit Absmax(uint32_t packed)
      : high(__low2half2(*reinterpret_cast<const __half2*>(&packed))),
        low(__high2half2(*reinterpret_cast<const __half2*>(&packed))) {}
  __device__ __forceinline__ uint32_t times(uint32_t codes) const {
    const __half2 c = *reinterpret_cast<const __half2*>(&codes), v = __hfma2(c, high, __hmul2(c, low));
    return *reinterpret_cast<const uint32_t*>(&v);
  }
};

/// The absmax of a thread's two output rows (8 apart) in groups of four K steps: lane c of the four that share the rows
/// has the one of step c. A group is fetched into registers four steps before it is wanted; denesting it costs a
/// look-up and two operations every four steps.
struct AbsmaxReader {
  const Bnb4Part& part;
  const float* code;  // nested code, in shared memory
  uint32_t first[2];  // block of the row's first value
  bool valid[2];
  int steps_shift, nested_shift;
  float offset;
  float plain[2];
  int nested[2];

  /// All that the rows need for steps [begin, end), to the L2 only: the four lanes take a line of 128 bytes in turn.
  /// May come before what made the weight is done.
  __device__ __forceinline__ void prefetch(int begin, int end, int c) const {
    const int size = part.nested_absmax ? 1 : 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (!valid[h]) continue;
      const char* from = static_cast<const char*>(part.absmax) +
                         (first[h] + (static_cast<uint32_t>(begin) >> steps_shift)) * static_cast<int64_t>(size);
      const int bytes = ((end - 1 >> steps_shift) - (begin >> steps_shift) + 1) * size;
      for (int i = c * 128; i < bytes + 127; i += 512) prefetch_l2(from + min(i, bytes - 1));
      if (part.nested_absmax && c == 3) prefetch_l2(part.nested_absmax + (first[h] >> nested_shift));
    }
  }
  __device__ __forceinline__ void fetch(int step, int end) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      plain[h] = 0.f;
      nested[h] = 0;
      if (!valid[h] || step >= end) continue;
      const uint32_t block = first[h] + (static_cast<uint32_t>(step) >> steps_shift);
      if (part.nested_absmax) {
        nested[h] = static_cast<const uint8_t*>(part.absmax)[block];
        plain[h] = part.nested_absmax[block >> nested_shift];
      } else {
        plain[h] = static_cast<const float*>(part.absmax)[block];
      }
    }
  }
  /// nestedCode[u8] * nestedAbsmax + offset in two roundings, as bitsandbytes does it.
  __device__ __forceinline__ float value(int h) const {
    return part.nested_absmax ? __fadd_rn(__fmul_rn(code[nested[h]], plain[h]), offset) : plain[h];
  }
};

/// Both codes of byte `select` of a word as a pair of f16: k = 2j in the low half, 2j + 1 in the high. `table` is this
/// lane's copy.
__device__ __forceinline__ uint32_t look_up(uint32_t word, uint32_t select, uint32_t table) {
  uint32_t codes;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(codes) : "r"(table + __byte_perm(word, 0, select) * 128));
  return codes;
}

__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ void store_shared_floats(uint32_t address, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}
__device__ __forceinline__ float4 load_shared_floats(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

}  // namespace q::cuda
