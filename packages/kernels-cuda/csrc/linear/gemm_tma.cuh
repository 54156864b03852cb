// gemm_tma: out = finish(x[rows, k] . W[n, k]^T) for many rows on Hopper          dense f16 / bf16, and int8 (LLM.int8)
// maths   dense: f32 sums of 16-bit products. int8: exact i32 sums of CA . CB^T, times SCA SCB / 127^2, plus the
//         outlier product x_out . W_out^T in act precision, which continues in the same accumulators as further K
//         steps: groups of 16 columns, the K of one instruction, so that the groups other rows need add exact zeros
//         here and change no bit.
// layout  row-major x [rows, k], W [n, k]; one tensor map for x, one for each weight; K steps of 128 bytes, 128-byte
//         swizzle
// tile    128 x TN per block of 3 warpgroups: one loads (TMA, 4 stages), two multiply (64 x TN each, wgmma m64nTNk16 /
//         k32). gated: TN / 2 columns of gate and the same TN / 2 of up, combined before they are written.
// launch  persistent, one block per multiprocessor; clusters of 2 blocks share the weight tile by multicast; tiles run
//         down the rows first, so that concurrent blocks share weights. TN (multiples of 16) is chosen by the host for
//         the fewest whole waves.
// floor   2 rows n k / 785e12 s (f16), / 1.5e15 s (int8) on an H200; bytes rarely matter at these sizes
// needs   sm_90a; 16-byte aligned x and W, rows of x and W multiples of 16 bytes; activation none, silu or relu
// exact   the sum of an output is one sequence of K steps, whatever the rows beside it: same bits each run and in any
//         batch
// seen    H200, 11008 x 4096, 2048 rows, CUDA graph: f16 286-322 us (cuBLASLt 252-297), int8 167-200 us
// ref     q::reference::linear in csrc/test/gemm_reference.cuh          bench  csrc/test/gemm_bench.cu
#pragma once
#include "gemm_finish.cuh"
#include "gemm_sm90.cuh"
#include "launch.h"
#include <type_traits>

namespace q::cuda {

/// LLM.int8 values the epilogue needs; see gemm_quantize.cuh for how they are made.
struct Int8Finish {
  const float* row_scale;          // SCA [rows]
  const float* scale[kMaxRepeat];  // SCB [n] of each part
  const int* groups;  // [0]: groups of 16 columns that hold outliers, side by side in the maps `extra`; null: none
};

struct TmaParams {
  CUtensorMap x;
  CUtensorMap weight[kMaxRepeat];
  CUtensorMap x_extra;       // act [rows, 16 a group]: outlier values, 0 elsewhere
  CUtensorMap weight_extra;  // act [sum of n, 16 a group]: these columns, dequantized
  Finish finish;
  Int8Finish int8;
  int k_steps;
  int row_tiles;  // of 128 * cluster rows
  int tiles;
};

constexpr int kTmaThreads = 384;
constexpr int kTmaStages = 4;
constexpr int kScratchPitch = 40;  // floats: 32 columns, padded so that a quarter warp's accesses meet no bank twice
constexpr int kScratchBytes = 16 * kScratchPitch * 4;  // of each multiplying warp
constexpr int tma_shared_bytes(int tn) {
  return kTmaStages * (128 + tn) * 128 + 1024 + kTmaStages * 16 + 8 * kScratchBytes;
}

template <class T>
__device__ __forceinline__ void add_eight(float (&v)[8], const void* from, int64_t at) {
  float add[8];
  load<T, 8>(add, static_cast<const T*>(from) + at);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] += add[i];
}

/// Eight neighbouring outputs of one row, from their sums in shared memory to memory. `column` is the first one's
/// within `part`; gated, the sums of `up` are 16 floats further. Without whole vectors, one after the other.
template <class T, bool Gated>
__device__ __forceinline__ void finish_eight(const float* from, const Finish& f, const FinishPart& part, int64_t row,
                                             int column) {
  if (row >= f.rows || column >= part.n) return;
  const int64_t at = row * f.ldo + (Gated ? 0 : part.column) + column;
  T* out = static_cast<T*>(f.out) + at;
  if (f.vectors) {
    float v[8];
    load<float, 4>(reinterpret_cast<float (&)[4]>(v[0]), from);
    load<float, 4>(reinterpret_cast<float (&)[4]>(v[4]), from + 4);
    if (part.bias) add_eight<T>(v, part.bias, column);
    if (f.activation == ActivationKind::silu) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = activate_fused(ActivationKind::silu, v[i]);
    } else if (f.activation == ActivationKind::relu) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = activate_fused(ActivationKind::relu, v[i]);
    }
    if (Gated) {
      float up[8];
      load<float, 4>(reinterpret_cast<float (&)[4]>(up[0]), from + 16);
      load<float, 4>(reinterpret_cast<float (&)[4]>(up[4]), from + 20);
      if (f.part[1].bias) add_eight<T>(up, f.part[1].bias, column);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] *= up[i];
    }
    if (f.residual) add_eight<T>(v, f.residual, at);
    store<T, 8>(out, v);
    return;
  }
  const int count = min(8, part.n - column);
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    float v = activate_fused(f.activation, from[i] + bias_of(part, column + i));
    if (Gated) v *= from[16 + i] + bias_of(f.part[1], column + i);
    if (f.residual) v += to_float(static_cast<const T*>(f.residual)[at + i]);
    out[i] = from_float<T>(v);
  }
}

/// Writes the warp's 16 rows x TN columns. `row` is the warp's first row, `n0` the tile's first column within `part`.
/// The sums pass through shared memory, 32 columns at a time, so that the code for a row's eight outputs stands in few
/// places: unrolled over the registers it is 180 KB of instructions, and fetching them takes longer than the product.
template <class T, int TN>
__device__ __forceinline__ void finish_tile(const float (&acc)[TN / 2], const Finish& f, const FinishPart& part,
                                            int row, int n0, float* scratch) {
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  auto pass = [&](auto gated) {
    constexpr bool kGated = decltype(gated)::value;
    constexpr int kBlocks = kGated ? TN / 16 : TN / 8,
                  kAtOnce = kGated ? 2 : 4;  // blocks of 8 columns; gated: 2 of gate beside 2 of up
#pragma unroll
    for (int q = 0; q < kBlocks; q += kAtOnce) {
      const int blocks = kBlocks - q < kAtOnce ? kBlocks - q : kAtOnce;
      __syncwarp();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = q + i % kAtOnce, block = j < kBlocks ? j + (i >= kAtOnce ? kBlocks : 0) : 0;
        float* to = scratch + g * kScratchPitch + 8 * i + 2 * c;
        *reinterpret_cast<float2*>(to) = make_float2(acc[4 * block], acc[4 * block + 1]);
        *reinterpret_cast<float2*>(to + 8 * kScratchPitch) = make_float2(acc[4 * block + 2], acc[4 * block + 3]);
      }
      __syncwarp();
#pragma unroll 1
      for (int item = lane; item < 16 * kAtOnce; item += 32) {
        const int r = item / kAtOnce, i = item % kAtOnce;
        if (i >= blocks) continue;
        finish_eight<T, kGated>(scratch + r * kScratchPitch + 8 * i, f, part, row + r, n0 + 8 * (q + i));
      }
    }
  };
  if (f.gated)
    pass(std::true_type{});
  else
    pass(std::false_type{});
}

/// An i32 sum becomes the bits of sum * scale in the register it stands in (as two variables all sums would live twice,
/// and spill).
__device__ __forceinline__ void scale_in_place(int& sum, float scale) {
  asm volatile("{.reg .f32 t; cvt.rn.f32.s32 t, %0; mul.f32 t, t, %1; mov.b32 %0, t;}" : "+r"(sum) : "f"(scale));
}

/// i32 sums to the bits of scaled f32.
template <int TN>
__device__ __forceinline__ void scale_int8(int (&sums)[TN / 2], const TmaParams& p, int part, int row, int n0) {
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  float scale[2];
#pragma unroll
  for (int h = 0; h < 2; ++h)
    scale[h] = row + g + 8 * h < p.finish.rows ? p.int8.row_scale[row + g + 8 * h] * (1.f / 16129.f) : 0.f;
#pragma unroll
  for (int j = 0; j < TN / 8; ++j) {
    if (j % 4 == 0) __syncwarp();  // keeps the loads of later columns from being hoisted: registers are full
    const bool second = p.finish.gated && j >= TN / 16;
    const int which = second ? 1 : part;
    const int n = n0 + 8 * (second ? j - TN / 16 : j) + 2 * c;
    const float lo = n < p.finish.part[which].n ? p.int8.scale[which][n] : 0.f,
                hi = n + 1 < p.finish.part[which].n ? p.int8.scale[which][n + 1] : 0.f;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      scale_in_place(sums[4 * j + 2 * h], scale[h] * lo);
      scale_in_place(sums[4 * j + 2 * h + 1], scale[h] * hi);
    }
  }
}

template <int Cluster>
__device__ __forceinline__ void release_stage(uint32_t empty) {
  if ((threadIdx.x & 31) != 0) return;
  if constexpr (Cluster == 1) {
    sm90::barrier_arrive(empty);
  } else {
#pragma unroll
    for (int i = 0; i < Cluster; ++i) sm90::barrier_arrive_remote(empty, i);
  }
}

/// The K steps of one phase: `steps` stages of A (this warpgroup's 64 rows) times B. The first product overwrites when
/// `fresh`.
template <class E, int TN, int Cluster, class Acc>
__device__ __forceinline__ void multiply(Acc (&acc)[TN / 2], int steps, bool fresh, uint32_t tiles, uint32_t barriers,
                                         int& stage, int& parity) {
  constexpr int kStage = (128 + TN) * 128;
  const uint32_t mine = (threadIdx.x / 128 - 1) * 64 * 128;
  uint32_t previous = 0;
  for (int step = 0; step < steps; ++step) {
    sm90::barrier_wait(barriers + stage * 16, parity);
    const uint64_t a = sm90::tile_descriptor(tiles + stage * kStage + mine),
                   b = sm90::tile_descriptor(tiles + stage * kStage + 128 * 128);
    sm90::wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<E, TN>::ss(acc, a + 2 * i, b + 2 * i, !fresh || step != 0 || i != 0);
    sm90::wgmma_commit();
    sm90::wgmma_wait<1>();
    if (step != 0) release_stage<Cluster>(previous);
    previous = barriers + stage * 16 + 8;
    if (++stage == kTmaStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  sm90::wgmma_wait<0>();
  if (steps != 0) release_stage<Cluster>(previous);
}

template <class E, class T, int TN, int Cluster>
__global__ void __launch_bounds__(kTmaThreads, 1) gemm_tma_kernel(const __grid_constant__ TmaParams p) {
#if Q_SM90A
  constexpr bool kInt8 = sizeof(E) == 1;
  constexpr int kElements = 128 / sizeof(E), kStage = (128 + TN) * 128;
  extern __shared__ uint8_t raw[];
  const uint32_t tiles = (sm90::shared_address(raw) + 1023) & ~1023u;
  const uint32_t barriers = tiles + kTmaStages * kStage;  // full and empty of each stage
  float* scratch = reinterpret_cast<float*>(raw + (barriers + kTmaStages * 16 - sm90::shared_address(raw)));
  const int rank = Cluster == 1 ? 0 : sm90::cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < kTmaStages; ++s) {
      sm90::barrier_init(barriers + s * 16, 1);
      sm90::barrier_init(barriers + s * 16 + 8, Cluster * 8);
    }
    sm90::barrier_init_fence();
    sm90::prefetch_map(&p.x);
  }
  if constexpr (Cluster == 1)
    __syncthreads();
  else
    sm90::cluster_sync();
  pdl_begin();

  const int extra = kInt8 && p.int8.groups ? (p.int8.groups[0] + 3) / 4 : 0;  // K steps of four groups
  const int first = blockIdx.x / Cluster, stride = gridDim.x / Cluster;
  const int width = p.finish.gated ? TN / 2 : TN;
  auto locate = [&](int tile, int& part, int& n0, int& row) {
    const int column_tile = tile / p.row_tiles;
    row = ((tile % p.row_tiles) * Cluster + rank) * 128;
    part = 0;
    while (part + 1 < p.finish.parts && !p.finish.gated && column_tile >= p.finish.part[part + 1].first_tile) ++part;
    n0 = (column_tile - p.finish.part[part].first_tile) * width;
  };

  int stage = 0, parity = 0;
  if (threadIdx.x < 128) {
    sm90::fewer_registers<40>();
    if (threadIdx.x == 0) {
      for (int tile = first; tile < p.tiles; tile += stride) {
        int part, n0, row;
        locate(tile, part, n0, row);
        const int other = p.finish.gated ? 1 : part;
        const int n1 = p.finish.gated ? n0 : n0 + TN / 2;
        for (int step = 0; step < p.k_steps + extra; ++step) {
          const bool outlier = step >= p.k_steps;
          const uint32_t full = barriers + stage * 16, at = tiles + stage * kStage;
          sm90::barrier_wait(full + 8, parity ^ 1);
          sm90::barrier_expect(full, kStage);
          const int column = outlier ? (step - p.k_steps) * 64 : step * kElements;
          sm90::tensor_load(at, outlier ? &p.x_extra : &p.x, full, column, row);
          const CUtensorMap* low = outlier ? &p.weight_extra : &p.weight[part];
          const CUtensorMap* high = outlier ? &p.weight_extra : &p.weight[other];
          const int row0 = n0 + (outlier ? p.finish.part[part].column : 0),
                    row1 = n1 + (outlier ? p.finish.part[other].column : 0);
          if constexpr (Cluster == 1) {
            sm90::tensor_load(at + 128 * 128, low, full, column, row0);
            sm90::tensor_load(at + 128 * 128 + TN / 2 * 128, high, full, column, row1);
          } else if (rank == 0) {
            sm90::tensor_load_multicast(at + 128 * 128, low, full, column, row0, 3);
          } else {
            sm90::tensor_load_multicast(at + 128 * 128 + TN / 2 * 128, high, full, column, row1, 3);
          }
          if (++stage == kTmaStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
    }
  } else {
    sm90::more_registers<232>();
    const int warp_row = (threadIdx.x / 32 - 4) * 16;
    for (int tile = first; tile < p.tiles; tile += stride) {
      int part, n0, row;
      locate(tile, part, n0, row);
      float acc[TN / 2];
      if constexpr (kInt8) {
        int sums[TN / 2];
        multiply<E, TN, Cluster>(sums, p.k_steps, true, tiles, barriers, stage, parity);
        scale_int8<TN>(sums, p, part, row + warp_row, n0);
        multiply<T, TN, Cluster>(sums, extra, false, tiles, barriers, stage, parity);
#pragma unroll
        for (int i = 0; i < TN / 2; ++i) acc[i] = __int_as_float(sums[i]);
      } else {
        multiply<E, TN, Cluster>(acc, p.k_steps, true, tiles, barriers, stage, parity);
      }
      finish_tile<T, TN>(acc, p.finish, p.finish.part[part], row + warp_row, n0,
                         scratch + (threadIdx.x / 32 - 4) * (kScratchBytes / 4));
    }
  }
  if constexpr (Cluster != 1) sm90::cluster_sync();
#else
  __trap();
#endif
}

/// Launches the instance; TN is one of kTmaWidths.
template <class E, class T>
void launch_gemm_tma(Context& context, const TmaParams& p, int tn, int cluster);

}  // namespace q::cuda
