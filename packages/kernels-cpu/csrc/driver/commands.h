// Words of the command ABI to calls of kernels: reading checks every tensor against its buffer, so that what is queued
// is safe to run.
#pragma once
#include <cmath>
#include <memory>
#include <unordered_map>
#include <vector>
#include "memory.h"

namespace q::cpu {

using Buffers = std::unordered_map<int64_t, std::shared_ptr<Buffer>>;

/// A command with its arguments read.
struct Recorded {
  explicit Recorded(int code) : code(code) {}
  virtual ~Recorded() = default;
  virtual void execute(Context& context) const = 0;
  const int code;
};

/// Reads one command and checks its arguments. Throws Failure 'command' for words that are no such command; arguments
/// that the rules refuse are a failure when it runs, in the order of the queue. `used` (may be null) collects the
/// buffers it refers to.
std::unique_ptr<Recorded> read_command(int64_t code, const double* words, size_t count, const Buffers& buffers,
                                       std::vector<std::shared_ptr<Buffer>>* used);

}  // namespace q::cpu
