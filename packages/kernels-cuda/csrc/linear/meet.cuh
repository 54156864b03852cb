// How blocks of a launch wait for one another's results.
#pragma once
#include "device.cuh"

namespace q::cuda {

/// What the block has written can be read by whoever passes.
__device__ __forceinline__ void arrive(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
  }
}
/// How many have arrived. Whoever waits for arrivals must not be waited for by blocks of a lower index: those of a higher one may not run yet.
__device__ __forceinline__ unsigned have_arrived(const unsigned* counter) {
  unsigned arrived = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
#endif
  return arrived;
}
/// The last block that leaves sets both counters to zero.
__device__ __forceinline__ void leave(unsigned* counter, unsigned* left) {
  if (threadIdx.x == 0 && atomicAdd(left, 1u) == gridDim.x - 1) *counter = *left = 0;
}

}  // namespace q::cuda
