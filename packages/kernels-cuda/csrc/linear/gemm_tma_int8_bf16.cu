// gemm_tma: operands int8_t, act bfloat_t.
#include "gemm_tma_launch.cuh"

namespace q::cuda {
template void launch_gemm_tma<int8_t, bfloat_t>(Context& context, const TmaParams& p, int tn, int cluster);
}
