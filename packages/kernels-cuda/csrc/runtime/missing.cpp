// Weak definitions that let the runtime link before csrc/linear is there; any strong definition takes their place.
#include "commands.h"

namespace q::cuda {

#define Q_MISSING(Args, name) \
  __attribute__((weak)) void run(const Args&, Context&) { throw CommandError(name ": not in this build"); }
Q_MISSING(LinearArgs, "linear")
Q_MISSING(Quantize4bitArgs, "quantize4bit")
Q_MISSING(Dequantize4bitArgs, "dequantize4bit")
Q_MISSING(QuantizeAbsmaxArgs, "quantizeAbsmax")
Q_MISSING(QuantizeInt8Args, "quantizeInt8")
Q_MISSING(DequantizeInt8Args, "dequantizeInt8")
#undef Q_MISSING

__attribute__((weak)) CublasLt* open_cublaslt(int) { return nullptr; }
__attribute__((weak)) void close_cublaslt(CublasLt*) {}

}  // namespace q::cuda
