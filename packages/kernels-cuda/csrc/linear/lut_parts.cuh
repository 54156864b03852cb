// What lut.cuh is made of: sizes of its variants, the layout of shared memory, single loads and stores.
#pragma once
#include "../quant/codebook.h"
#include "lut.h"
#include "ptx.cuh"

namespace q::cuda {

/// Address in shared memory at which a kernel's own begins.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
constexpr uint32_t kLutSharedBegin = 1024;
#else
constexpr uint32_t kLutSharedBegin = 0;
#endif
constexpr int kLutTableBytes = 256 * 256;

/// Sizes of one variant. A warp's step reads 16 rows by kChunks chunks of 64 bytes, 16 bytes a lane.
template <WeightKind Kind, class T, bool Nested> struct LutShape {
  static constexpr bool kNested = Nested;
  static constexpr bool kBnb4 = Kind == WeightKind::bnb4, kInt8 = Kind == WeightKind::int8;
  static constexpr int kWarps = kBnb4 ? 32 : 16, kThreads = kWarps * 32;
  static constexpr int kChunks = kBnb4 ? 1 : 2;
  static constexpr int kAhead = kBnb4 ? 1 : 2;  // steps that a warp's loads run ahead of its products
  static constexpr bool kXAhead = !kBnb4;       // x is loaded a slice ahead: 1024 threads have no registers for it
  static constexpr int kOperands = kBnb4 ? 16 : 4;  // registers of x per chunk
  static constexpr int kBits = kBnb4 ? 4 : kInt8 ? 8 : 16;
};

struct LutPlan {
  int units;        // virtual rows; gated: columns
  int group_units;  // a multiple of a step's
  int slots;        // rows of partial sums a group takes
  int rows;         // slots of all groups of a block
  int code_stride;  // int8: bytes of a row of x's codes
  float threshold;
};

/// Where a launch's shared memory begins with what.
struct LutShared {
  int nested, weights, blocks, sums, codes, bits, outliers, reduce, bytes;
};
template <class S> __host__ __device__ inline LutShared lut_shared(const LinearProblem& p, const LutPlan& plan) {
  LutShared s{};
  int at = S::kBnb4 ? kLutTableBytes : 0;
  s.nested = at, at += S::kNested ? kMaxRepeat * 1024 + 32 + kMaxRepeat * 8 : 0;
  s.weights = at, at += plan.rows * 8;
  s.blocks = at, at += S::kBnb4 ? plan.rows * 16 : 0;
  s.sums = at, at += 2 * S::kWarps * p.rows * plan.slots * 4;
  if (S::kInt8) {
    at = (at + 127) & ~127;
    s.codes = at, at += p.rows * plan.code_stride;
    s.outliers = at, at += p.rows * plan.slots * 4;
    s.bits = at, at += plan.threshold > 0.f ? p.rows * static_cast<int>(p.k >> 3) : 0;
    s.reduce = at, at += p.rows * S::kWarps * 4 + 64;
  }
  s.bytes = at;
  return s;
}

__device__ __forceinline__ uint4 load_weight(const uint8_t* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

template <class V> __device__ __forceinline__ V load_shared(uint32_t address);
template <> __device__ __forceinline__ float load_shared<float>(uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}
template <> __device__ __forceinline__ int load_shared<int>(uint32_t address) {
  int v;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}
template <> __device__ __forceinline__ uint64_t load_shared<uint64_t>(uint32_t address) {
  uint64_t v;
  asm volatile("ld.shared.u64 %0, [%1];" : "=l"(v) : "r"(address));
  return v;
}
__device__ __forceinline__ void store_shared(uint32_t address, float v) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(v) : "memory"); }
__device__ __forceinline__ void store_shared(uint32_t address, int v) { asm volatile("st.shared.s32 [%0], %1;" ::"r"(address), "r"(v) : "memory"); }

static __constant__ float kLutBooks[2][16] = {
    {kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8], kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8], kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// Where the absmax of a row's 64-value blocks are.
struct alignas(16) LutBlocks {
  const uint8_t* absmax;
  int first;  // block of 64 values
  int part;
};

}  // namespace q::cuda
