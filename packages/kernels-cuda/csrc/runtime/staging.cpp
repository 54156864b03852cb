#include "runtime/staging.h"
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include "runtime/failure.h"

namespace q::cuda {
namespace {

void* pinned(size_t bytes) {
  void* data = nullptr;
  check_device(cudaMallocHost(&data, bytes), "pinned host memory");
  return data;
}

cudaEvent_t quiet_event() {
  cudaEvent_t event = nullptr;
  check_device(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate");
  return event;
}

}  // namespace

PinnedPool::~PinnedPool() {
  for (void* data : all_) cudaFreeHost(data);
}

PinnedPool::Block PinnedPool::take(size_t bytes) {
  int size_class = 0;
  while (kSizes[size_class] < bytes) ++size_class;
  std::lock_guard<std::mutex> lock(mutex_);
  auto& free = free_[size_class];
  if (free.empty()) {
    free.push_back(pinned(kSizes[size_class]));
    all_.push_back(free.back());
  }
  void* data = free.back();
  free.pop_back();
  return {data, size_class};
}

void PinnedPool::give(Block block) {
  std::lock_guard<std::mutex> lock(mutex_);
  free_[block.size_class].push_back(block.data);
}

WriteRing::WriteRing(cudaStream_t stream) : stream_(stream) {
  data_ = static_cast<char*>(pinned(kSegments * kSegmentBytes));
  for (auto& event : copied_) event = quiet_event();
}

WriteRing::~WriteRing() {
  for (auto event : copied_) cudaEventDestroy(event);
  cudaFreeHost(data_);
}

void* WriteRing::take(size_t bytes, bool wait) {
  if (used_ + bytes > kSegmentBytes) {
    const int next = (segment_ + 1) % kSegments;
    if (wait) {
      check_device(cudaEventSynchronize(copied_[next]), "a queued write");
    } else if (cudaEventQuery(copied_[next]) != cudaSuccess) {
      return nullptr;
    }
    check_device(cudaEventRecord(copied_[segment_], stream_), "a queued write");
    segment_ = next;
    used_ = 0;
  }
  void* space = data_ + segment_ * kSegmentBytes + used_;
  used_ += (bytes + 63) & ~size_t(63);
  return space;
}

SlotCopier::~SlotCopier() {
  for (auto& slot : slots_) {
    if (slot.done) cudaEventDestroy(slot.done);
    if (slot.data) cudaFreeHost(slot.data);
  }
  if (order_) cudaEventDestroy(order_);
}

// The slots are pinned here, when the device is opened: pinning holds a lock of the CUDA runtime for milliseconds.
SlotCopier::SlotCopier(cudaStream_t compute, cudaStream_t copy) : compute_(compute), copy_(copy) {
  for (auto& slot : slots_) {
    slot.data = static_cast<char*>(pinned(kSlotBytes));
    slot.done = quiet_event();
  }
  order_ = quiet_event();
}

void SlotCopier::upload(char* to, size_t bytes, const std::function<void(char*, size_t, size_t)>& fill) {
  check_device(cudaEventRecord(order_, compute_), "an upload");
  check_device(cudaStreamWaitEvent(copy_, order_, 0), "an upload");
  for (size_t at = 0, i = 0; at < bytes; at += kSlotBytes, ++i) {
    Slot& slot = slots_[i % slots_.size()];
    const size_t size = std::min(kSlotBytes, bytes - at);
    check_device(cudaEventSynchronize(slot.done), "an upload");
    fill(slot.data, at, size);
    check_device(cudaMemcpyAsync(to + at, slot.data, size, cudaMemcpyHostToDevice, copy_), "an upload");
    check_device(cudaEventRecord(slot.done, copy_), "an upload");
  }
  check_device(cudaEventRecord(order_, copy_), "an upload");
  check_device(cudaStreamWaitEvent(compute_, order_, 0), "an upload");
}

void SlotCopier::download(const char* from, size_t bytes, char* to) {
  const size_t chunks = (bytes + kSlotBytes - 1) / kSlotBytes;
  const auto size_of = [&](size_t i) { return std::min(kSlotBytes, bytes - i * kSlotBytes); };
  const auto collect = [&](size_t i) {
    Slot& slot = slots_[i % slots_.size()];
    check_device(cudaEventSynchronize(slot.done), "a read");
    std::memcpy(to + i * kSlotBytes, slot.data, size_of(i));
  };
  check_device(cudaStreamSynchronize(copy_), "a read");  // slots may still be uploading
  const size_t ahead = slots_.size() - 1;
  for (size_t i = 0; i < chunks; ++i) {
    Slot& slot = slots_[i % slots_.size()];
    check_device(cudaMemcpyAsync(slot.data, from + i * kSlotBytes, size_of(i), cudaMemcpyDeviceToHost, compute_),
                 "a read");
    check_device(cudaEventRecord(slot.done, compute_), "a read");
    if (i >= ahead) collect(i - ahead);
  }
  for (size_t i = chunks > ahead ? chunks - ahead : 0; i < chunks; ++i) collect(i);
}

void read_exactly(int fd, char* to, size_t bytes, int64_t offset) {
  constexpr size_t kPart = 2u << 20;
  const auto read_part = [fd](char* at, size_t left, int64_t from) -> std::string {
    while (left > 0) {
      const ssize_t got = pread(fd, at, left, from);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return std::strerror(errno);
      if (got == 0) return "the file ends at byte " + std::to_string(from);
      at += got;
      from += got;
      left -= static_cast<size_t>(got);
    }
    return "";
  };
  const size_t parts = std::clamp<size_t>(bytes / kPart, 1, 4);
  const size_t each = (bytes + parts - 1) / parts;
  std::array<std::string, 4> problems;
  std::vector<std::thread> threads;
  threads.reserve(parts);
  for (size_t i = 1; i < parts; ++i) {
    const size_t at = i * each;
    const auto part = [&, i, at] {
      problems[i] = read_part(to + at, std::min(each, bytes - at), offset + static_cast<int64_t>(at));
    };
    try {
      threads.emplace_back(part);
    } catch (const std::system_error&) {
      part();  // the system starts no more threads
    }
  }
  problems[0] = read_part(to, std::min(each, bytes), offset);
  for (auto& thread : threads) thread.join();
  for (const auto& problem : problems) {
    if (!problem.empty()) throw Failure("file", "a file cannot be read: " + problem);
  }
}

}  // namespace q::cuda
