#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<StreamWeight::dense, bfloat_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
