// The machine instructions the linear kernels are made of: barriers in shared memory, bulk copies into it, matrix products.
// Everything here exists from sm_80; bulk copies from sm_90 (before that cp.async moves the same bytes, 16 a thread).
#pragma once
#include <cstdint>
#include "device.cuh"

namespace q::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define Q_HAS_BULK_COPY 1
#else
#define Q_HAS_BULK_COPY 0
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define Q_HAS_MMA 1
#else
#define Q_HAS_MMA 0
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

#if Q_HAS_MMA
__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("{ .reg .b64 s; mbarrier.arrive.shared.b64 s, [%0]; }" ::"r"(barrier) : "memory");
}
/// Waits until the phase with this parity is complete.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
#if Q_HAS_BULK_COPY
  asm volatile(
      "{ .reg .pred p;\n"
      "again: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n"
      "@!p bra again; }" ::"r"(barrier), "r"(parity) : "memory");
#else
  asm volatile(
      "{ .reg .pred p;\n"
      "again: mbarrier.test_wait.parity.shared.b64 p, [%0], %1;\n"
      "@!p bra again; }" ::"r"(barrier), "r"(parity) : "memory");
#endif
}
#endif

/// Makes initialised barriers visible to the copy engine; a __syncthreads() follows.
__device__ __forceinline__ void fence_barriers() {
#if Q_HAS_BULK_COPY
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

#if Q_HAS_BULK_COPY
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("{ .reg .b64 s; mbarrier.arrive.expect_tx.shared.b64 s, [%0], %1; }" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Copies `bytes` (a multiple of 16, both ends 16-byte aligned) and counts them on the barrier. Weights are read once: first to leave the L2.
__device__ __forceinline__ void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "{ .reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], policy; }" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void bulk_prefetch(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
#elif Q_HAS_MMA
__device__ __forceinline__ void async_copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/// Arrives on the barrier once this thread's cp.async copies so far are done.
__device__ __forceinline__ void async_arrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}
#endif

/// Fragments of mma.sync, lane = 4 * g + t: a[0], a[2] are row g, a[1], a[3] row g + 8; b is column g; c[0], c[1] are row g, columns 2t, 2t + 1
/// and c[2], c[3] the same of row g + 8. Which k values a register holds is free, as long as a and b of the same t agree.
template <class T> __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#if Q_HAS_MMA
template <> __device__ __forceinline__ void mma<half_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void mma<bfloat_t>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_int8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
template <> __device__ __forceinline__ void mma<half_t>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
template <> __device__ __forceinline__ void mma<bfloat_t>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
__device__ __forceinline__ void mma_int8(int (&)[4], const uint32_t (&)[4], uint32_t, uint32_t) { __trap(); }
#endif

}  // namespace q::cuda
