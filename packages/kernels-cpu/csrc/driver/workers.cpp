// See workers.h.
#include "workers.h"
#include <algorithm>
#include <chrono>
#include <system_error>

namespace q::cpu {
namespace {

constexpr uint64_t kOpen = 1ull << 31, kInside = kOpen - 1;
constexpr int kChunksPerThread = 8;  // evens out uneven items; more would cost locality
constexpr auto kSpin = std::chrono::microseconds(50);

}  // namespace

void wait_change(const std::atomic<uint32_t>& word, uint32_t seen) {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (word.load(std::memory_order_acquire) != seen) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  word.wait(seen, std::memory_order_acquire);
}

ThreadPool::ThreadPool(int threads) {
  try {
    others_.reserve(size_t(std::max(threads - 1, 0)));
    for (int i = 1; i < threads; ++i) others_.emplace_back([this, i] { loop(i); });
  } catch (const std::system_error&) {
    // The system starts no more threads (a limit of processes or memory): those that run do the work.
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  signal_.fetch_add(1);
  signal_.notify_all();
  for (auto& thread : others_) thread.join();
}

void ThreadPool::loop(int thread) {
  uint32_t seen = 0;
  while (true) {
    wait_change(signal_, seen);
    seen = signal_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    uint64_t state = state_.load(std::memory_order_acquire);
    while (state & kOpen) {
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
      work(thread);
      state_.fetch_sub(1, std::memory_order_acq_rel);
      break;
    }
  }
}

void ThreadPool::work(int thread) {
  try {
    while (true) {
      const int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= count_ || cancelled()) return;
      (*body_)(begin, std::min(begin + chunk_, count_), thread);
    }
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::parallel(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) {
  if (count <= 0) return;
  if (cancelled()) throw Cancelled{};
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = int64_t(threads()) * kChunksPerThread;
  const int64_t chunk = std::max(grain, count / pieces + (count % pieces != 0));
  if (others_.empty() || count <= grain) {
    for (int64_t begin = 0; begin < count && !cancelled(); begin += chunk)
      body(begin, std::min(begin + chunk, count), 0);
    if (cancelled()) throw Cancelled{};
    return;
  }
  body_ = &body;
  count_ = count;
  chunk_ = chunk;
  next_.store(0, std::memory_order_relaxed);
  const uint64_t epoch = (state_.load(std::memory_order_relaxed) >> 32) + 1;
  state_.store(epoch << 32 | kOpen, std::memory_order_release);
  signal_.fetch_add(1, std::memory_order_release);
  signal_.notify_all();
  work(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; state_.load(std::memory_order_acquire) & kInside; ++spins) {
    if (spins < 20000)
      relax();
    else
      std::this_thread::yield();  // a thread inside was descheduled
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  if (cancelled()) throw Cancelled{};
}

}  // namespace q::cpu
