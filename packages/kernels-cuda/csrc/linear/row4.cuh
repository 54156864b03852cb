// row4_linear: out = epilogue(x W^T) for one row of x, normalized first if asked, and 4-bit weights; decode at batch 1
// maths   tensor cores with W as the 16-row operand. The 8 columns of the other operand are 8 blocks of 64 values of
//         the same row of x: what a column's own block gives is taken, the rest dropped, so x takes 8 registers for 512
//         values. Each block's sum is multiplied by absmax in f32; 1 / s comes last.
// layout  row_walk.cuh: a block owns a group of rows of one part (gated: pairs of a gate row and its up row) in tiles
//         of at most 16. Of its 8 warps as many share k as find 512 values each, and sides of that many share the
//         tiles. A warp walks its part of k in chunks of 512 values, each over all its tiles, in steps of 128 values
//         (64 bytes of a row) through a ring of its own in shared memory that cp.async fills; the warps' sums meet in
//         shared memory at the end of the group. Codes become f16/bf16 pairs through a table (code_table.cuh); the
//         ring's rows lie in its gaps (row4_walk.cuh). absmax comes through registers (copied into shared memory like
//         W: 0.2 us more, nested 1.2).
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 5.9 us (nested 5.4), 28672 x 8192 31 us; shared memory
//         (look-ups, ring) 9600 cycles of the first
// launch  two blocks of 256 threads a multiprocessor, never three (row_layout.h): one starts while the other still
//         computes (one block of 512: 9.4 us). One step's copies start before earlier kernels have ended (launch.h),
//         two more after x has been asked for, which would wait behind them
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 8.5 (5.9), nested 8.8 (5.4); 4096 x 4096 4.6 (2.2), nested
//         4.7; 22016 x 4096 15.0 (11.8), nested
//         15.2; 28672 x 8192 38.9 (30.7), nested 33.6 (28.2). Of the 16,000 cycles of the first (traced) a block takes
//         500 to 800 until its first copy, 570 more until absmax, 1,600 to 2,500 from the end of the kernel before it
//         until its first product (x), 8,600 for its steps, at the rate of memory, and 1,000 for its end; its place is
//         empty for 1,300. Codes as integers of 15 bits by byte permutes, without a table, for the int8 tensor cores:
//         13.5; several products in one launch whose blocks meet in between: 10.3; eight copies of x in memory:
//         nothing.
// norm    one norm less to launch and wait for, twice a layer: decode of Llama 2 7B 510 -> 521 tok/s
// needs   sm_80, k % 128 == 0, k >= 512, 16-byte aligned x and W, blocks of 64 values, absmax aligned to 8 bytes
//         (nested: 2); nested code table: 16; norm: k of 512, 1024, 2048 or 4096
// exact   sums over k in a fixed order that depends on k only: same bits each run; the norm has the same bits as
//         norm.cu's
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "row4_walk.cuh"

namespace q::cuda {

template <class T, bool Nested>
struct RowKernel : Row4Walk<kRowWarps, Nested, kChunkSteps, 2> {
  using Walk = Row4Walk<kRowWarps, Nested, kChunkSteps, 2>;
  using typename Walk::Absmax;
  using typename Walk::Copies;
  using Walk::begin;
  using Walk::column_of;
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
  using Walk::rows_in;
  using Walk::share;
  using Walk::shared;
  using Walk::side;
  using Walk::sides;
  using Walk::steps;
  using Walk::steps_in;
  using Walk::Walk;

  __device__ float* sums(int tile, int of_share) const {
    return reinterpret_cast<float*>(shared + plan.sums + ((tile << plan.split_shift) + of_share) * kRowSumsBytes);
  }

  // The hardware has few counters for loads under way, and the compiler gives x and absmax the same one: whoever waits
  // for one waits for both. Plain absmax is taken before x is loaded (`after` makes x's address depend on it); nested
  // absmax, which is decoded, in the first step of its visit, where x is waited for (settle), when the codes of that
  // step have been looked up.

  /// x of a chunk as the second operand, on its way: column lane / 4 is one block.
  __device__ __forceinline__ void load_x(int chunk, uint32_t after, uint32_t (&x)[8]) const {
    const int block = chunk * (kChunkSteps * 2) + lane / 4;
    uint4 v[2] = {};
    if (block < steps * 2) {
      const uint4* from = reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + (first * 2 + block) * 64 +
                                                         lane % 4 * 16 + (after & plan.zero));
      v[0] = from[0], v[1] = from[1];
    }
    x[0] = v[0].x, x[1] = v[0].y, x[2] = v[0].z, x[3] = v[0].w;
    x[4] = v[1].x, x[5] = v[1].y, x[6] = v[1].z, x[7] = v[1].w;
  }
  /// rmsNorm of the row, whose chunk is in x; the same bits as norm.cu's, whose threads take 8 values each and whose
  /// warps 256.
  __device__ void normalize(uint32_t (&x)[8]) const {
    const int at = share * (kChunkSteps * 128) + lane * 16;
    const uint4* from = reinterpret_cast<const uint4*>(static_cast<const T*>(p.norm.weight) + at);
    const uint4 loaded[2] = {from[0], from[1]};
    T* values = reinterpret_cast<T*>(x);
    float sum[2] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < 16; ++i) sum[i / 8] = fmaf(to_float(values[i]), to_float(values[i]), sum[i / 8]);
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) {
      sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], o);
      sum[1] += __shfl_xor_sync(0xffffffffu, sum[1], o);
    }
    float* partial = sums(0, 0);  // not in use yet
    if (side == 0 && lane % 16 == 0) partial[share * 2 + lane / 16] = sum[0] + sum[1];
    __syncthreads();
    const float square = warp_reduce<Sum>(lane < 2 << plan.split_shift ? partial[lane] : 0.f) / static_cast<float>(p.k);
    const float scale = 1.f / sqrtf(square + p.norm.eps);
    const T* weights = reinterpret_cast<const T*>(loaded);
#pragma unroll
    for (int i = 0; i < 16; ++i)
      values[i] = from_float<T>(fmaf(to_float(values[i]) * scale, to_float(weights[i]) + p.norm.offset, 0.f));
    if (blockIdx.x == 0 && side == 0) {
      uint4* to = reinterpret_cast<uint4*>(static_cast<T*>(p.norm.out) + at);
      to[0] = make_uint4(x[0], x[1], x[2], x[3]);
      to[1] = make_uint4(x[4], x[5], x[6], x[7]);
    }
    __syncthreads();
  }
  /// Waits for x.
  __device__ __forceinline__ void settle(uint32_t (&x)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] ^= plan.zero;
  }

  /// 16 rows times one block: column j of d is the sum with the block of column j.
  __device__ __forceinline__ void multiply(uint2 w0, uint2 w1, const uint32_t (&x)[8], float (&d)[4]) const {
    uint32_t a[4][4];
    look_up_codes(a, shared, w0, w1, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) mma<T>(d, a[i], x[2 * i], x[2 * i + 1]);
  }

  /// Adds the warps' sums and stores the outputs of the group. A thread has slot threadIdx % 16 of every 32nd tile;
  /// `residual` is that of the first.
  __device__ void finish(float residual) const {
    const float scale = 1.f / code_scale<T>(p.quant_type);
    const int r = threadIdx.x % 16;
    for (int tile = threadIdx.x / 16; tile < plan.tiles; tile += kRowThreads / 16) {
      if (r >= rows_in(tile)) return;
      const int row = begin + tile * plan.tile_rows + r;
      const auto output = [&](int slot, int of) {
        float y = 0.f;
#pragma unroll
        for (int w = 0; w < kMostShares; ++w)
          if (w < 1 << plan.split_shift) y += sums(tile, w)[slot];
        return with_bias(p.part[of], row, y * scale);
      };
      float y = activate(p.activation, output(r, part));
      if (p.gated) y *= output(r + 8, 1);
      if (tile >= kRowThreads / 16) residual = load_residual(tile);
      static_cast<T*>(p.out)[column_of(row)] = from_float<T>(y + residual);
    }
  }
  __device__ float load_residual(int tile) const {
    const int r = threadIdx.x % 16;
    if (!p.residual || tile >= plan.tiles || r >= rows_in(tile)) return 0.f;
    return to_float(static_cast<const T*>(p.residual)[column_of(begin + tile * plan.tile_rows + r)]);
  }

  __device__ void run() {
    const int t = lane % 4, g = lane / 4, second = this->second_block();
    pdl_trigger();
    this->copy_nested();
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) {
      enter(group);
      // The first weights are on their way while shared memory is set up and earlier kernels end (launch.h), the others
      // follow x.
      Copies copies = this->start_copies();
      this->template issue_steps<0, TableRing<kRowWarps>::kEarlySteps>(copies);
      Absmax coming{};
      int block = this->first_block();
      this->load_absmax(coming, {0, side}, block);
      if (group == blockIdx.x) {
        if (p.norm.weight && side == 0)
          prefetch_l2(static_cast<const T*>(p.norm.weight) + share * (kChunkSteps * 128) + lane * 16);
        this->set_up();
      }
      float of_low[2], of_high[2];  // absmax of this visit
      const auto take_absmax = [&] {
        decode_absmax(coming, of_low, of_high);
        return __float_as_uint(of_low[0]) | __float_as_uint(of_low[1]) | __float_as_uint(of_high[0]) |
               __float_as_uint(of_high[1]);
      };
      uint32_t after = 0;
      if constexpr (!Nested) after = take_absmax();
      if (group == blockIdx.x) pdl_wait();
      uint32_t x[8];
      load_x(0, after, x);
      this->template issue_steps<TableRing<kRowWarps>::kEarlySteps, kStages - 1>(copies);
      if (p.norm.weight && group == blockIdx.x) normalize(x);
      const float residual = load_residual(threadIdx.x / 16);
      int from = this->stage_start();
#pragma unroll 1
      for (int chunk = 0; chunk * kChunkSteps < steps; ++chunk) {
        const int count = steps_in(chunk);
#pragma unroll 1
        for (int tile = side; tile < plan.tiles; tile += sides) {
          float low = 0.f, high = 0.f;
          const auto multiply_step = [&](int step, auto first_of_visit) {
            async_wait<kStages - 2>();
            __syncwarp();
            const auto codes = [&](int at) { return *reinterpret_cast<const uint2*>(shared + from + at); };
            const uint2 a0 = codes(0), a1 = codes(row_offset(8)), b0 = codes(second),
                        b1 = codes(second + row_offset(8));
            issue(copies);
            float a[4] = {}, b[4] = {};
            if constexpr (first_of_visit.value) settle(x);
            multiply(a0, a1, x, a);
            multiply(b0, b1, x, b);
            if constexpr (Nested && first_of_visit.value) take_absmax();
            next_stage(from);
            if (step == t) {
              low = fmaf(of_low[0], a[0], low), high = fmaf(of_high[0], a[2], high);
              low = fmaf(of_low[1], b[1], low), high = fmaf(of_high[1], b[3], high);
            }
          };
          multiply_step(0, std::true_type{});
          this->load_next_absmax(coming, {chunk, tile}, block);
#pragma unroll
          for (int step = 1; step < kChunkSteps; ++step) {
            if (step >= count) break;
            multiply_step(step, std::false_type{});
          }
          if constexpr (!Nested) after = take_absmax();
          const bool last = tile + sides >= plan.tiles && (chunk + 1) * kChunkSteps < steps;
          if (last) load_x(chunk + 1, after, x);
          low += __shfl_xor_sync(0xffffffffu, low, 1), high += __shfl_xor_sync(0xffffffffu, high, 1);
          low += __shfl_xor_sync(0xffffffffu, low, 2), high += __shfl_xor_sync(0xffffffffu, high, 2);
          if (t == 0) {
            float* to = sums(tile, share) + g;
            if (chunk > 0) low += to[0], high += to[8];
            to[0] = low, to[8] = high;
          }
        }
      }
      if (steps == 0) {
        for (int tile = side; tile < plan.tiles; tile += sides)
          if (t == 0) sums(tile, share)[g] = sums(tile, share)[g + 8] = 0.f;
      }
      __syncthreads();
      finish(residual);
      if (group + gridDim.x < plan.groups) __syncthreads();
    }
  }
};

template <class T, bool Nested>
__global__ void __launch_bounds__(kRowThreads, 2)
    row4_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ RowPlan plan) {
  extern __shared__ __align__(128) uint8_t shared[];
  RowKernel<T, Nested>(p, plan, shared).run();
}

}  // namespace q::cuda
