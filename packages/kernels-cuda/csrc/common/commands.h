// Every command of the native ABI as it is implemented on CUDA; see context.h for the rules.
#pragma once
#include "context.h"

namespace q::cuda {

// csrc/memory
void run(const FillArgs& args, Context& context);
void run(const RandomArgs& args, Context& context);
void run(const CopyArgs& args, Context& context);
void run(const CastArgs& args, Context& context);
// csrc/rows
void run(const EmbeddingArgs& args, Context& context);
void run(const SelectRowsArgs& args, Context& context);
void run(const ScatterRowsArgs& args, Context& context);
// csrc/linear
void run(const LinearArgs& args, Context& context);
// csrc/norm
void run(const RmsNormArgs& args, Context& context);
void run(const LayerNormArgs& args, Context& context);
// csrc/attention
void run(const RopeKvWriteArgs& args, Context& context);
void run(const AttentionArgs& args, Context& context);
// csrc/elementwise
void run(const ActivationArgs& args, Context& context);
void run(const GatedActivationArgs& args, Context& context);
void run(const AddArgs& args, Context& context);
void run(const ScaleArgs& args, Context& context);
// csrc/softmax
void run(const SoftmaxArgs& args, Context& context);
void run(const CrossEntropyArgs& args, Context& context);
// csrc/decoding
void run(const ArgmaxArgs& args, Context& context);
void run(const SampleArgs& args, Context& context);
void run(const AdvanceArgs& args, Context& context);
// csrc/linear
void run(const Quantize4bitArgs& args, Context& context);
void run(const Dequantize4bitArgs& args, Context& context);
void run(const QuantizeAbsmaxArgs& args, Context& context);
void run(const QuantizeInt8Args& args, Context& context);
void run(const DequantizeInt8Args& args, Context& context);
// csrc/eager
void run(const MultiplyArgs& args, Context& context);
void run(const EagerLinearArgs& args, Context& context);
void run(const EagerRopeArgs& args, Context& context);
void run(const EagerAttentionArgs& args, Context& context);

/// Opens cuBLASLt for the current device; null when the library is not there. csrc/linear.
CublasLt* open_cublaslt(int device);
void close_cublaslt(CublasLt* library);

}  // namespace q::cuda
