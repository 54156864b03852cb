// The threads of one queue. The queue's own thread is thread 0; the others wait for it, first spinning (a decode step
// issues a parallel section every few microseconds), then asleep (an idle queue uses no CPU).
//
// A section is published in `state_`: epoch << 32 | open << 31 | threads inside. Threads join an open section by
// counting themselves in, take chunks from `next_` until none is left, and count themselves out. The owner works too,
// closes the section when the chunks are gone and waits for those still inside; a thread that wakes too late finds it
// closed, so a short section never waits for a sleeper.
#pragma once
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>
#include "../common/context.h"

namespace q::cpu {

/// One pause of a spinning thread.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `word` differs from `seen`: spins for about 50 us, then sleeps.
void wait_change(const std::atomic<uint32_t>& word, uint32_t seen);

class ThreadPool final : public Workers {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  /// As many as were asked for, or as the system could start.
  int threads() const override { return int(others_.size()) + 1; }
  bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }
  /// Any thread: the section that is open, and later ones, end soon; `resume` lets new ones begin.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void resume() { cancelled_.store(false, std::memory_order_relaxed); }
  void parallel(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) override;

 private:
  void loop(int thread);
  void work(int thread);

  std::vector<std::thread> others_;
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> signal_{0};
  std::atomic<bool> stop_{false}, cancelled_{false};
  // The open section; written by the owner while nobody is inside.
  const std::function<void(int64_t, int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0, chunk_ = 1;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace q::cpu
