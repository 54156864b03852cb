#include "stream_launch.cuh"

namespace q::cuda {
template bool launch_stream<WeightKind::dense, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
