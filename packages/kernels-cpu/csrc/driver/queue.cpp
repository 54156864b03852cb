// See queue.h.
#include "queue.h"

namespace q::cpu {

Queue::Queue(int threads, const CpuFeatures& features, std::function<void()> notify)
    : features_(features),
      pool_(threads),
      context_{pool_, arena_, features_},
      notify_(std::move(notify)),
      thread_([this] { loop(); }) {}

void Queue::push(std::unique_ptr<Task> task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  signal_.fetch_add(1, std::memory_order_release);
  signal_.notify_one();
}

void Queue::stop() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  signal_.fetch_add(1);
  signal_.notify_one();
  thread_.join();
}

std::vector<Done> Queue::collect() {
  std::lock_guard lock(mutex_);
  return std::exchange(done_, {});
}

void Queue::finish(Done done) {
  {
    std::lock_guard lock(mutex_);
    done_.push_back(std::move(done));
  }
  notify_();
}

void Queue::fail(Failure failure) {
  if (!failure_) failure_ = std::move(failure);
}

void Queue::execute(const Recorded& command) {
  const auto failed = [&](const char* code, const char* what) {
    Failure failure(code, what);
    failure.command = kCommandNames[command.code];
    fail(std::move(failure));
  };
  arena_.reset();
  try {
    command.execute(context_);
  } catch (Failure& failure) {
    failure.command = kCommandNames[command.code];
    fail(std::move(failure));
  } catch (const std::bad_alloc&) {
    failed("out_of_memory", "no memory for the command's scratch space");
  } catch (const std::exception& error) {
    failed("command", error.what());
  }
}

void Queue::loop() {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    std::unique_ptr<Task> task;
    {
      std::lock_guard lock(mutex_);
      if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
    }
    if (!task) {
      if (signal_.load(std::memory_order_acquire) == seen) {
        arena_.trim();
        wait_change(signal_, seen);
      }
      seen = signal_.load(std::memory_order_acquire);
      continue;
    }
    try {
      task->run(*this);
    } catch (Failure& failure) {
      fail(std::move(failure));
    } catch (const std::exception& error) {
      fail(Failure("device", error.what()));
    }
  }
  std::lock_guard lock(mutex_);
  tasks_.clear();
}

}  // namespace q::cpu
