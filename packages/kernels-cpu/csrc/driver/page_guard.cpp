// See page_guard.h. A signal handler belongs to the process, so this table is the one static state of the addon; the
// handler reads it without locks.
#include "page_guard.h"
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <array>
#include <cstdint>
#include <mutex>

namespace q::cpu {
namespace {

// One for each mapped tensor: far above the number of tensors of any model. More are refused, and their data copied.
constexpr int kMostGuards = 1 << 16;

struct Guard {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<std::atomic<bool>*> broken{nullptr};
};

std::array<Guard, kMostGuards> guards;
std::atomic<int> used{0};  // slots from here on were never taken
std::mutex table_mutex;
struct sigaction previous;
uintptr_t page_size = 0;

/// Lets the signal take the course it would have had without us.
void pass_on(int signal, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  sigaction(signal, &previous, nullptr);  // the access is tried again, and ends the process
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (int i = 0, count = used.load(std::memory_order_acquire); i < count; ++i) {
    const uintptr_t begin = guards[i].begin.load(std::memory_order_acquire);
    const uintptr_t end = guards[i].end.load(std::memory_order_acquire);
    std::atomic<bool>* broken = guards[i].broken.load(std::memory_order_acquire);
    if (!broken || address < begin || address >= end) continue;
    // Everything behind the first missing page is missing too.
    const uintptr_t page = address / page_size * page_size;
    void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) break;
    broken->store(true, std::memory_order_release);
    return;
  }
  pass_on(signal, info, context);
}

void install() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_size = uintptr_t(sysconf(_SC_PAGESIZE));
    // The handler must stay although the worker thread that loaded the addon ends.
    Dl_info self;
    if (dladdr(reinterpret_cast<void*>(&on_bus_error), &self))
      dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
  });
}

}  // namespace

int guard_pages(void* pages, size_t bytes, std::atomic<bool>* broken) {
  install();
  const std::lock_guard lock(table_mutex);
  static int next = 0;
  for (int tried = 0; tried < kMostGuards; ++tried) {
    const int at = next;
    next = (next + 1) % kMostGuards;
    if (guards[at].broken.load(std::memory_order_relaxed)) continue;
    const auto begin = reinterpret_cast<uintptr_t>(pages);
    guards[at].begin.store(begin, std::memory_order_relaxed);
    guards[at].end.store((begin + bytes + page_size - 1) / page_size * page_size, std::memory_order_relaxed);
    guards[at].broken.store(broken, std::memory_order_release);
    if (at >= used.load(std::memory_order_relaxed)) used.store(at + 1, std::memory_order_release);
    return at;
  }
  return -1;
}

void release_guard(int handle) {
  const std::lock_guard lock(table_mutex);
  guards[handle].broken.store(nullptr, std::memory_order_release);
}

}  // namespace q::cpu
