// Hopper building blocks of the large products: mbarriers, tensor-map loads, wgmma fences and descriptors, clusters.
// Everything compiles on every architecture; the bodies exist for sm_90a only and trap elsewhere (the host never
// launches them there).
#pragma once
#include <cuda.h>
#include <cstdint>
#include "gemm_wgmma.cuh"

namespace q::cuda::sm90 {

#if Q_SM90A
#define Q_PTX(...) asm volatile(__VA_ARGS__)
#else
#define Q_PTX(...) __trap()
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// ---- mbarriers (64 bits of shared memory each)
__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  Q_PTX("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void barrier_init_fence() { Q_PTX("fence.mbarrier_init.release.cluster;" :: : "memory"); }
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  Q_PTX("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  Q_PTX("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives at the barrier with the same offset in another block of the cluster. Without .release.cluster, which costs a
/// fence of all memory (three times the step): what it orders here are reads of shared memory, and those have ended.
__device__ __forceinline__ void barrier_arrive_remote(uint32_t barrier, int rank) {
  Q_PTX("{.reg .b32 a; mapa.shared::cluster.u32 a, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [a];}" ::"r"(barrier),
        "r"(rank) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, int parity) {
  Q_PTX("{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra done; bra again; done: }" ::
            "r"(barrier),
        "r"(parity) : "memory");
}

// ---- bulk tensor loads: a box at (column c, row r) of a two-dimensional map
__device__ __forceinline__ void tensor_load(uint32_t to, const CUtensorMap* map, uint32_t barrier, int column,
                                            int row) {
  Q_PTX(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row) : "memory");
}
/// The same into every block of the cluster that `mask` names, at the same offset, completing on each block's own
/// barrier.
__device__ __forceinline__ void tensor_load_multicast(uint32_t to, const CUtensorMap* map, uint32_t barrier, int column,
                                                      int row, uint16_t mask) {
  Q_PTX(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(mask) : "memory");
}
/// Moves a box to the L2 only.
__device__ __forceinline__ void tensor_prefetch(const CUtensorMap* map, int column, int row) {
  Q_PTX("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];" ::"l"(map), "r"(column), "r"(row) : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  Q_PTX("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- wgmma
/// Descriptor of a K-major tile whose rows are 128 bytes, swizzled by 128 (8-row groups 1024 bytes apart). Adding 2
/// moves 32 bytes along K.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | (static_cast<uint64_t>(1) << 16) |
         (static_cast<uint64_t>(64) << 32) | (static_cast<uint64_t>(1) << 62);
}
__device__ __forceinline__ void wgmma_fence() { Q_PTX("wgmma.fence.sync.aligned;" :: : "memory"); }
__device__ __forceinline__ void wgmma_commit() { Q_PTX("wgmma.commit_group.sync.aligned;" :: : "memory"); }
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  Q_PTX("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

template <int Registers>
__device__ __forceinline__ void more_registers() {
  Q_PTX("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void fewer_registers() {
  Q_PTX("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

// ---- clusters and named barriers
__device__ __forceinline__ int cluster_rank() {
  uint32_t rank = 0;
  Q_PTX("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
__device__ __forceinline__ void cluster_sync() {
  Q_PTX("barrier.cluster.arrive.release.aligned;" :: : "memory");
  Q_PTX("barrier.cluster.wait.acquire.aligned;" :: : "memory");
}
/// The same without ordering memory: for blocks that only wait until the others have finished reading.
__device__ __forceinline__ void cluster_leave() {
  Q_PTX("barrier.cluster.arrive.relaxed.aligned;" :: : "memory");
  Q_PTX("barrier.cluster.wait.aligned;" :: : "memory");
}
/// Where another block of the cluster has what lies at `address` in this one.
__device__ __forceinline__ uint32_t cluster_address(uint32_t address, int rank) {
  uint32_t there = 0;
  Q_PTX("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
__device__ __forceinline__ float4 cluster_read(uint32_t address) {
  float4 v = {};
  Q_PTX("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z),
        "=f"(v.w) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void named_barrier(int id, int threads) {
  Q_PTX("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads) {
  Q_PTX("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#undef Q_PTX
}  // namespace q::cuda::sm90
