// What this machine can do at most, measured: reading memory, f32 FMA, int8 products.
#pragma once
#include "../common/context.h"

namespace q::cpu::bench {

/// GB/s of reading `bytes` once with all threads.
double read_bandwidth(Workers& workers, const void* data, int64_t bytes);
/// GFLOP/s of f32 FMAs in registers, all threads; needs AVX-512.
double fma_peak(Workers& workers);
/// GOP/s of u8 x i8 products, VNNI and AMX; 0 when the machine has none.
double vnni_peak(Workers& workers);
double amx_peak(Workers& workers);

}  // namespace q::cpu::bench
