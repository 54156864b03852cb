#include "runtime/device.h"

namespace q::cuda {

PoolMemory::PoolMemory(const DeviceFacts& facts, cudaStream_t stream) : facts_(facts), stream_(stream) {
  int supported = 0;
  cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, facts.index);
  if (!supported) return;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, facts.index};
  check_device(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate");
  uint64_t keep = UINT64_MAX;
  check_device(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
}

PoolMemory::~PoolMemory() {
  if (pool_) cudaMemPoolDestroy(pool_);
}

void* PoolMemory::take(size_t bytes) {
  void* data = nullptr;
  const auto attempt = [&] {
    return pool_ ? cudaMallocFromPoolAsync(&data, bytes, pool_, stream_) : cudaMalloc(&data, bytes);
  };
  cudaError_t status = attempt();
  if (status == cudaErrorMemoryAllocation) {
    // What was given back but is still in queued work, and what the pool keeps in pieces, may be enough.
    cudaGetLastError();
    cudaStreamSynchronize(stream_);
    if (pool_) cudaMemPoolTrimTo(pool_, 0);
    status = attempt();
  }
  if (status == cudaSuccess) return data;
  cudaGetLastError();
  if (status != cudaErrorMemoryAllocation) check_device(status, "device memory");
  const int64_t free = free_bytes();
  Failure failure("out_of_memory", "cuda:" + std::to_string(facts_.index) + " (" + facts_.name + ") has no room for " +
                                       std::to_string(bytes) + " bytes: " + std::to_string(free) + " of " +
                                       std::to_string(facts_.total_bytes) + " are free");
  failure.wanted_bytes = static_cast<int64_t>(bytes);
  failure.free_bytes = free;
  throw failure;
}

void PoolMemory::give(void* pointer) {
  if (pool_) {
    cudaFreeAsync(pointer, stream_);
  } else {
    cudaStreamSynchronize(stream_);
    cudaFree(pointer);
  }
}

int64_t PoolMemory::free_bytes() const {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  if (!pool_) return static_cast<int64_t>(free);
  uint64_t reserved = 0, used = 0;
  cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved);
  cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used);
  return static_cast<int64_t>(free + reserved - used);
}

}  // namespace q::cuda
