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

template <class Args>
struct Typed final : Recorded {
  Typed(int code, const Args& args) : Recorded(code), args(args) {}
  void execute(Context& context) const override { run(args, context); }
  const Args args;
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

void WordReader::fail(const std::string& why) const {
  const std::string name = kCommandNames[code_];
  Failure failure("command", name + " " + why);
  failure.command = name;
  throw failure;
}

Tensor WordReader::tensor(bool required) {
  const int64_t id = integer(), offset = integer(), dtype = integer(), bytes = integer();
  if (id == 0) {
    if (required) fail("lacks a tensor at word " + std::to_string(at_ - 4));
    return {nullptr, DType::f32, 0};
  }
  const auto found = buffers_.find(id);
  if (found == buffers_.end())
    fail("refers to buffer " + std::to_string(id) + ", which does not exist or was released");
  const Buffer& buffer = *found->second;
  if (offset < 0 || bytes < 0 || offset > buffer.bytes || bytes > buffer.bytes - offset) {
    fail("reaches bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) + " of buffer " +
         std::to_string(id) + ", which has " + std::to_string(buffer.bytes));
  }
  if (dtype < 0 || dtype > int64_t(DType::boolean)) fail("has an unknown dtype code " + std::to_string(dtype));
  if (used_) used_->push_back(found->second);
  return {buffer.data + offset, DType(dtype), bytes};
}

std::unique_ptr<Recorded> read_command(int64_t code, const double* words, size_t count, const Buffers& buffers,
                                       std::vector<std::shared_ptr<Buffer>>* used) {
  if (code < 0 || code >= kCommandCount) throw Failure("command", "there is no command " + std::to_string(code));
  WordReader reader(int(code), words, count, buffers, used);
  auto recorded = kEntries[code].make(int(code), reader);
  reader.finish();
  return recorded;
}

}  // namespace q::cpu
