#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<WeightKind::int8, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
