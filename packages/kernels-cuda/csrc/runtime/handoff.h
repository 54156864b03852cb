// How two queues tell each other how far they are, when a command of one must come after those of the other.
#pragma once
#include <cuda_runtime_api.h>
#include <condition_variable>
#include <mutex>

namespace q::cuda {

/// A point of one stream that another stream waits for. Thread-safe; both sides hold it.
class Handoff {
 public:
  Handoff() = default;
  ~Handoff();
  Handoff(const Handoff&) = delete;
  /// The point that `stream` has reached; its device must be the thread's. Throws Failure 'device', and then wait()
  /// throws too.
  void record(cudaStream_t stream);
  /// Instead of record(): there is nothing to wait for.
  void abandon();
  bool is_settled();
  /// Makes `stream` wait for the point. Blocks the caller until record() or abandon() was called.
  void wait(cudaStream_t stream);

 private:
  void settle(cudaError_t status);
  std::mutex mutex_;
  std::condition_variable wake_;
  bool settled_ = false;
  cudaError_t status_ = cudaSuccess;
  cudaEvent_t event_ = nullptr;
};

}  // namespace q::cuda
