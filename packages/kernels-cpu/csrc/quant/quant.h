// Kernels of the quantization commands, on ranges of blocks or rows; one table per instruction set.
#pragma once
#include "../common/context.h"

namespace q::cpu::quant {

struct Kernels {
  void (*quantize4)(const Quantize4bitArgs&, int64_t block0, int64_t block1);
  void (*dequantize4)(const Dequantize4bitArgs&, int64_t block0, int64_t block1);
  void (*quantize_absmax)(const QuantizeAbsmaxArgs&, const float* cuts, int64_t block0,
                          int64_t block1);  // after the offset is known
  void (*quantize8)(const QuantizeInt8Args&, int64_t row0, int64_t row1);
  void (*dequantize8)(const DequantizeInt8Args&, int64_t row0, int64_t row1);
};

}  // namespace q::cpu::quant

namespace q::cpu {
namespace scalar {
extern const quant::Kernels quant_kernels;
}
namespace avx2 {
extern const quant::Kernels quant_kernels;
}
namespace avx512 {
extern const quant::Kernels quant_kernels;
}
}  // namespace q::cpu
