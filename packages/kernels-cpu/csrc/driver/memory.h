// Memory of a device and the files it reads: owned by shared pointers, so that queued commands and programs keep what
// they use.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include "../common/context.h"

namespace q::cpu {

/// Why a driver call failed; becomes a DriverFailure in JavaScript.
struct Failure : std::runtime_error {
  Failure(std::string code, const std::string& message) : std::runtime_error(message), code(std::move(code)) {}
  std::string code, command;
  double wanted_bytes = -1, free_bytes = -1;
};

/// A file opened for reading. What is read or mapped from it counts only while nobody writes to it.
class File {
 public:
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  /// Reads exactly these bytes, in parallel pieces; throws Failure 'file' when the file ends before.
  void read(int64_t offset, char* to, int64_t bytes, Workers& workers) const;
  void read(int64_t offset, char* to, int64_t bytes) const;
  int descriptor() const { return fd_; }
  int64_t size() const;
  const std::string& path() const { return path_; }
  /// Throws Failure 'file' when the file has been written to or cut since it was opened.
  void check_unchanged() const;
  /// Set when a mapped page was found to be gone.
  std::atomic<bool>& broken() const { return broken_; }

 private:
  std::string path_;
  int fd_;
  int64_t opened_size_, opened_seconds_, opened_nanoseconds_;
  mutable std::atomic<bool> broken_{false};
};

/// Bytes of a device: allocated (64-byte aligned; whole pages that go back to the system at once when large) or a view
/// of a file.
class Buffer {
 public:
  static std::shared_ptr<Buffer> allocate(int64_t bytes, std::atomic<int64_t>& allocated);
  /// Pages of the file, private: a write would change this process' copy only, never the file. Changes of the file show
  /// in them, so whoever hands out results asks `file->check_unchanged()` first.
  static std::shared_ptr<Buffer> map(std::shared_ptr<const File> file, int64_t offset, int64_t bytes,
                                     std::atomic<int64_t>& allocated);
  /// Asks the system to read a mapped file ahead.
  void prefetch() const;
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  char* data = nullptr;
  int64_t bytes = 0;
  bool read_only = false;
  std::shared_ptr<const File> file;  // of a mapping

 private:
  Buffer() = default;
  void* pages_ = nullptr;  // what munmap takes; null when from malloc
  size_t page_bytes_ = 0;
  int guard_ = -1;
  std::atomic<int64_t>* allocated_ = nullptr;
};

/// Memory of the machine (of the container, where it is limited), and what of it can be had now.
struct SystemMemory {
  int64_t total, available;
};
SystemMemory system_memory();

/// The Scratch of a queue: blocks that grow and are kept, one reset per command.
class Arena final : public Scratch {
 public:
  ~Arena() override;
  void* take(size_t bytes) override;
  Mark mark() const override { return {block_, used_}; }
  void rewind(Mark mark) override {
    block_ = mark.block;
    used_ = mark.used;
  }
  void reset() { rewind({0, 0}); }
  /// Gives large blocks back; nothing may be in use.
  void trim();

 private:
  struct Block {
    char* data;
    size_t bytes;
  };
  std::vector<Block> blocks_;
  size_t block_ = 0, used_ = 0;
};

}  // namespace q::cpu
