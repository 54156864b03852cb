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

/// The Words of q_ops.h over the buffers of a device.
class Reader final : public Words {
 public:
  Reader(Buffers& buffers, const double* words, size_t count) : Words(words, count), buffers_(buffers) {}
  /// All tensors read so far.
  const std::vector<Tensor>& tensors() const { return tensors_; }

 protected:
  Memory memory(int64_t buffer) override {
    const BufferView view = buffers_.view(buffer);
    return {view.data, view.bytes};
  }
  void note(const Tensor& tensor) override { tensors_.push_back(tensor); }

 private:
  Buffers& buffers_;
  std::vector<Tensor> tensors_;
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
    case Command::fill:
      return checked(FillArgs::read(r));
    case Command::random:
      return checked(RandomArgs::read(r));
    case Command::copy:
      return checked(CopyArgs::read(r));
    case Command::cast:
      return checked(CastArgs::read(r));
    case Command::embedding:
      return checked(EmbeddingArgs::read(r));
    case Command::selectRows:
      return checked(SelectRowsArgs::read(r));
    case Command::scatterRows:
      return checked(ScatterRowsArgs::read(r));
    case Command::linear:
      return checked(LinearArgs::read(r));
    case Command::rmsNorm:
      return checked(RmsNormArgs::read(r));
    case Command::layerNorm:
      return checked(LayerNormArgs::read(r));
    case Command::ropeKvWrite:
      return checked(RopeKvWriteArgs::read(r));
    case Command::attention:
      return checked(AttentionArgs::read(r));
    case Command::activation:
      return checked(ActivationArgs::read(r));
    case Command::gatedActivation:
      return checked(GatedActivationArgs::read(r));
    case Command::add:
      return checked(AddArgs::read(r));
    case Command::scale:
      return checked(ScaleArgs::read(r));
    case Command::softmax:
      return checked(SoftmaxArgs::read(r));
    case Command::crossEntropy:
      return checked(CrossEntropyArgs::read(r));
    case Command::argmax:
      return checked(ArgmaxArgs::read(r));
    case Command::sample:
      return checked(SampleArgs::read(r));
    case Command::advance:
      return checked(AdvanceArgs::read(r));
    case Command::quantize4bit:
      return checked(Quantize4bitArgs::read(r));
    case Command::dequantize4bit:
      return checked(Dequantize4bitArgs::read(r));
    case Command::quantizeAbsmax:
      return checked(QuantizeAbsmaxArgs::read(r));
    case Command::quantizeInt8:
      return checked(QuantizeInt8Args::read(r));
    case Command::dequantizeInt8:
      return checked(DequantizeInt8Args::read(r));
    case Command::multiply:
      return checked(MultiplyArgs::read(r));
    case Command::eagerLinear:
      return checked(EagerLinearArgs::read(r));
    case Command::eagerRope:
      return checked(EagerRopeArgs::read(r));
    case Command::eagerAttention:
      return checked(EagerAttentionArgs::read(r));
  }
  throw CommandError("unknown command code " + std::to_string(static_cast<int>(code)));
}

}  // namespace q::cuda
