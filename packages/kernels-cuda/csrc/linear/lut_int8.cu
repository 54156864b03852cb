#include "lut.cuh"

namespace q::cuda {

template void launch_lut<WeightKind::int8, half_t>(const LinearProblem&, float, Context&);
template void launch_lut<WeightKind::int8, bfloat_t>(const LinearProblem&, float, Context&);

}  // namespace q::cuda
