// The wgmma instructions used here, one struct per accumulator width N: D[64, N] += A[64, K] B[N, K]^T for one
// warpgroup. ss: A and B from shared memory (descriptors); rs: A from registers. Accumulators: d[4j + 2h + e] is row
// lane / 4 + 8 h of the warp's 16 rows, column 8 j + 2 (lane % 4) + e. `accumulate` 0 overwrites D. An int array for a
// float product holds the floats' bits: the int8 kernel turns its sums into floats in place and goes on (two arrays
// would both be kept, and spill). sm_90a only; bodies trap elsewhere.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define Q_SM90A 1
#else
#define Q_SM90A 0
#endif

namespace q::cuda {

template <class E, int N>
struct Wgmma;

#if Q_SM90A
#define Q_ASM(...) asm volatile(__VA_ARGS__)
#else
#define Q_ASM(...) __trap()
#endif

#define Q_D(a) "%" #a "0,%" #a "1,%" #a "2,%" #a "3,%" #a "4,%" #a "5,%" #a "6,%" #a "7,%" #a "8,%" #a "9"
#define Q_O8(c, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define Q_B32(c, i) Q_O8(c, i), Q_O8(c, i + 8), Q_O8(c, i + 16), Q_O8(c, i + 24)
#define Q_R16 Q_D() ",%10,%11,%12,%13,%14,%15"
#define Q_O16(c) Q_O8(c, 0), Q_O8(c, 8)
#define Q_R32 Q_D() "," Q_D(1) "," Q_D(2) ",%30,%31"
#define Q_O32(c) Q_B32(c, 0)
#define Q_R48 Q_D() "," Q_D(1) "," Q_D(2) "," Q_D(3) ",%40,%41,%42,%43,%44,%45,%46,%47"
#define Q_O48(c) Q_B32(c, 0), Q_O8(c, 32), Q_O8(c, 40)
#define Q_R64 Q_D() "," Q_D(1) "," Q_D(2) "," Q_D(3) "," Q_D(4) "," Q_D(5) ",%60,%61,%62,%63"
#define Q_O64(c) Q_B32(c, 0), Q_B32(c, 32)
#define Q_R96 \
  Q_D()       \
  "," Q_D(1) "," Q_D(2) "," Q_D(3) "," Q_D(4) "," Q_D(5) "," Q_D(6) "," Q_D(7) "," Q_D(8) ",%90,%91,%92,%93,%94,%95"
#define Q_O96(c) Q_B32(c, 0), Q_B32(c, 32), Q_B32(c, 64)
#define Q_R112                                                                                                \
  Q_D()                                                                                                       \
  "," Q_D(1) "," Q_D(2) "," Q_D(3) "," Q_D(4) "," Q_D(5) "," Q_D(6) "," Q_D(7) "," Q_D(8) "," Q_D(9) "," Q_D( \
      10) ",%110,%111"
#define Q_O112(c) Q_B32(c, 0), Q_B32(c, 32), Q_B32(c, 64), Q_O8(c, 96), Q_O8(c, 104)
#define Q_R120                                                                                                \
  Q_D()                                                                                                       \
  "," Q_D(1) "," Q_D(2) "," Q_D(3) "," Q_D(4) "," Q_D(5) "," Q_D(6) "," Q_D(7) "," Q_D(8) "," Q_D(9) "," Q_D( \
      10) "," Q_D(11)
#define Q_O120(c) Q_B32(c, 0), Q_B32(c, 32), Q_B32(c, 64), Q_O8(c, 96), Q_O8(c, 104), Q_O8(c, 112)
#define Q_R128                                                                                                \
  Q_D()                                                                                                       \
  "," Q_D(1) "," Q_D(2) "," Q_D(3) "," Q_D(4) "," Q_D(5) "," Q_D(6) "," Q_D(7) "," Q_D(8) "," Q_D(9) "," Q_D( \
      10) "," Q_D(11) ",%120,%121,%122,%123,%124,%125,%126,%127"
#define Q_O128(c) Q_B32(c, 0), Q_B32(c, 32), Q_B32(c, 64), Q_B32(c, 96)

#define Q_WGMMA_FLOAT(E, TYPE, N, R, I0, I1, I2, I3, I4, I5)                                                          \
  template <>                                                                                                         \
  struct Wgmma<E, N> {                                                                                                \
    using Acc = float;                                                                                                \
    static __device__ __forceinline__ void ss(float (&d)[R], uint64_t a, uint64_t b, int accumulate) {                \
      Q_ASM("{.reg .pred p; setp.ne.b32 p, %" I2 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE \
            " {" Q_R##R "}, %" I0 ", %" I1 ", p, 1, 1, 0, 0;}" : Q_O##R("+f") : "l"(a),                               \
            "l"(b), "r"(accumulate));                                                                                 \
    }                                                                                                                 \
    static __device__ __forceinline__ void ss(int (&d)[R], uint64_t a, uint64_t b, int accumulate) {                  \
      Q_ASM("{.reg .pred p; setp.ne.b32 p, %" I2 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE \
            " {" Q_R##R "}, %" I0 ", %" I1 ", p, 1, 1, 0, 0;}" : Q_O##R("+r") : "l"(a),                               \
            "l"(b), "r"(accumulate));                                                                                 \
    }                                                                                                                 \
    static __device__ __forceinline__ void rs(float (&d)[R], const uint32_t (&a)[4], uint64_t b, int accumulate) {    \
      Q_ASM("{.reg .pred p; setp.ne.b32 p, %" I5 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE \
            " {" Q_R##R "}, {%" I0 ", %" I1 ", %" I2 ", %" I3 "}, %" I4 ", p, 1, 1, 0;}" : Q_O##R("+f") : "r"(a[0]),  \
            "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                                                \
    }                                                                                                                 \
  };
#define Q_WGMMA_INT8(N, R, I0, I1, I2)                                                                                \
  template <>                                                                                                         \
  struct Wgmma<int8_t, N> {                                                                                           \
    using Acc = int;                                                                                                  \
    static __device__ __forceinline__ void ss(int (&d)[R], uint64_t a, uint64_t b, int accumulate) {                  \
      Q_ASM("{.reg .pred p; setp.ne.b32 p, %" I2 ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" Q_R##R \
            "}, %" I0 ", %" I1 ", p;}" : Q_O##R("+r") : "l"(a),                                                       \
            "l"(b), "r"(accumulate));                                                                                 \
    }                                                                                                                 \
  };

Q_WGMMA_FLOAT(__half, "f16", 32, 16, "16", "17", "18", "19", "20", "21")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 32, 16, "16", "17", "18", "19", "20", "21")
Q_WGMMA_FLOAT(__half, "f16", 64, 32, "32", "33", "34", "35", "36", "37")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 64, 32, "32", "33", "34", "35", "36", "37")
Q_WGMMA_FLOAT(__half, "f16", 96, 48, "48", "49", "50", "51", "52", "53")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 96, 48, "48", "49", "50", "51", "52", "53")
Q_WGMMA_INT8(96, 48, "48", "49", "50")
Q_WGMMA_FLOAT(__half, "f16", 128, 64, "64", "65", "66", "67", "68", "69")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 128, 64, "64", "65", "66", "67", "68", "69")
Q_WGMMA_INT8(128, 64, "64", "65", "66")
Q_WGMMA_FLOAT(__half, "f16", 192, 96, "96", "97", "98", "99", "100", "101")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 192, 96, "96", "97", "98", "99", "100", "101")
Q_WGMMA_INT8(192, 96, "96", "97", "98")
Q_WGMMA_FLOAT(__half, "f16", 224, 112, "112", "113", "114", "115", "116", "117")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 224, 112, "112", "113", "114", "115", "116", "117")
Q_WGMMA_INT8(224, 112, "112", "113", "114")
Q_WGMMA_FLOAT(__half, "f16", 240, 120, "120", "121", "122", "123", "124", "125")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 240, 120, "120", "121", "122", "123", "124", "125")
Q_WGMMA_INT8(240, 120, "120", "121", "122")
Q_WGMMA_FLOAT(__half, "f16", 256, 128, "128", "129", "130", "131", "132", "133")
Q_WGMMA_FLOAT(__nv_bfloat16, "bf16", 256, 128, "128", "129", "130", "131", "132", "133")
Q_WGMMA_INT8(256, 128, "128", "129", "130")

#undef Q_WGMMA_FLOAT
#undef Q_WGMMA_INT8
#undef Q_ASM
#undef Q_D
#undef Q_O8
#undef Q_O32
#undef Q_B32
#undef Q_R16
#undef Q_O16
#undef Q_R32
#undef Q_R48
#undef Q_O48
#undef Q_R64
#undef Q_O64
#undef Q_R96
#undef Q_O96
#undef Q_R112
#undef Q_O112
#undef Q_R120
#undef Q_O120
#undef Q_R128
#undef Q_O128

}  // namespace q::cuda
