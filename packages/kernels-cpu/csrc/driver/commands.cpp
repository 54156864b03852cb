// See commands.h. Kernels are declared by the list of q_ops.h: a command without one does not link.
#include "commands.h"

namespace q::cpu {

#define Q_DECLARE(name, Args) void run(const Args& args, Context& context);
Q_EACH_COMMAND(Q_DECLARE)
#undef Q_DECLARE

namespace {

/// The Words of q_ops.h over the buffers of a driver.
class WordReader final : public Words {
 public:
  WordReader(const double* words, size_t count, const Buffers& buffers, std::vector<std::shared_ptr<Buffer>>* used)
      : Words(words, count), buffers_(buffers), used_(used) {}

 protected:
  Memory memory(int64_t id) override {
    const auto found = buffers_.find(id);
    if (found == buffers_.end()) return {nullptr, 0};
    if (used_) used_->push_back(found->second);
    return {found->second->data, found->second->bytes};
  }

 private:
  const Buffers& buffers_;
  std::vector<std::shared_ptr<Buffer>>* used_;
};

template <class Args>
struct Typed final : Recorded {
  Typed(int code, const Args& args) : Recorded(code), args(args) {
    try {
      Check rules(true);
      check(args, rules);
    } catch (const Refused& refused) {
      refusal = refused.what();
    }
  }
  void execute(Context& context) const override {
    if (!refusal.empty()) throw CommandError(refusal);
    run(args, context);
  }
  const Args args;
  std::string refusal;  // what the rules say against it; empty: nothing
};

template <class Args>
std::unique_ptr<Recorded> make(int code, WordReader& reader) {
  return std::make_unique<Typed<Args>>(code, Args::read(reader));
}

using Maker = std::unique_ptr<Recorded> (*)(int, WordReader&);
#define Q_MAKER(name, Args) &make<Args>,
constexpr Maker kMakers[] = {Q_EACH_COMMAND(Q_MAKER)};
#undef Q_MAKER
static_assert(sizeof kMakers / sizeof kMakers[0] == kCommandCount);

}  // namespace

std::unique_ptr<Recorded> read_command(int64_t code, const double* words, size_t count, const Buffers& buffers,
                                       std::vector<std::shared_ptr<Buffer>>* used) {
  if (code < 0 || code >= kCommandCount) throw Failure("command", "there is no command " + std::to_string(code));
  try {
    WordReader reader(words, count, buffers, used);
    auto recorded = kMakers[code](int(code), reader);
    reader.finish();
    return recorded;
  } catch (const Refused& refused) {
    Failure failure("command", refused.what());
    failure.command = kCommandNames[code];
    throw failure;
  }
}

}  // namespace q::cpu
