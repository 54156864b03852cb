// The in-order queue of a device: one thread that runs tasks, with the worker pool, scratch memory and the failure that
// the next promise reports.
#pragma once
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>
#include "commands.h"
#include "workers.h"

namespace q::cpu {

class Queue;

struct Task {
  virtual ~Task() = default;
  uint64_t group = 0;  // that it is called off with; 0: none
  /// Runs on the queue's thread; what it throws becomes the queue's failure.
  virtual void run(Queue& queue) = 0;
};

/// Commands recorded between beginCapture and endCapture, with the buffers they use.
struct Program {
  std::vector<std::unique_ptr<Recorded>> commands;
  std::vector<std::shared_ptr<Buffer>> buffers;
};

/// A promise's outcome, or the end of a held write; id is the caller's.
struct Done {
  uint64_t id;
  std::optional<Failure> failure;
};

class Queue {
 public:
  /// `notify` is called on the queue's thread when `collect` has something new.
  Queue(int threads, const CpuFeatures& features, std::function<void()> notify);
  ~Queue() { stop(); }

  void push(std::unique_ptr<Task> task);
  /// Skips the tasks of a group that are queued so far, and ends the one that runs.
  void cancel(uint64_t group);
  /// For the task behind those that `cancel` skips.
  void forget(uint64_t group);
  /// Drops tasks that have not begun, waits for the one that runs, and ends the threads.
  void stop();
  std::vector<Done> collect();

  // For tasks, on the queue's thread:
  /// Throws Cancelled when the task's group is called off; what else goes wrong becomes the queue's failure.
  void execute(const Recorded& command);
  void fail(Failure failure);
  /// What failed since the last call; also that a file whose pages are in use has changed.
  std::optional<Failure> take_failure();
  /// Looks at the file of a mapping at every promise, as long as the mapping lives.
  void watch(const std::shared_ptr<const File>& file);
  void finish(Done done);
  Workers& workers() { return pool_; }
  int threads() const { return pool_.threads(); }

 private:
  void loop();
  std::unique_ptr<Task> next();

  const CpuFeatures features_;
  ThreadPool pool_;
  Arena arena_;
  Context context_;
  std::optional<Failure> failure_;
  std::vector<std::weak_ptr<const File>> mapped_;
  std::function<void()> notify_;

  std::mutex mutex_;
  std::deque<std::unique_ptr<Task>> tasks_;
  std::unordered_set<uint64_t> cancelled_;
  uint64_t running_ = 0;  // group of the task that runs
  std::vector<Done> done_;
  alignas(64) std::atomic<uint32_t> signal_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace q::cpu
