// The code books of bitsandbytes' 4-bit formats, as stored in its checkpoints (quant_map), and the edges between codes.
#pragma once
#include "device.cuh"

namespace q::cuda {

constexpr float kNf4[16] = {-1.f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.f};
constexpr float kFp4[16] = {0.f,
                            0.0052083334885537624f,
                            0.6666666865348816f,
                            1.f,
                            0.3333333432674408f,
                            0.5f,
                            0.1666666716337204f,
                            0.25f,
                            -0.f,
                            -0.0052083334885537624f,
                            -0.6666666865348816f,
                            -1.f,
                            -0.3333333432674408f,
                            -0.5f,
                            -0.1666666716337204f,
                            -0.25f};

/// A 16-bit product multiplies code * kScale (rounded) and then absmax / kScale: the scale is chosen so that rounding
/// the 15 values costs least (root mean square 0.95e-4 instead of 1.8e-4 in f16, 0.85e-3 instead of 1.4e-3 in bf16; fp4
/// * 12 is exact).
template <class T>
constexpr float kNf4Scale = 1.f;
template <>
constexpr inline float kNf4Scale<half_t> = 1.6385f;
template <>
constexpr inline float kNf4Scale<bfloat_t> = 1.4367f;
constexpr float kFp4Scale = 12.f;
template <class T>
__host__ __device__ constexpr float code_scale(QuantType type) {
  return type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale;
}

}  // namespace q::cuda
