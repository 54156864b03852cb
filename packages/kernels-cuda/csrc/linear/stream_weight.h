// What the streaming product for few rows reads.
#pragma once

namespace q::cuda {

// / What the streaming kernel has instances for: dense weights in x's dtype (f16, bf16), dense weights in f32 (wide),
// bnb4 / and int8.
enum class StreamWeight { dense, wide, bnb4, int8 };

}  // namespace q::cuda
