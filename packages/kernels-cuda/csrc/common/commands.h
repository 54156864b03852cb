// Every command of the native ABI as it is implemented on CUDA, from the lists of q_ops.h: one without a kernel does
// not link. See context.h for the rules.
#pragma once
#include "context.h"

namespace q::cuda {

#define Q_DECLARE(name, Args) void run(const Args& args, Context& context);
Q_EACH_COMMAND(Q_DECLARE)
#undef Q_DECLARE

// A command that waited, and the one that reads what it makes: in one launch where a kernel can, else one after the
// other.
#define Q_DECLARE(Args, NextArgs) void run(const Args& first, const NextArgs& args, Context& context);
Q_EACH_JOIN(Q_DECLARE)
#undef Q_DECLARE

/// Opens cuBLASLt for the current device; null when the library is not there. csrc/linear.
CublasLt* open_cublaslt(int device);
void close_cublaslt(CublasLt* library);

}  // namespace q::cuda
