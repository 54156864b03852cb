#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<StreamWeight::int8, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
