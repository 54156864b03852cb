#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<WeightKind::dense, bfloat_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
