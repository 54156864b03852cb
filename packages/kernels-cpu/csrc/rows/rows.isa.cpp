// embedding row: out[i] = table[id, i] * scale; floor width * (bytes of the table's dtype + 4); exact (one rounding)
#include "rows.h"
#include "../common/vmath.h"

namespace q::cpu::Q_ISA {
namespace {

template <class T>
void scale_row(const T* row, float* out, int64_t width, float scale) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(out + i, load(row + i) * scale);
  if (i < width) store_part(out + i, load_part(row + i, width - i) * scale, width - i);
}

void scaled_row(const void* row, DType dtype, float* out, int64_t width, float scale) {
  if (dtype == DType::f16)
    scale_row(static_cast<const F16*>(row), out, width, scale);
  else if (dtype == DType::bf16)
    scale_row(static_cast<const BF16*>(row), out, width, scale);
  else
    scale_row(static_cast<const float*>(row), out, width, scale);
}

}  // namespace

extern const RowKernels row_kernels;
const RowKernels row_kernels{scaled_row};

}  // namespace q::cpu::Q_ISA
