// batch4_linear: out = epilogue(x W^T) for 2 to 16 rows of x and 4-bit weights; decode of batches
// maths   tensor cores with W as the 16-row operand and x as one or two of 8 columns. Each block of 64 values is summed
//         apart and multiplied by absmax in f32; 1 / s comes last.
// layout  row_walk.cuh, row4_walk.cuh; all warps share k where it is long enough. x of a chunk stays in 64 registers
//         over all tiles of a group. A warp's sums of a tile go through shared memory, where the warps' sums meet at
//         the end of the group.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 5.9 us (nested 5.4); shared memory (look-ups, ring, sums)
//         11500 cycles of it, 5.8 us
// launch  to 8 rows two blocks of 256 threads a multiprocessor (row4.cuh); beyond, one of 512, so that x, 128 KB at 16
//         rows of 4096, is read once by each
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 2, 4, 8, 16 rows 9.5, 9.6, 10.4, 13.0 (5.9), nested 9.9, 10.0,
//         10.7, 13.1 (5.4); 22016 x 4096 8, 16 rows 17.3, 25.3 (11.8), nested 17.8, 25.0; 4096 x 4096 16 rows 7.4
//         (2.2). At 16 rows x takes 1.8 us from the L2
// needs   as row4.cuh
// exact   sums over k in a fixed order that depends on k only: same bits each run, whatever the other rows hold
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "row4_walk.cuh"

namespace q::cuda {

template <class T, bool Nested, int Columns>
struct BatchKernel : Row4Walk<BatchShape<Columns>::kWarps, Nested, BatchShape<Columns>::kChunkSteps,
                              BatchShape<Columns>::kLaneBlocks> {
  using Shape = BatchShape<Columns>;
  using Walk = Row4Walk<Shape::kWarps, Nested, Shape::kChunkSteps, Shape::kLaneBlocks>;
  static constexpr int kChunkSteps = Shape::kChunkSteps, kLaneBlocks = Shape::kLaneBlocks;
  using typename Walk::Absmax;
  using typename Walk::Copies;
  using Walk::begin;
  using Walk::decode_absmax;
  using Walk::enter;
  using Walk::first;
  using Walk::issue;
  using Walk::kStages;
  using Walk::lane;
  using Walk::next_stage;
  using Walk::p;
  using Walk::part;
  using Walk::plan;
  using Walk::row_offset;
  using Walk::share;
  using Walk::shared;
  using Walk::side;
  using Walk::sides;
  using Walk::steps;
  using Walk::steps_in;
  using Walk::Walk;
  using Walk::warp;

  using Operands = uint32_t[kChunkSteps * 2][Columns][8];  // x of a chunk: by block
  using Sums = float[Columns][4];

  __device__ __forceinline__ float4* sums(int tile, int of_share) const {
    return reinterpret_cast<float4*>(shared + plan.sums + ((tile << plan.split_shift) + of_share) * Shape::kSumsBytes);
  }

  /// x of a chunk as the second operand: column lane / 4 of tile j is row j * 8 + lane / 4.
  __device__ __forceinline__ void load_x(int chunk, Operands& x) const {
    const int blocks = steps_in(chunk) * 2;
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      const int m = j * 8 + lane / 4;
      const uint4* from = reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + m * p.k +
                                                         (first + chunk * kChunkSteps) * 128 + lane % 4 * 16);
#pragma unroll
      for (int i = 0; i < kChunkSteps * 2; ++i) {
        uint4 v[2] = {};
        if (m < p.rows && i < blocks) v[0] = from[i * 8], v[1] = from[i * 8 + 1];
        uint32_t (&to)[8] = x[i][j];
        to[0] = v[0].x, to[1] = v[0].y, to[2] = v[0].z, to[3] = v[0].w;
        to[4] = v[1].x, to[5] = v[1].y, to[6] = v[1].z, to[7] = v[1].w;
      }
    }
  }
  /// Waits for x here: the compiler gives it the same counter of loads under way as absmax, and would wait for both in
  /// every product (row4.cuh).
  __device__ __forceinline__ void settle(Operands& x) const {
#pragma unroll
    for (int i = 0; i < kChunkSteps * 2; ++i)
#pragma unroll
      for (int j = 0; j < Columns; ++j)
#pragma unroll
        for (int e = 0; e < 8; ++e) x[i][j][e] ^= plan.zero;
  }

  /// Adds 16 rows times one block.
  __device__ __forceinline__ void multiply(uint2 w0, uint2 w1, const uint32_t (&x)[Columns][8], float low, float high,
                                           Sums& c) const {
    uint32_t a[4][4];
    look_up_codes(a, shared, w0, w1, lane);
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      float d[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) mma<T>(d, a[i], x[j][2 * i], x[j][2 * i + 1]);
      c[j][0] = fmaf(low, d[0], c[j][0]), c[j][1] = fmaf(low, d[1], c[j][1]);
      c[j][2] = fmaf(high, d[2], c[j][2]), c[j][3] = fmaf(high, d[3], c[j][3]);
    }
  }

  /// Adds the warps' sums in warp order into those of the first: each lane what it holds, so that no two meet in a bank
  /// of shared memory.
  __device__ void merge() const {
#pragma unroll 1
    for (int i = warp; i < plan.tiles * Columns; i += Shape::kWarps) {
      const int tile = i / Columns, at = i % Columns * 32 + lane;
      float4 v = sums(tile, 0)[at];
#pragma unroll 8
      for (int w = 1; w < 1 << plan.split_shift; ++w) {
        const float4 more = sums(tile, w)[at];
        v.x += more.x, v.y += more.y, v.z += more.z, v.w += more.w;
      }
      sums(tile, 0)[at] = v;
    }
  }

  __device__ void finish() const {
    const float scale = 1.f / code_scale<T>(p.quant_type);
    this->template store_group<T>([&](int m, int tile, int slot) {
      const float* sum = reinterpret_cast<const float*>(sums(tile, 0) + (m >> 3) * 32 + (slot & 7) * 4 + (m & 7) / 2);
      return sum[(m & 1) | (slot >> 3) << 1] * scale;
    });
  }

  __device__ void run() {
    pdl_trigger();
    this->copy_nested();
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) {
      enter(group);
      // The first weights are on their way while shared memory is set up and earlier kernels end (launch.h), the others
      // follow x.
      Copies copies = this->start_copies();
      this->template issue_steps<0, TableRing<Shape::kWarps>::kEarlySteps>(copies);
      Absmax coming{};
      int block = this->first_block();
      this->load_absmax(coming, {0, side}, block);
      if (group == blockIdx.x) {
        this->set_up();
        pdl_wait();
      }
      Operands x;
      int from;
#pragma unroll 1
      for (int chunk = 0; chunk == 0 || chunk * kChunkSteps < steps; ++chunk) {
        load_x(chunk, x);
        if (chunk == 0) this->template issue_steps<TableRing<Shape::kWarps>::kEarlySteps, kStages - 1>(copies);
        if (chunk == 0) from = this->stage_start();
        settle(x);
        const int count = steps_in(chunk);
#pragma unroll 1
        for (int tile = side; tile < plan.tiles; tile += sides) {
          float low[kLaneBlocks], high[kLaneBlocks];
          Sums c = {};
          // (Decoded at the end of the visit before it, absmax would take registers beside all of x: 0.6 to 1 us more.)
          decode_absmax(coming, low, high);
          this->load_next_absmax(coming, {chunk, tile}, block);
          float4* to = sums(tile, share) + lane;
          if (chunk > 0)
#pragma unroll
            for (int j = 0; j < Columns; ++j) *reinterpret_cast<float4*>(c[j]) = to[j * 32];
#pragma unroll
          for (int step = 0; step < kChunkSteps; ++step) {
            if (step >= count) break;
            async_wait<kStages - 2>();
            __syncwarp();
            const int second = this->second_block();
            const auto codes = [&](int at) { return *reinterpret_cast<const uint2*>(shared + from + at); };
            const uint2 a0 = codes(0), a1 = codes(row_offset(8)), b0 = codes(second),
                        b1 = codes(second + row_offset(8));
            issue(copies);
            const auto of = [&](const float (&v)[kLaneBlocks], int block) {
              return __shfl_sync(0xffffffffu, v[block % kLaneBlocks], (lane & 28) + block / kLaneBlocks);
            };
            multiply(a0, a1, x[step * 2], of(low, step * 2), of(high, step * 2), c);
            multiply(b0, b1, x[step * 2 + 1], of(low, step * 2 + 1), of(high, step * 2 + 1), c);
            next_stage(from);
          }
#pragma unroll
          for (int j = 0; j < Columns; ++j) to[j * 32] = *reinterpret_cast<const float4*>(c[j]);
        }
      }
      __syncthreads();
      merge();
      __syncthreads();
      finish();
      if (group + gridDim.x < plan.groups) __syncthreads();
    }
  }
};

template <class T, bool Nested, int Columns>
__global__ void __launch_bounds__(BatchShape<Columns>::kThreads, 16 / BatchShape<Columns>::kWarps)
    batch4_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ RowPlan plan) {
  extern __shared__ __align__(128) uint8_t shared[];
  BatchKernel<T, Nested, Columns>(p, plan, shared).run();
}

}  // namespace q::cuda
