#include "runtime/threads.h"
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <chrono>
#include <string>
#include <system_error>
#include "runtime/failure.h"

namespace q::cuda {

namespace {
/// A thread, or the failure that says that the system starts no more.
template <class F>
std::thread start(F run) {
  try {
    return std::thread(std::move(run));
  } catch (const std::system_error& error) {
    throw Failure("out_of_memory", std::string("no thread can be started: ") + error.what());
  }
}
}  // namespace

void Worker::push(std::function<void()> task, int64_t group) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!thread_.joinable()) thread_ = start([this] { loop(); });
    left_.fetch_add(1, std::memory_order_acq_rel);
    tasks_.push_back({std::move(task), group});
  }
  wake_.notify_one();
}

void Worker::cancel(int64_t group) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (Task& task : tasks_) {
    if (task.group == group) task.run = [] {};
  }
}

void Worker::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Worker::loop() {
  cudaSetDevice(device_);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    {
      std::function<void()> task = std::move(tasks_.front().run);
      tasks_.pop_front();
      lock.unlock();
      task();
    }
    left_.fetch_sub(1, std::memory_order_acq_rel);
    lock.lock();
  }
}

Waiter::Waiter(int device) : device_(device), thread_(start([this] { loop(); })) {}

cudaEvent_t Waiter::take_event() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!events_.empty()) {
      cudaEvent_t event = events_.back();
      events_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  check_device(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return event;
}

void Waiter::after(cudaStream_t stream, std::function<void(cudaError_t)> done) {
  cudaEvent_t event = take_event();
  check_device(cudaEventRecord(event, stream), "the device queue");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    items_.push_back({event, std::move(done)});
  }
  wake_.notify_one();
}

void Waiter::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
  events_.clear();
}

void Waiter::loop() {
  cudaSetDevice(device_);
#ifdef __linux__
  prctl(PR_SET_TIMERSLACK, 1000UL);  // so that a sleep of 10 us takes about 10 us
#endif
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !items_.empty(); });
    if (items_.empty()) return;
    Item item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    cudaError_t status;
    while ((status = cudaEventQuery(item.event)) == cudaErrorNotReady)
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    item.done(status);
    item.done = nullptr;
    lock.lock();
    events_.push_back(item.event);
  }
}

}  // namespace q::cuda
