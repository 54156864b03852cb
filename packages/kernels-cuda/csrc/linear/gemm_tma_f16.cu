// gemm_tma: operands half_t, act half_t.
#include "gemm_tma_launch.cuh"

namespace q::cuda {
template void launch_gemm_tma<half_t, half_t>(Context& context, const TmaParams& p, int tn, int cluster);
}
