// gemm_bnb4: act and compute dtype bf16.
#include "gemm_bnb4.cuh"

namespace q::cuda {

template <>
void launch_gemm_bnb4<bfloat_t>(Context& context, const Bnb4Params& p, int tr, int warpgroups, int blocks) {
  launch_bnb4_rows<bfloat_t>(context, p, tr, warpgroups, blocks);
}

}  // namespace q::cuda
