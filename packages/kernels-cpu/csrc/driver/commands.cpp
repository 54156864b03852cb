// See commands.h. The only list of commands in native code; a missing kernel is a link error.
#include "commands.h"

// clang-format off
#define Q_COMMANDS(X) \
  X(fill, FillArgs) \
  X(random, RandomArgs) \
  X(copy, CopyArgs) \
  X(cast, CastArgs) \
  X(embedding, EmbeddingArgs) \
  X(selectRows, SelectRowsArgs) \
  X(scatterRows, ScatterRowsArgs) \
  X(linear, LinearArgs) \
  X(rmsNorm, RmsNormArgs) \
  X(layerNorm, LayerNormArgs) \
  X(ropeKvWrite, RopeKvWriteArgs) \
  X(attention, AttentionArgs) \
  X(activation, ActivationArgs) \
  X(gatedActivation, GatedActivationArgs) \
  X(add, AddArgs) \
  X(scale, ScaleArgs) \
  X(softmax, SoftmaxArgs) \
  X(crossEntropy, CrossEntropyArgs) \
  X(argmax, ArgmaxArgs) \
  X(sample, SampleArgs) \
  X(advance, AdvanceArgs) \
  X(quantize4bit, Quantize4bitArgs) \
  X(dequantize4bit, Dequantize4bitArgs) \
  X(quantizeAbsmax, QuantizeAbsmaxArgs) \
  X(quantizeInt8, QuantizeInt8Args) \
  X(dequantizeInt8, DequantizeInt8Args) \
  X(multiply, MultiplyArgs) \
  X(eagerLinear, EagerLinearArgs) \
  X(eagerRope, EagerRopeArgs) \
  X(eagerAttention, EagerAttentionArgs)
// clang-format on

namespace q::cpu {

#define Q_DECLARE(name, Args) void run(const Args& args, Context& context);
Q_COMMANDS(Q_DECLARE)
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
struct Entry {
  Command command;
  Maker make;
};
#define Q_ENTRY(name, Args) {Command::name, &make<Args>},
constexpr Entry kEntries[] = {Q_COMMANDS(Q_ENTRY)};
#undef Q_ENTRY

constexpr bool in_order() {
  for (int i = 0; i < kCommandCount; ++i) {
    if (int(kEntries[i].command) != i) return false;
  }
  return true;
}
static_assert(sizeof kEntries / sizeof kEntries[0] == kCommandCount && in_order(),
              "Q_COMMANDS lists the commands in the order of q_ops.h");

}  // namespace

std::unique_ptr<Recorded> read_command(int64_t code, const double* words, size_t count, const Buffers& buffers,
                                       std::vector<std::shared_ptr<Buffer>>* used) {
  if (code < 0 || code >= kCommandCount) throw Failure("command", "there is no command " + std::to_string(code));
  try {
    WordReader reader(words, count, buffers, used);
    auto recorded = kEntries[code].make(int(code), reader);
    reader.finish();
    return recorded;
  } catch (const Refused& refused) {
    Failure failure("command", refused.what());
    failure.command = kCommandNames[code];
    throw failure;
  }
}

}  // namespace q::cpu
