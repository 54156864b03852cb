#include "stream_launch.cuh"

namespace q::cuda {
template void launch_stream<StreamWeight::bnb4, half_t>(const LinearProblem&, const QuantizedRows&, Context&);
}
