#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<WeightKind::bnb4, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
