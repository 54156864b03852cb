#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<WeightKind::int8, bfloat_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
