// From argument words to the typed arguments of a command.
#pragma once
#include <vector>
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

/// Reads words in the order of the command table (q_ops.h); throws CommandError for bad references.
class Reader {
 public:
  Reader(Buffers& buffers, const double* words, size_t count) : buffers_(buffers), words_(words), count_(count) {}
  Tensor tensor(bool required);
  double number();
  int64_t integer() { return static_cast<int64_t>(number()); }
  int64_t count(int64_t most);
  /// All tensors read so far.
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  Buffers& buffers_;
  const double* words_;
  size_t count_;
  size_t at_ = 0;
  std::vector<Tensor> tensors_;
};

/// Calls f with the arguments of command `code`.
template <class F>
void with_args(Command code, Reader& r, F&& f) {
  switch (code) {
    case Command::fill:
      return f(FillArgs::read(r));
    case Command::random:
      return f(RandomArgs::read(r));
    case Command::copy:
      return f(CopyArgs::read(r));
    case Command::cast:
      return f(CastArgs::read(r));
    case Command::embedding:
      return f(EmbeddingArgs::read(r));
    case Command::selectRows:
      return f(SelectRowsArgs::read(r));
    case Command::scatterRows:
      return f(ScatterRowsArgs::read(r));
    case Command::linear:
      return f(LinearArgs::read(r));
    case Command::rmsNorm:
      return f(RmsNormArgs::read(r));
    case Command::layerNorm:
      return f(LayerNormArgs::read(r));
    case Command::ropeKvWrite:
      return f(RopeKvWriteArgs::read(r));
    case Command::attention:
      return f(AttentionArgs::read(r));
    case Command::activation:
      return f(ActivationArgs::read(r));
    case Command::gatedActivation:
      return f(GatedActivationArgs::read(r));
    case Command::add:
      return f(AddArgs::read(r));
    case Command::scale:
      return f(ScaleArgs::read(r));
    case Command::softmax:
      return f(SoftmaxArgs::read(r));
    case Command::crossEntropy:
      return f(CrossEntropyArgs::read(r));
    case Command::argmax:
      return f(ArgmaxArgs::read(r));
    case Command::sample:
      return f(SampleArgs::read(r));
    case Command::advance:
      return f(AdvanceArgs::read(r));
    case Command::quantize4bit:
      return f(Quantize4bitArgs::read(r));
    case Command::dequantize4bit:
      return f(Dequantize4bitArgs::read(r));
    case Command::quantizeAbsmax:
      return f(QuantizeAbsmaxArgs::read(r));
    case Command::quantizeInt8:
      return f(QuantizeInt8Args::read(r));
    case Command::dequantizeInt8:
      return f(DequantizeInt8Args::read(r));
    case Command::multiply:
      return f(MultiplyArgs::read(r));
    case Command::eagerLinear:
      return f(EagerLinearArgs::read(r));
    case Command::eagerRope:
      return f(EagerRopeArgs::read(r));
    case Command::eagerAttention:
      return f(EagerAttentionArgs::read(r));
  }
  throw CommandError("unknown command code " + std::to_string(static_cast<int>(code)));
}

}  // namespace q::cuda
