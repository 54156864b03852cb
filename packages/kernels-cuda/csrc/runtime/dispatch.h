// From argument words to the typed arguments of a command.
#pragma once
#include "commands.h"

namespace q::cuda {

struct BufferView {
  void* data;
  int64_t bytes;
};

/// The buffers that words refer to by id.
class Buffers {
 public:
  virtual ~Buffers() = default;
  virtual BufferView view(int64_t id) = 0;  // data is null for an unknown id
};

/// The Words of q_ops.h over the buffers of a device.
class Reader final : public Words {
 public:
  Reader(Buffers& buffers, const double* words, size_t count) : Words(words, count), buffers_(buffers) {}

 protected:
  Memory memory(int64_t buffer) override {
    const BufferView view = buffers_.view(buffer);
    return {view.data, view.bytes};
  }

 private:
  Buffers& buffers_;
};

/// Calls f with the arguments of command `code`, which have passed its rules. Throws Refused.
template <class F>
void with_args(Command code, Reader& r, F&& f) {
  const auto checked = [&](const auto& args) {
    r.finish();
    Check rules(false);
    check(args, rules);
    f(args);
  };
  switch (code) {
#define Q_CASE(name, Args) \
  case Command::name:      \
    return checked(Args::read(r));
    Q_EACH_COMMAND(Q_CASE)
#undef Q_CASE
  }
  throw CommandError("unknown command code " + std::to_string(static_cast<int>(code)));
}

}  // namespace q::cuda
