#include "runtime/device.h"
#include <fcntl.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace q::cuda {

struct Device::File {
  const int fd;
  const std::string path;
  File(int fd, std::string path) : fd(fd), path(std::move(path)) {}
  ~File() { ::close(fd); }
};

Device::Device(const DeviceFacts& facts) : facts_(facts) {
  check_device(cudaSetDevice(facts.index), "cudaSetDevice");
  try {
    for (cudaStream_t* stream : {&compute_, &copy_, &capture_})
      check_device(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "cudaStreamCreate");
    check_device(cudaHostAlloc(reinterpret_cast<void**>(&device_error_), sizeof(DeviceError), cudaHostAllocMapped),
                 "pinned host memory");
    *device_error_ = {};
    check_device(cudaMalloc(reinterpret_cast<void**>(&counters_), kCounters * sizeof(unsigned)), "device memory");
    check_device(cudaMemset(counters_, 0, kCounters * sizeof(unsigned)), "device memory");
    memory_ = std::make_unique<PoolMemory>(facts_, compute_);
    arena_ = std::make_unique<Arena>(*memory_);
    capture_arena_ = std::make_unique<Arena>(*memory_);
    pinned_ = std::make_unique<PinnedPool>();
    pinned_->give(pinned_->take(1));
    ring_ = std::make_unique<WriteRing>(compute_);
    copier_ = std::make_unique<SlotCopier>(compute_, copy_);
    cublaslt_ = open_cublaslt(facts_.index);
    waiter_ = std::make_unique<Waiter>(facts_.index);
    worker_ = std::make_unique<Worker>(facts_.index);
  } catch (...) {
    shut_down();
    throw;
  }
}

Device::~Device() { shut_down(); }

void Device::enter() {
  if (closed_) throw Failure("closed", "the driver of cuda:" + std::to_string(facts_.index) + " is closed");
  cudaSetDevice(facts_.index);
}

BufferView Device::view(int64_t id) {
  const auto found = buffers_.find(id);
  if (found == buffers_.end() || found->second.released) return {nullptr, 0};
  if (capturing_ && captured_.insert(id).second)
    ++found->second.uses;  // from here on: it may be released before the recording ends
  return {found->second.data, found->second.bytes};
}

char* Device::range(int64_t buffer, int64_t offset, int64_t bytes, const char* what) {
  const BufferView found = view(buffer);
  if (!found.data || offset < 0 || bytes < 0 || offset > found.bytes || bytes > found.bytes - offset) {
    throw Failure("command", std::string(what) + ": bytes " + std::to_string(offset) + " to " +
                                 std::to_string(offset + bytes) + " are not in buffer " + std::to_string(buffer) +
                                 " of " + std::to_string(found.bytes) + " bytes");
  }
  return static_cast<char*>(found.data) + offset;
}

Context Device::context(cudaStream_t stream, Workspace& workspace, bool capturing) {
  return Context{stream,
                 facts_.index,
                 facts_.compute_capability,
                 facts_.multiprocessors,
                 static_cast<size_t>(facts_.shared_bytes_per_block),
                 workspace,
                 cublaslt_,
                 capturing,
                 device_error_,
                 counters_};
}

void Device::fail(Failure failure) {
  std::lock_guard<std::mutex> lock(failure_mutex_);
  if (!failure_) failure_ = std::move(failure);
}

std::optional<Failure> Device::take_failure() {
  std::lock_guard<std::mutex> lock(failure_mutex_);
  std::optional<Failure> taken = std::move(failure_);
  failure_.reset();
  return taken;
}

int64_t Device::alloc(int64_t bytes) {
  enter();
  if (bytes <= 0) throw Failure("command", "alloc takes a positive number of bytes, got " + std::to_string(bytes));
  void* data = memory_->take(static_cast<size_t>(bytes));
  allocated_bytes_ += bytes;
  buffers_[next_id_] = {data, bytes, 0, false};
  return next_id_++;
}

void Device::release(int64_t buffer) {
  enter();
  const auto found = buffers_.find(buffer);
  if (found == buffers_.end() || found->second.released)
    throw Failure("command", "buffer " + std::to_string(buffer) + " is not allocated");
  found->second.released = true;
  allocated_bytes_ -= found->second.bytes;
  if (found->second.uses == 0) free_buffer(buffer);
}

void Device::free_buffer(int64_t id) {
  void* data = buffers_.at(id).data;
  buffers_.erase(id);
  in_order("release", false, [this, data] { memory_->give(data); });
}

template <class Args>
void Device::record(const Args& args, Context& context) {
  const Waiting waited = std::exchange(waiting_, {});
  const auto run_first = [&](const auto& first) {
    using First = std::decay_t<decltype(first)>;
    if constexpr (kJoins<First, Args>) {
      if (meets(first, args)) return run(first, args, context), true;
    }
    if constexpr (!std::is_same_v<First, std::monostate>) run(first, context);
    return false;
  };
  if (std::visit(run_first, waited)) return;
  if constexpr (Args::kMayWait) {
    if (may_wait(args)) return void(waiting_ = args);
  }
  run(args, context);
}

/// At the end of a recording: what still waits.
void Device::record_waiting() {
  const Waiting waited = std::exchange(waiting_, {});
  const auto run_last = [&](const auto& last) {
    using Last = std::decay_t<decltype(last)>;
    if constexpr (!std::is_same_v<Last, std::monostate>) {
      Context recording = context(capture_, *capture_arena_, true);
      try {
        run(last, recording);
      } catch (const std::exception& error) {
        cudaGetLastError();
        capture_failure_ = Failure("command", error.what(), kCommandNames[static_cast<int>(Last::kCommand)]);
      }
    }
  };
  std::visit(run_last, waited);
}

void Device::submit(int code, const double* words, size_t count) {
  enter();
  if (code < 0 || code >= kCommandCount)
    return fail(Failure("command", "unknown command code " + std::to_string(code)));
  const char* name = kCommandNames[code];
  try {
    Reader reader(*this, words, count);
    with_args(static_cast<Command>(code), reader, [&](const auto& args) {
      if (capturing_) {
        if (capture_failure_) return;
        capture_arena_->reset();
        Context recording = context(capture_, *capture_arena_, true);
        recording.settled = unsettled_recorded_.allows(args);
        return record(args, recording);
      }
      in_order(name, false, group_, [this, args, early = unsettled_.allows(args)] {
        arena_->reset();
        Context running = context(compute_, *arena_, false);
        running.settled = early;
        run(args, running);
      });
    });
  } catch (Failure& failure) {
    failure.command = name;
    capturing_ ? void(capture_failure_ = failure) : fail(failure);
  } catch (const std::exception& error) {
    cudaGetLastError();
    Failure failure("command", error.what(), name);
    capturing_ ? void(capture_failure_ = failure) : fail(failure);
  }
}

void Device::write(int64_t buffer, int64_t offset, const void* data, size_t bytes, std::function<void()> written) {
  enter();
  char* to = range(buffer, offset, static_cast<int64_t>(bytes), "write");
  if (bytes > WriteRing::kLargest) {
    in_order("write", true, [this, to, data, bytes, written = std::move(written)] {
      try {
        copier_->upload(to, bytes, [&](char* slot, size_t at, size_t size) {
          std::memcpy(slot, static_cast<const char*>(data) + at, size);
        });
      } catch (...) {
        written();
        throw;
      }
      written();
    });
    return;
  }
  if (bytes == 0) return;
  if (worker_->idle()) {
    bool taken = false;
    guarded("write", [&] {
      void* staged = ring_->take(bytes, false);
      if (!staged) return;
      taken = true;
      std::memcpy(staged, data, bytes);
      check_device(cudaMemcpyAsync(to, staged, bytes, cudaMemcpyHostToDevice, compute_), "write");
    });
    if (taken) return;
  }
  std::vector<char> copied(static_cast<const char*>(data), static_cast<const char*>(data) + bytes);
  in_order("write", true, [this, to, copied = std::move(copied)] {
    void* staged = ring_->take(copied.size(), true);
    std::memcpy(staged, copied.data(), copied.size());
    check_device(cudaMemcpyAsync(to, staged, copied.size(), cudaMemcpyHostToDevice, compute_), "write");
  });
}

std::optional<Failure> Device::found_by_kernels() {
  volatile DeviceError* error = device_error_;
  if (error->command == 0) return std::nullopt;
  const std::string name = kCommandNames[error->command - 1];
  const int64_t value = error->value;
  const int limit = error->limit;
  error->command = 0;
  return Failure("command", name + ": index " + std::to_string(value) + " is outside 0 to " + std::to_string(limit - 1),
                 name);
}

void Device::finish(std::optional<Failure> earlier, cudaError_t status, Outcome outcome, const Done& done) {
  outcome.failure = std::move(earlier);
  if (status != cudaSuccess) {
    outcome.failure =
        Failure("device", std::string("an earlier command failed on cuda:") + std::to_string(facts_.index) + ": " +
                              cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
  }
  if (!outcome.failure) outcome.failure = found_by_kernels();
  if (outcome.failure) {
    std::free(outcome.data);
    outcome.data = nullptr;
    outcome.bytes = 0;
  }
  done(std::move(outcome));
}

void Device::read(int64_t buffer, int64_t offset, int64_t bytes, Done done) {
  enter();
  const char* from = range(buffer, offset, bytes, "read");
  const size_t size = static_cast<size_t>(bytes);
  const bool large = size > PinnedPool::kLargest;
  in_order("read", large, [this, from, size, large, done = std::move(done)] {
    std::optional<Failure> earlier = take_failure();
    Outcome outcome;
    outcome.bytes = size;
    outcome.data = std::malloc(size ? size : 1);
    try {
      if (!outcome.data)
        throw Failure("out_of_memory", "no host memory for a read of " + std::to_string(size) + " bytes");
      if (large) {
        copier_->download(from, size, static_cast<char*>(outcome.data));
        return finish(std::move(earlier), cudaSuccess, outcome, done);
      }
      const PinnedPool::Block block = pinned_->take(size);
      check_device(cudaMemcpyAsync(block.data, from, size, cudaMemcpyDeviceToHost, compute_), "read");
      waiter_->after(compute_, [this, block, earlier, outcome, done](cudaError_t status) {
        std::memcpy(outcome.data, block.data, outcome.bytes);
        pinned_->give(block);
        finish(earlier, status, outcome, done);
      });
    } catch (const Failure& failure) {
      finish(earlier ? earlier : failure, cudaSuccess, outcome, done);
    }
  });
}

void Device::flush(Done done) {
  enter();
  in_order("flush", false, [this, done = std::move(done)] {
    std::optional<Failure> earlier = take_failure();
    try {
      waiter_->after(compute_, [this, earlier, done](cudaError_t status) { finish(earlier, status, {}, done); });
    } catch (const Failure& failure) {
      finish(earlier ? earlier : failure, cudaSuccess, {}, done);
    }
  });
}

int64_t Device::open_file(const std::string& path) {
  enter();
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Failure("file", "\"" + path + "\" cannot be opened: " + std::strerror(errno));
  files_[next_id_] = std::make_shared<File>(fd, path);
  return next_id_++;
}

void Device::close_file(int64_t file) {
  enter();
  files_.erase(file);
}

void Device::read_file(int64_t file, int64_t file_offset, int64_t buffer, int64_t offset, int64_t bytes) {
  enter();
  const auto found = files_.find(file);
  if (found == files_.end()) throw Failure("file", "file " + std::to_string(file) + " is not open");
  char* to = range(buffer, offset, bytes, "readFile");
  in_order("readFile", true, [this, held = found->second, file_offset, to, bytes] {
    try {
      copier_->upload(to, static_cast<size_t>(bytes), [&](char* slot, size_t at, size_t size) {
        read_exactly(held->fd, slot, size, file_offset + static_cast<int64_t>(at));
      });
    } catch (Failure& failure) {
      if (failure.code == "file") failure.message = "\"" + held->path + "\": " + failure.message;
      throw;
    }
  });
}

void Device::group(int64_t id) {
  enter();
  group_ = id;
}

/// Kernels that are on the stream end; what still waits behind the worker is skipped.
void Device::cancel(int64_t group) {
  enter();
  worker_->cancel(group);
}

void Device::begin_capture() {
  enter();
  if (capturing_) throw Failure("command", "a capture is already under way");
  check_device(cudaStreamBeginCapture(capture_, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  capturing_ = true;
  capture_failure_.reset();
  waiting_ = {};
  captured_.clear();
  captured_chunks_.clear();
  unsettled_recorded_.clear();
  capture_arena_->record(&captured_chunks_);
}

int64_t Device::end_capture() {
  enter();
  if (!capturing_) throw Failure("command", "endCapture without beginCapture");
  if (!capture_failure_) record_waiting();
  waiting_ = {};
  capturing_ = false;
  capture_arena_->record(nullptr);
  Program program{nullptr, {captured_.begin(), captured_.end()}, std::move(captured_chunks_)};
  captured_chunks_.clear();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(capture_, &graph);
  try {
    if (capture_failure_) throw Failure(*capture_failure_);
    check_device(ended, "cudaStreamEndCapture");
    check_device(cudaGraphInstantiate(&program.graph, graph, 0), "cudaGraphInstantiate");
  } catch (...) {
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    let_go(program.buffers);
    throw;
  }
  cudaGraphDestroy(graph);
  programs_[next_id_] = std::move(program);
  return next_id_++;
}

void Device::replay(int64_t program) {
  enter();
  const auto found = programs_.find(program);
  if (found == programs_.end()) throw Failure("command", "program " + std::to_string(program) + " does not exist");
  unsettled_.clear();  // a graph runs alone
  in_order("replay", false, group_,
           [this, graph = found->second.graph] { check_device(cudaGraphLaunch(graph, compute_), "cudaGraphLaunch"); });
}

void Device::release_program(int64_t id) {
  enter();
  const auto found = programs_.find(id);
  if (found == programs_.end()) throw Failure("command", "program " + std::to_string(id) + " does not exist");
  Program program = std::move(found->second);
  programs_.erase(found);
  in_order("releaseProgram", true, [this, graph = program.graph, chunks = std::move(program.chunks)]() mutable {
    cudaStreamSynchronize(compute_);
    cudaGraphExecDestroy(graph);
    chunks.clear();
  });
  let_go(program.buffers);
}

/// Ends the hold of a program on its buffers.
void Device::let_go(const std::vector<int64_t>& buffers) {
  for (int64_t buffer : buffers) {
    Buffer& held = buffers_.at(buffer);
    if (--held.uses == 0 && held.released) free_buffer(buffer);
  }
}

Device::MemoryUse Device::memory() {
  enter();
  return {allocated_bytes_, memory_->free_bytes()};
}

void Device::shut_down() {
  if (down_) return;
  down_ = closed_ = true;
  cudaSetDevice(facts_.index);
  worker_.reset();
  if (capturing_) {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(capture_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
  }
  if (compute_) cudaStreamSynchronize(compute_);
  waiter_.reset();
  for (auto& entry : programs_) cudaGraphExecDestroy(entry.second.graph);
  programs_.clear();
  captured_chunks_.clear();
  for (auto& entry : buffers_) memory_->give(entry.second.data);
  buffers_.clear();
  files_.clear();
  if (cublaslt_) close_cublaslt(cublaslt_);
  arena_.reset();
  capture_arena_.reset();
  if (compute_) cudaStreamSynchronize(compute_);
  copier_.reset();
  ring_.reset();
  pinned_.reset();
  memory_.reset();
  if (device_error_) cudaFreeHost(device_error_);
  if (counters_) cudaFree(counters_);
  for (cudaStream_t stream : {compute_, copy_, capture_}) {
    if (stream) cudaStreamDestroy(stream);
  }
}

}  // namespace q::cuda
