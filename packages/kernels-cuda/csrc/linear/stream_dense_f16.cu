#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<WeightKind::dense, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
