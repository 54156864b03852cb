#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<StreamWeight::dense, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
