// What the queue can be asked to do.
#pragma once
#include <cstring>
#include "queue.h"

namespace q::cpu {

struct CommandTask final : Task {
  explicit CommandTask(std::unique_ptr<Recorded> command) : command(std::move(command)) {}
  void run(Queue& queue) override { queue.execute(*command); }
  std::unique_ptr<Recorded> command;
};

struct ReplayTask final : Task {
  explicit ReplayTask(std::shared_ptr<Program> program) : program(std::move(program)) {}
  void run(Queue& queue) override {
    for (const auto& command : program->commands) queue.execute(*command);
  }
  std::shared_ptr<Program> program;
};

/// Holds buffers or programs until all that was queued before is done: in-order execution needs no other reference
/// counts.
struct ReleaseTask final : Task {
  explicit ReleaseTask(std::shared_ptr<void> held) : held(std::move(held)) {}
  void run(Queue&) override { held.reset(); }
  std::shared_ptr<void> held;
};

constexpr int64_t kCopyPiece = 1 << 20;

inline void copy_bytes(Workers& workers, char* to, const char* from, int64_t bytes) {
  workers.parallel((bytes + kCopyPiece - 1) / kCopyPiece, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kCopyPiece;
    std::memcpy(to + first, from + first, size_t(std::min(end * kCopyPiece, bytes) - first));
  });
}

/// Writes bytes that the task owns (small) or that JavaScript holds until `id` is done (large).
struct WriteTask final : Task {
  WriteTask(char* to, const char* from, int64_t bytes, uint64_t id) : to(to), from(from), bytes(bytes), id(id) {
    if (id == 0) own.assign(from, from + bytes);
  }
  void run(Queue& queue) override {
    copy_bytes(queue.workers(), to, id == 0 ? own.data() : from, bytes);
    if (id != 0) queue.finish({id, std::nullopt});
  }
  char* to;
  const char* from;
  int64_t bytes;
  uint64_t id;
  std::vector<char> own;
};

/// Copies to memory that JavaScript holds until `id` is done. A failure on the queue is reported instead.
struct ReadTask final : Task {
  ReadTask(char* to, const char* from, int64_t bytes, uint64_t id) : to(to), from(from), bytes(bytes), id(id) {}
  void run(Queue& queue) override {
    auto failure = queue.take_failure();
    if (!failure) {
      copy_bytes(queue.workers(), to, from, bytes);
      failure = queue.take_failure();  // `from` may be a file's pages
    }
    queue.finish({id, std::move(failure)});
  }
  char* to;
  const char* from;
  int64_t bytes;
  uint64_t id;
};

struct FlushTask final : Task {
  explicit FlushTask(uint64_t id) : id(id) {}
  void run(Queue& queue) override { queue.finish({id, queue.take_failure()}); }
  uint64_t id;
};

struct ReadFileTask final : Task {
  ReadFileTask(std::shared_ptr<File> file, int64_t file_offset, char* to, int64_t bytes)
      : file(std::move(file)), file_offset(file_offset), to(to), bytes(bytes) {}
  void run(Queue& queue) override { file->read(file_offset, to, bytes, queue.workers()); }
  std::shared_ptr<File> file;
  int64_t file_offset;
  char* to;
  int64_t bytes;
};

struct PrefetchTask final : Task {
  explicit PrefetchTask(std::shared_ptr<Buffer> buffer) : buffer(std::move(buffer)) {}
  void run(Queue& queue) override {
    if (buffer->file) queue.watch(buffer->file);
    buffer->prefetch();
  }
  std::shared_ptr<Buffer> buffer;
};

}  // namespace q::cpu
