// How blocks of a launch wait for one another's results.
#pragma once
#include "device.cuh"

namespace q::cuda {

/// What the block has written can be read by whoever sees that it has arrived.
__device__ __forceinline__ void arrive(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
/// Waits for so many arrivals. Who is waited for must not wait for blocks of a higher index, which may not run yet.
__device__ __forceinline__ void pass(const unsigned* counter, unsigned arrivals) {
  if (threadIdx.x == 0) {
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
    } while (arrived < arrivals);
  }
  __syncthreads();
}
/// The last block that leaves sets both counters to zero.
__device__ __forceinline__ void leave(unsigned* counter, unsigned* left) {
  if (threadIdx.x == 0 && atomicAdd(left, 1u) == gridDim.x - 1) *counter = *left = 0;
}

}  // namespace q::cuda
