// gemm_bnb4: act and compute dtype bf16.
#include "gemm_bnb4.cuh"

namespace q::cuda {

template <> void launch_gemm_bnb4<bfloat_t>(Context& context, const Bnb4Params& p, int tr, int blocks) {
  switch (tr) {
    case 96: return launch_bnb4_instance<bfloat_t, 96>(context, p, blocks);
    case 128: return launch_bnb4_instance<bfloat_t, 128>(context, p, blocks);
    case 192: return launch_bnb4_instance<bfloat_t, 192>(context, p, blocks);
    case 256: return launch_bnb4_instance<bfloat_t, 256>(context, p, blocks);
    default: throw CommandError("linear (bnb4): no instance for " + std::to_string(tr) + " rows");
  }
}

}  // namespace q::cuda
