// What the stand-alone programs share: scratch memory, random numbers, a case of the linear command with its own
// weights.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>
#include "../common/context.h"
#include "../common/float_types.h"

namespace q::cpu {
void run(const LinearArgs&, Context&);
void run(const Quantize4bitArgs&, Context&);
void run(const Dequantize4bitArgs&, Context&);
void run(const QuantizeAbsmaxArgs&, Context&);
void run(const QuantizeInt8Args&, Context&);
void run(const DequantizeInt8Args&, Context&);
}  // namespace q::cpu

namespace q::cpu::bench {

class Arena final : public Scratch {
 public:
  void* take(size_t bytes) override {
    const size_t rounded = (bytes + 127) / 64 * 64;
    if (used_ == blocks_.size() || blocks_[used_].size < rounded) {
      blocks_.insert(
          blocks_.begin() + long(used_),
          {std::unique_ptr<void, decltype(&std::free)>(std::aligned_alloc(64, rounded), std::free), rounded});
    }
    return blocks_[used_++].memory.get();
  }
  Mark mark() const override { return {used_, 0}; }
  void rewind(Mark mark) override { used_ = mark.block; }
  void reset() { used_ = 0; }

 private:
  struct Piece {
    std::unique_ptr<void, decltype(&std::free)> memory;
    size_t size;
  };
  std::vector<Piece> blocks_;
  size_t used_ = 0;
};

struct Random {
  uint64_t state;
  uint64_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 20;
  }
  float uniform() { return float(bits() & 0xffffff) / float(1 << 24) * 2 - 1; }
  float normal() { return (uniform() + uniform() + uniform()) * 1.0f; }
};

/// Owned bytes seen as a Tensor.
struct Bytes {
  std::vector<uint8_t> data;
  DType dtype = DType::f32;
  Tensor tensor() { return {data.empty() ? nullptr : data.data(), dtype, int64_t(data.size())}; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data.data());
  }
  static Bytes floats(size_t count) {
    Bytes b;
    b.data.resize(count * 4);
    return b;
  }
  static Bytes of(DType dtype, size_t bytes) {
    Bytes b;
    b.dtype = dtype;
    b.data.resize(bytes);
    return b;
  }
};

}  // namespace q::cpu::bench
