#include "runtime/handoff.h"
#include "runtime/failure.h"

namespace q::cuda {

// Destroying an event that has not happened yet is allowed: the runtime frees it later.
Handoff::~Handoff() {
  if (event_) cudaEventDestroy(event_);
}

void Handoff::record(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (status == cudaSuccess) status = cudaEventRecord(event, stream);
  event_ = event;
  settle(status);
  check_device(status, "a copy between devices");
}

void Handoff::abandon() { settle(cudaSuccess); }

void Handoff::settle(cudaError_t status) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    settled_ = true;
  }
  wake_.notify_all();
}

bool Handoff::is_settled() {
  std::lock_guard<std::mutex> lock(mutex_);
  return settled_;
}

void Handoff::wait(cudaStream_t stream) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return settled_; });
    check_device(status_, "a copy between devices");
  }
  if (event_) check_device(cudaStreamWaitEvent(stream, event_, 0), "a copy between devices");
}

}  // namespace q::cuda
