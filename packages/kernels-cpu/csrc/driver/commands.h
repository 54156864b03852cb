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

/// The Reader of q_ops.h. Throws Failure 'command' for words that are not what the table says.
class WordReader {
 public:
  WordReader(int code, const double* words, size_t count, const Buffers& buffers,
             std::vector<std::shared_ptr<Buffer>>* used)
      : code_(code), words_(words), count_(count), buffers_(buffers), used_(used) {}

  double number() {
    if (at_ >= count_) fail("has too few arguments");
    return words_[at_++];
  }
  int64_t integer() {
    const double value = number();
    if (!(std::fabs(value) <= 9007199254740992.0) || value != std::floor(value))
      fail("takes an integer at word " + std::to_string(at_ - 1));
    return int64_t(value);
  }
  int64_t count(int most) {
    const int64_t value = integer();
    if (value < 0 || value > most) fail("takes at most " + std::to_string(most) + " repeated parts");
    return value;
  }
  Tensor tensor(bool required);
  void finish() {
    if (at_ != count_) fail("has too many arguments");
  }
  [[noreturn]] void fail(const std::string& why) const;

 private:
  int code_;
  const double* words_;
  size_t count_, at_ = 0;
  const Buffers& buffers_;
  std::vector<std::shared_ptr<Buffer>>* used_;
};

/// Reads one command. `used` (may be null) collects the buffers it refers to.
std::unique_ptr<Recorded> read_command(int64_t code, const double* words, size_t count, const Buffers& buffers,
                                       std::vector<std::shared_ptr<Buffer>>* used);

}  // namespace q::cpu
