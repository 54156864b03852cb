// What this machine can do at most, measured now: reading memory, f32 multiply-adds, 8-bit products. The figures that
// benches divide by.
#pragma once
#include "../common/context.h"

namespace q::cpu {

/// Per second, all threads together. 0 where the machine has no such instruction.
struct Ceilings {
  double read_bytes, f32_flops, vnni_ops, amx_ops;
};

/// Best of several passes; takes about a second and 1 GiB. Throws std::bad_alloc.
Ceilings measure_ceilings(Workers& workers, const CpuFeatures& features);

namespace ceilings {

/// The part that depends on the instruction set: reads `bytes` (a multiple of 1024) once; does `repeat` rounds of
/// kChains FMAs.
struct Kernels {
  float (*read)(const char* data, int64_t bytes);
  float (*multiply_add)(int64_t repeat);
  int64_t flops_per_round;
};

}  // namespace ceilings

namespace scalar {
extern const ceilings::Kernels ceiling_kernels;
}
#ifdef Q_X86
namespace avx2 {
extern const ceilings::Kernels ceiling_kernels;
}
namespace avx512 {
extern const ceilings::Kernels ceiling_kernels;
}
namespace avx512_vnni {
extern const int64_t ops_per_round;
float products(int64_t repeat);
}  // namespace avx512_vnni
namespace avx512_amx {
extern const int64_t ops_per_round;
float products(int64_t repeat);
}  // namespace avx512_amx
#endif

}  // namespace q::cpu
