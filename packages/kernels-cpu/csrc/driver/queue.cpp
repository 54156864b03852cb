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

namespace {
struct ForgetTask final : Task {
  explicit ForgetTask(uint64_t group) : cancelled(group) {}
  void run(Queue& queue) override { queue.forget(cancelled); }
  uint64_t cancelled;
};
}  // namespace

void Queue::cancel(uint64_t group) {
  auto forget = std::make_unique<ForgetTask>(group);
  {
    std::lock_guard lock(mutex_);
    cancelled_.insert(group);
    if (running_ == group) pool_.cancel();
  }
  push(std::move(forget));
}

void Queue::forget(uint64_t group) {
  std::lock_guard lock(mutex_);
  cancelled_.erase(group);
}

void Queue::stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    pool_.cancel();
  }
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

void Queue::watch(const std::shared_ptr<const File>& file) {
  for (const auto& known : mapped_)
    if (known.lock() == file) return;
  mapped_.push_back(file);
}

std::optional<Failure> Queue::take_failure() {
  std::erase_if(mapped_, [](const auto& file) { return file.expired(); });
  for (const auto& watched : mapped_) {
    if (failure_) break;
    try {
      if (const auto file = watched.lock()) file->check_unchanged();
    } catch (Failure& failure) {
      fail(std::move(failure));
    }
  }
  return std::exchange(failure_, std::nullopt);
}

void Queue::execute(const Recorded& command) {
  const auto failed = [&](const char* code, const char* what) {
    Failure failure(code, what);
    failure.command = kCommandNames[command.code];
    fail(std::move(failure));
  };
  if (pool_.cancelled()) throw Cancelled{};
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

/// The next task that is not called off; null: there is none.
std::unique_ptr<Task> Queue::next() {
  std::lock_guard lock(mutex_);
  running_ = 0;
  if (stop_.load(std::memory_order_relaxed)) return nullptr;
  pool_.resume();
  while (!tasks_.empty()) {
    std::unique_ptr<Task> task = std::move(tasks_.front());
    tasks_.pop_front();
    if (task->group != 0 && cancelled_.count(task->group) > 0) continue;
    running_ = task->group;
    return task;
  }
  return nullptr;
}

void Queue::loop() {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    std::unique_ptr<Task> task = next();
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
    } catch (const Cancelled&) {
      // what it would have written is undefined now
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
