// One CUDA device as an in-order queue: the Driver contract without the JavaScript around it.
// All methods are called from one thread (JavaScript's), which launches straight onto the compute stream. What would
// block it (file reads, large copies) goes to the worker thread, and so does everything after it until the worker is
// idle again: the order of calls is always the order on the stream.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <variant>
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/failure.h"
#include "runtime/probe.h"
#include "runtime/staging.h"
#include "runtime/threads.h"
#include "runtime/unsettled.h"

namespace q::cuda {

/// What a read or flush ends with; `data` (malloc) belongs to the receiver.
struct Outcome {
  std::optional<Failure> failure;
  void* data = nullptr;
  size_t bytes = 0;
};
using Done = std::function<void(Outcome)>;  // called on a thread of the device

/// A recorded command that waits for the one that reads what it makes, if any does.
#define Q_WAITING(Args, NextArgs) , Args
using Waiting = std::variant<std::monostate Q_EACH_JOIN(Q_WAITING)>;
#undef Q_WAITING

/// Stream-ordered device memory from a pool of its own.
class PoolMemory final : public DeviceMemory {
 public:
  PoolMemory(const DeviceFacts& facts, cudaStream_t stream);
  ~PoolMemory() override;
  void* take(size_t bytes) override;
  void give(void* pointer) override;
  /// Lets copies of another device, the thread's current one, reach this memory directly where the machine can; else
  /// they are staged.
  void open_to(int device);
  /// Free on the device, what the pool holds in reserve included.
  int64_t free_bytes() const;

 private:
  const DeviceFacts facts_;
  cudaStream_t stream_;
  cudaMemPool_t pool_ = nullptr;  // null: the device has no pools, memory comes from cudaMalloc
};

class Device final : private Buffers {
 public:
  explicit Device(const DeviceFacts& facts);
  ~Device() override;

  const DeviceFacts& facts() const { return facts_; }
  int64_t alloc(int64_t bytes);
  void release(int64_t buffer);
  void submit(int code, const double* words, size_t count);
  /// Over WriteRing::kLargest, `data` must stay until `written` is called (on the worker's thread); else it is copied
  /// at once.
  void write(int64_t buffer, int64_t offset, const void* data, size_t bytes, std::function<void()> written);
  void read(int64_t buffer, int64_t offset, int64_t bytes, Done done);
  void flush(Done done);
  int64_t open_file(const std::string& path);
  void close_file(int64_t file);
  void read_file(int64_t file, int64_t file_offset, int64_t buffer, int64_t offset, int64_t bytes);
  /// Copies from another device's buffer, in the order of both queues; see peer.cpp.
  void copy_from(Device& source, int64_t source_buffer, int64_t source_offset, int64_t buffer, int64_t offset,
                 int64_t bytes);
  /// What is submitted or replayed from here on belongs to a group that `cancel` calls off; 0: to none.
  void group(int64_t id);
  void cancel(int64_t group);
  void begin_capture();
  int64_t end_capture();
  void replay(int64_t program);
  void release_program(int64_t program);
  struct MemoryUse {
    int64_t allocated_bytes, free_bytes;
  };
  MemoryUse memory();
  /// Later calls throw Failure 'closed'. The caller then calls shut_down() on any thread.
  void mark_closed() { closed_ = true; }
  bool closed() const { return closed_; }
  /// Waits for the queue, ends the threads and frees everything.
  void shut_down();

 private:
  struct Buffer {
    void* data;
    int64_t bytes;
    int uses;  // programs that hold it
    bool released;
  };
  struct Program {
    cudaGraphExec_t graph;
    std::vector<int64_t> buffers;
    std::vector<ChunkRef> chunks;
  };
  struct File;

  void enter();
  BufferView view(int64_t id) override;
  char* range(int64_t buffer, int64_t offset, int64_t bytes, const char* what);
  Context context(cudaStream_t stream, Workspace& workspace, bool capturing);
  template <class Args>
  void record(const Args& args, Context& context);
  void record_waiting();
  template <class F>
  void in_order(std::string name, bool blocks, F task) {
    in_order(std::move(name), blocks, 0, std::move(task));
  }
  template <class F>
  void in_order(std::string name, bool blocks, int64_t group, F task);
  template <class F>
  void guarded(const std::string& name, F&& task);
  void fail(Failure failure);
  std::optional<Failure> take_failure();
  std::optional<Failure> found_by_kernels();
  void finish(std::optional<Failure> earlier, cudaError_t status, Outcome outcome, const Done& done);
  void free_buffer(int64_t id);
  void let_go(const std::vector<int64_t>& buffers);

  const DeviceFacts facts_;
  bool closed_ = false, down_ = false;
  cudaStream_t compute_ = nullptr, copy_ = nullptr, capture_ = nullptr;
  DeviceError* device_error_ = nullptr;
  unsigned* counters_ = nullptr;
  CublasLt* cublaslt_ = nullptr;
  std::unique_ptr<PoolMemory> memory_;
  std::unique_ptr<Arena> arena_, capture_arena_;
  std::unique_ptr<PinnedPool> pinned_;
  std::unique_ptr<WriteRing> ring_;
  std::unique_ptr<SlotCopier> copier_;
  std::unordered_map<int64_t, Buffer> buffers_;
  std::unordered_map<int64_t, Program> programs_;
  std::unordered_map<int64_t, std::shared_ptr<File>> files_;
  std::set<int> opened_to_;  // devices that reach this one's memory
  int64_t next_id_ = 1, allocated_bytes_ = 0, group_ = 0;
  bool capturing_ = false;
  std::set<int64_t> captured_;
  std::vector<ChunkRef> captured_chunks_;
  Unsettled unsettled_, unsettled_recorded_;  // on the stream; in what is being recorded
  Waiting waiting_;  // recorded; launched with the next command where that reads it, else before it
  std::optional<Failure> capture_failure_;
  std::mutex failure_mutex_;
  std::optional<Failure> failure_;
  std::unique_ptr<Waiter> waiter_;
  std::unique_ptr<Worker> worker_;
};

/// Runs a task; what it throws becomes the failure of the next promise.
template <class F>
void Device::guarded(const std::string& name, F&& task) {
  try {
    task();
  } catch (Failure& failure) {
    failure.command = name;
    fail(failure);
  } catch (const std::exception& error) {
    cudaGetLastError();
    const cudaError_t status = cudaStreamQuery(compute_);
    if (status != cudaSuccess && status != cudaErrorNotReady) {
      fail(Failure("device", std::string("the device failed before or in ") + name + ": " + cudaGetErrorString(status),
                   name));
    } else {
      fail(Failure("command", error.what(), name));
    }
  }
}

template <class F>
void Device::in_order(std::string name, bool blocks, int64_t group, F task) {
  if (!blocks && worker_->idle()) return guarded(name, task);
  worker_->push([this, name = std::move(name), task = std::move(task)]() mutable { guarded(name, task); }, group);
}

}  // namespace q::cuda
