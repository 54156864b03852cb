// The two threads of a device: Worker runs what would block the caller, in order; Waiter tells when device work is
// done.
#pragma once
#include <cuda_runtime_api.h>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace q::cuda {

/// Runs tasks one after the other on its own thread.
class Worker {
 public:
  explicit Worker(int device) : device_(device) {}
  ~Worker() { stop(); }
  /// True when every task pushed so far has ended: the caller may then do its work itself.
  bool idle() const { return left_.load(std::memory_order_acquire) == 0; }
  /// Tasks do not throw. `group`: that `cancel` skips the task with; 0: none. Throws Failure 'out_of_memory', with nothing
  /// pushed, when the thread cannot be started.
  void push(std::function<void()> task, int64_t group = 0);
  /// Skips the tasks of a group that have not begun.
  void cancel(int64_t group);
  /// Runs what was pushed, then ends the thread.
  void stop();

 private:
  void loop();
  const int device_;
  std::atomic<int64_t> left_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  struct Task {
    std::function<void()> run;
    int64_t group;
  };
  std::deque<Task> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

/// Calls back when events have happened, in the order they were pushed, about 20 us after the device.
class Waiter {
 public:
  explicit Waiter(int device);
  ~Waiter() { stop(); }
  /// Records an event on the stream; `done(status)` runs on the waiter's thread once it has happened.
  void after(cudaStream_t stream, std::function<void(cudaError_t)> done);
  void stop();

 private:
  struct Item {
    cudaEvent_t event;
    std::function<void(cudaError_t)> done;
  };
  void loop();
  cudaEvent_t take_event();
  const int device_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> items_;
  std::vector<cudaEvent_t> events_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace q::cuda
