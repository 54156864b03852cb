// The workspace of a queue: memory handed out within one command and handed out again to the next one. That is safe
// because commands of one stream run in order. Grows by doubling; steady state allocates nothing.
#pragma once
#include <memory>
#include <vector>
#include "context.h"

namespace q::cuda {

/// Where device memory comes from; see Device.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual void* take(size_t bytes) = 0;  // throws Failure 'out_of_memory'
  virtual void give(void* pointer) = 0;  // freed when the queued work is done
};

struct Chunk {
  DeviceMemory& memory;
  const size_t bytes;
  void* const data;
  Chunk(DeviceMemory& memory, size_t bytes) : memory(memory), bytes(bytes), data(memory.take(bytes)) {}
  ~Chunk() { memory.give(data); }
  Chunk(const Chunk&) = delete;
};
using ChunkRef = std::shared_ptr<Chunk>;

class Arena final : public Workspace {
 public:
  explicit Arena(DeviceMemory& memory) : memory_(memory) {}

  void* take(size_t bytes) override {
    bytes = (bytes + 255) & ~size_t(255);
    if (!chunk_ || used_ + bytes > chunk_->bytes) grow(bytes);
    void* data = static_cast<char*>(chunk_->data) + used_;
    used_ += bytes;
    if (recorded_ && (recorded_->empty() || recorded_->back() != chunk_)) recorded_->push_back(chunk_);
    return data;
  }

  /// Before each command: everything handed out may be handed out again.
  void reset() {
    used_ = 0;
    if (!recorded_) outgrown_.clear();
  }

  /// While set, chunks in use are also noted in `into` (a captured program keeps them).
  void record(std::vector<ChunkRef>* into) {
    recorded_ = into;
    used_ = 0;
  }

 private:
  void grow(size_t bytes) {
    size_t size = chunk_ ? 2 * chunk_->bytes : kFirst;
    while (size < bytes) size *= 2;
    ChunkRef bigger = std::make_shared<Chunk>(memory_, size);
    if (chunk_) outgrown_.push_back(std::move(chunk_));
    chunk_ = std::move(bigger);
    used_ = 0;
  }

  static constexpr size_t kFirst = 16u << 20;
  DeviceMemory& memory_;
  ChunkRef chunk_;
  size_t used_ = 0;
  std::vector<ChunkRef> outgrown_;  // still used by the command that outgrew them
  std::vector<ChunkRef>* recorded_ = nullptr;
};

}  // namespace q::cuda
