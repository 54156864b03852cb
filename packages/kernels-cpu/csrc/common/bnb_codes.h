// The 4-bit code books of bitsandbytes and where its decision trees cut. nf4 cuts at the midpoints of neighbours,
// rounded to f32; fp4 (in order of magnitude) at midpoints as they are written there, in 6 to 8 decimals: ties of
// 16-bit input show the difference.
#pragma once

namespace q::cpu {

constexpr float kNf4[16] = {-1.0f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.0f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.0f};
constexpr float kFp4[16] = {0.0f,  0.005208333333f,  0.66666667f,  1.0f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
                            -0.0f, -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};

constexpr float kFp4Cuts[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f};
constexpr unsigned char kFp4Order[8] = {0, 1, 6, 7, 4, 5, 2, 3};  // codes from the smallest magnitude to the largest

}  // namespace q::cpu
