// Pinned host memory on its way to and from the device.
#pragma once
#include <cuda_runtime_api.h>
#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace q::cuda {

/// Pinned blocks for reads, kept for reuse. Thread-safe.
class PinnedPool {
 public:
  static constexpr size_t kLargest = 1u << 20;
  ~PinnedPool();
  struct Block {
    void* data;
    int size_class;
  };
  Block take(size_t bytes);  // at most kLargest
  void give(Block block);

 private:
  static constexpr std::array<size_t, 3> kSizes{4096, 65536, kLargest};
  std::mutex mutex_;
  std::array<std::vector<void*>, 3> free_;
  std::vector<void*> all_;
};

/// Ring of pinned memory for small writes: take() gives space that the caller copies from on `stream` before the next
/// take().
class WriteRing {
 public:
  static constexpr size_t kLargest = 64u << 10;
  explicit WriteRing(cudaStream_t stream);
  ~WriteRing();
  /// Null when the space is still being copied from and `wait` is false.
  void* take(size_t bytes, bool wait);

 private:
  static constexpr int kSegments = 8;
  static constexpr size_t kSegmentBytes = 256u << 10;
  cudaStream_t stream_;
  char* data_ = nullptr;
  std::array<cudaEvent_t, kSegments> copied_{};
  int segment_ = 0;
  size_t used_ = 0;
};

/// Moves large blocks through pinned slots, the host filling one while others are on their way. Used by the worker
/// thread only.
class SlotCopier {
 public:
  static constexpr size_t kSlotBytes = 8u << 20;
  SlotCopier(cudaStream_t compute, cudaStream_t copy);
  ~SlotCopier();
  /// fill(to, at, bytes) provides source bytes [at, at + bytes). Ordered after all earlier work of the compute stream
  /// and before later work.
  void upload(char* to, size_t bytes, const std::function<void(char*, size_t, size_t)>& fill);
  /// Copies device bytes into host memory and returns when they are there.
  void download(const char* from, size_t bytes, char* to);

 private:
  struct Slot {
    char* data = nullptr;
    cudaEvent_t done = nullptr;
  };
  cudaStream_t compute_, copy_;
  std::array<Slot, 4> slots_{};
  cudaEvent_t order_ = nullptr;
};

/// Reads exactly `bytes` of a file at `offset` into `to`, several threads sharing large reads. Throws Failure 'file'.
void read_exactly(int fd, char* to, size_t bytes, int64_t offset);

}  // namespace q::cuda
