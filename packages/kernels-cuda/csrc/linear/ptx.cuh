// The machine instructions the streaming kernel is made of: asynchronous copies into shared memory and matrix products.
// From sm_80.
#pragma once
#include <cstdint>
#include <type_traits>
#include "device.cuh"

namespace q::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define Q_HAS_MMA 1
#else
#define Q_HAS_MMA 0
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// cp.async: memory to shared memory without a register; Bytes 4 or 16, both ends aligned to them.
template <int Bytes>
__device__ __forceinline__ void async_copy(uint32_t to, const void* from) {
#if Q_HAS_MMA
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
#endif
}
__device__ __forceinline__ void async_commit() {
#if Q_HAS_MMA
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most Pending of this thread's newest groups are on their way.
template <int Pending>
__device__ __forceinline__ void async_wait() {
#if Q_HAS_MMA
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

/// Fragments of mma.sync, lane = 4 * g + t: a[0], a[2] are row g, a[1], a[3] row g + 8; b is column g; c[0], c[1] are
/// row g, columns 2t, 2t + 1 and c[2], c[3] the same of row g + 8. Which k values a register holds is free, as long as
/// a and b of the same t agree.
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#if Q_HAS_MMA
template <>
__device__ __forceinline__ void mma<half_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<bfloat_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// m16n8k8: a[0], a[1] are k = t of rows g and g + 8, a[2], a[3] k = t + 4; b0, b1 the same of column g. Bits below the
/// 11 significant ones are ignored.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_int8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
template <>
__device__ __forceinline__ void mma<half_t>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) {
  __trap();
}
template <>
__device__ __forceinline__ void mma<bfloat_t>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) {
  __trap();
}
__device__ __forceinline__ void mma_tf32(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
__device__ __forceinline__ void mma_int8(int (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
#endif

/// An f32 as three tf32, whose sum is exactly it.
__device__ __forceinline__ void split_tf32(uint32_t value, uint32_t& high, uint32_t& middle, uint32_t& rest) {
  constexpr uint32_t kMask = 0xffffe000u;  // 11 significant bits
  high = value & kMask;
  const float left = __uint_as_float(value) - __uint_as_float(high);
  middle = __float_as_uint(left) & kMask;
  rest = __float_as_uint(left - __uint_as_float(middle));
}

/// One of a pair of f16 or bf16 as the bits of an f32, in which tf32 holds all of theirs.
template <class T>
__device__ __forceinline__ uint32_t widen_low(uint32_t pair) {
  if constexpr (std::is_same_v<T, bfloat_t>) return pair << 16;
  return __float_as_uint(__half2float(__ushort_as_half(static_cast<uint16_t>(pair))));
}
template <class T>
__device__ __forceinline__ uint32_t widen_high(uint32_t pair) {
  if constexpr (std::is_same_v<T, bfloat_t>) return pair & 0xffff0000u;
  return __float_as_uint(__half2float(__ushort_as_half(static_cast<uint16_t>(pair >> 16))));
}

}  // namespace q::cuda
