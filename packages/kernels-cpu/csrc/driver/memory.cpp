// See memory.h.
#include "memory.h"
#include "page_guard.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

namespace q::cpu {
namespace {

constexpr int64_t kPageFrom = 128 << 10;  // from here on whole pages: malloc would keep freed memory
constexpr int64_t kHuge = 2 << 20;
constexpr int64_t kReadPiece = 4 << 20;
constexpr size_t kKeepIdle = 4 << 20;     // scratch blocks above this go back to the system when the queue is idle
constexpr int64_t kCheckFrom = 64 << 20;  // smaller requests are not worth a look at the system's memory

[[noreturn]] void fail_file(const std::string& path, const char* what, int error) {
  throw Failure("file", std::string(what) + " " + path + ": " + std::strerror(error));
}

[[noreturn]] void fail_memory(int64_t wanted, int64_t available) {
  Failure failure("out_of_memory",
                  "cannot allocate " + std::to_string(wanted) + " bytes, " + std::to_string(available) + " are free");
  failure.wanted_bytes = double(wanted);
  failure.free_bytes = double(available);
  throw failure;
}

int64_t read_number(const char* path) {
  std::ifstream file(path);
  int64_t value;
  return file >> value ? value : -1;  // absent, or "max"
}

timespec modified(const struct stat& status) {
#ifdef __APPLE__
  return status.st_mtimespec;
#else
  return status.st_mtim;
#endif
}

}  // namespace

SystemMemory system_memory() {
#ifdef __APPLE__
  int64_t total = 0;
  size_t size = sizeof total;
  sysctlbyname("hw.memsize", &total, &size, nullptr, 0);
  vm_statistics64_data_t stats{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&stats), &count);
  return {total, int64_t(stats.free_count + stats.inactive_count) * int64_t(vm_page_size)};
#else
  SystemMemory memory{int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), 0};
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key;) {
    if (key != "MemAvailable:") continue;
    info >> memory.available;
    memory.available *= 1024;
    break;
  }
  const int64_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0 && limit < memory.total) {
    memory.total = limit;
    memory.available = std::min(memory.available, std::max<int64_t>(limit - used, 0));
  }
  return memory;
#endif
}

File::File(const std::string& path) : path_(path), fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (fd_ < 0) fail_file(path, "cannot open", errno);
  struct stat status;
  const bool told = fstat(fd_, &status) == 0;
  if (told && S_ISREG(status.st_mode)) {
    opened_size_ = status.st_size;
    opened_seconds_ = modified(status).tv_sec;
    opened_nanoseconds_ = modified(status).tv_nsec;
    return;
  }
  const int error = errno;
  close(fd_);
  if (!told) fail_file(path, "cannot stat", error);
  throw Failure("file", path + " is no regular file");
}

void File::check_unchanged() const {
  struct stat status;
  if (fstat(fd_, &status) != 0) fail_file(path_, "cannot stat", errno);
  const bool cut = broken_.load(std::memory_order_acquire) || status.st_size < opened_size_;
  if (cut) throw Failure("file", path_ + " was cut short while its weights were in use; load the model again");
  if (status.st_size == opened_size_ && modified(status).tv_sec == opened_seconds_ &&
      modified(status).tv_nsec == opened_nanoseconds_)
    return;
  throw Failure("file", path_ + " was written to while its weights were in use; load the model again");
}

File::~File() { close(fd_); }

int64_t File::size() const {
  struct stat status;
  if (fstat(fd_, &status) != 0) fail_file(path_, "cannot stat", errno);
  return status.st_size;
}

void File::read(int64_t offset, char* to, int64_t bytes, Workers& workers) const {
  const int64_t pieces = (bytes + kReadPiece - 1) / kReadPiece;
  workers.parallel(pieces, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kReadPiece;
    read(offset + first, to + first, std::min(end * kReadPiece, bytes) - first);
  });
}

void File::read(int64_t offset, char* to, int64_t bytes) const {
  for (int64_t at = 0; at < bytes;) {
    const ssize_t got = pread(fd_, to + at, size_t(std::min(bytes - at, kReadPiece)), offset + at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file(path_, "cannot read", errno);
    if (got == 0) throw Failure("file", path_ + " ends before byte " + std::to_string(offset + bytes));
    at += got;
  }
}

std::shared_ptr<Buffer> Buffer::allocate(int64_t bytes, std::atomic<int64_t>& allocated) {
  if (bytes >= kCheckFrom) {
    const SystemMemory memory = system_memory();
    const int64_t room = std::min(memory.available, memory.total - allocated.load());
    if (bytes > room) fail_memory(bytes, std::max<int64_t>(room, 0));
  }
  std::shared_ptr<Buffer> buffer(new Buffer);
  if (bytes < kPageFrom) {
    buffer->data = static_cast<char*>(std::aligned_alloc(64, size_t(bytes + 63) / 64 * 64));
    if (!buffer->data) fail_memory(bytes, system_memory().available);
  } else {
    const int64_t extra = bytes >= kHuge ? kHuge : 0;  // to begin at a huge page
    void* pages = mmap(nullptr, size_t(bytes + extra), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) fail_memory(bytes, system_memory().available);
    buffer->pages_ = pages;
    buffer->page_bytes_ = size_t(bytes + extra);
    buffer->data = static_cast<char*>(pages);
    if (extra) {
      buffer->data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(pages) + kHuge - 1) / kHuge * kHuge);
#ifdef MADV_HUGEPAGE
      madvise(buffer->data, size_t(bytes), MADV_HUGEPAGE);
#endif
    }
  }
  buffer->bytes = bytes;
  buffer->allocated_ = &allocated;
  allocated += bytes;
  return buffer;
}

std::shared_ptr<Buffer> Buffer::map(std::shared_ptr<const File> file, int64_t offset, int64_t bytes,
                                    std::atomic<int64_t>& allocated) {
  const int64_t size = file->size();
  if (offset < 0 || bytes <= 0 || offset > size || bytes > size - offset) {
    throw Failure("file", "bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                              " are outside " + file->path() + " of " + std::to_string(size));
  }
  const int64_t lead = offset % sysconf(_SC_PAGESIZE);
  void* pages = mmap(nullptr, size_t(bytes + lead), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                     file->descriptor(), offset - lead);
  if (pages == MAP_FAILED) fail_file(file->path(), "cannot map", errno);
  const int guard = guard_pages(pages, size_t(bytes + lead), &file->broken());
  if (guard < 0) {
    munmap(pages, size_t(bytes + lead));
    std::shared_ptr<Buffer> copy = allocate(bytes, allocated);
    file->read(offset, copy->data, bytes);
    copy->read_only = true;
    return copy;
  }
  std::shared_ptr<Buffer> buffer(new Buffer);
  buffer->pages_ = pages;
  buffer->page_bytes_ = size_t(bytes + lead);
  buffer->guard_ = guard;
  buffer->data = static_cast<char*>(pages) + lead;
  buffer->bytes = bytes;
  buffer->read_only = true;
  buffer->file = std::move(file);
  return buffer;
}

void Buffer::prefetch() const {
  if (file) madvise(pages_, page_bytes_, MADV_WILLNEED);
}

Buffer::~Buffer() {
  if (guard_ >= 0) release_guard(guard_);
  if (pages_)
    munmap(pages_, page_bytes_);
  else
    std::free(data);
  if (allocated_) *allocated_ -= bytes;
}

Arena::~Arena() {
  for (const Block& block : blocks_) std::free(block.data);
}

void Arena::trim() {
  size_t kept = 0;
  while (kept < blocks_.size() && blocks_[kept].bytes <= kKeepIdle) ++kept;
  for (size_t i = kept; i < blocks_.size(); ++i) std::free(blocks_[i].data);
  blocks_.resize(kept);
  reset();
}

void* Arena::take(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes) ++block_, used_ = 0;
  if (block_ == blocks_.size()) {
    const size_t size = std::max<size_t>(bytes, 1 << 20);
    char* data = static_cast<char*>(std::aligned_alloc(64, size));
    if (!data) fail_memory(int64_t(bytes), system_memory().available);
    blocks_.push_back({data, size});
    used_ = 0;
  }
  void* taken = blocks_[block_].data + used_;
  used_ += bytes;
  return taken;
}

}  // namespace q::cpu
