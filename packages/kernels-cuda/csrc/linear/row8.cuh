// row8_linear: out = epilogue(x W^T) for 1 to 16 rows of x and int8 weights (LLM.int8); decode
// maths   int8 tensor cores with W as the 16-row operand and x as one or two of 8 columns, i32 sums. x is quantized
//         here: absmax, codes and outliers as quantize_block.cuh. Outliers are multiplied as integers of three digits
//         of 8 bits, exactly: for one row the digits are columns of the same operand, for several they are multiplied
//         in the steps that have any (as columns: at 2 rows 1 us less, at 4 rows 1 us more, at others 0.2 us more).
// layout  row_walk.cuh; up to 16 warps share k. x of 256 values stays in registers over all tiles of a group; the warps
//         add what they have to one sum in shared memory, in any order, since integers are exact. The first blocks
//         quantize a row of x each, for all blocks (meet.cuh); a single row is quantized by every block for itself.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 10.5 us
// launch  one block of 512 threads a multiprocessor, which reads the codes of x, 64 KB at 16 rows of 4096, once. Up to
//         7 steps of W, 112 KB, are copied while x is quantized
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 1, 2, 4, 8, 16 rows 12.5, 13.5, 13.8, 14.3, 15.3 (10.5), with
//         8 columns of outliers
//         13.3, 15.8, 16.0, 16.6, 23.3; 22016 x 4096 1, 16 rows 22.7, 27.0 (21.0); 28672 x 8192 1, 16 rows 57.8, 62.7
//         (54.7). From the end of the kernel before it until all blocks know x takes 3 us at 16 rows: x from the L2,
//         its codes and the count of rows to the L2 and back
// norm    of x first, if asked, by who quantizes a row (k to 8192): one launch less, twice a layer
// needs   sm_80, k % 64 == 0, k >= 256, 16-byte aligned x and W
// exact   the same bits each run, whatever the other rows hold and however many there are; without outliers the same
//         bits as stream.cuh; the norm's as norm.cu's
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "meet.cuh"
#include "quantize_block.cuh"
#include "row_walk.cuh"

namespace q::cuda {

template <int Stages>
struct PlainRing : PlainRingShape<Stages> {
  using PlainRingShape<Stages>::kStageBytes;
  using PlainRingShape<Stages>::kWarpBytes;
  static __device__ int start(int warp) { return warp * kWarpBytes; }
  static __device__ __forceinline__ int next(int at, int warp) {
    at += kStageBytes;
    return at < (warp + 1) * kWarpBytes ? at : at - kWarpBytes;
  }
  static __device__ __forceinline__ int row_offset(int r) { return r * kStepBytes; }
  static __device__ __forceinline__ int piece(int, int i) { return i; }
};

constexpr int kInFlight = 2;  // steps of a warp whose copies are on their way while blocks meet

/// How x is quantized.
struct QuantizeX {
  float threshold;    // 0: no outliers
  uint8_t* rows;      // where all blocks find the rows (BlockRows); null: every block quantizes the only row for itself
  unsigned* arrived;  // two zeros: rows that are quantized, blocks that leave; left as zeros
};

/// Stages: of the ring.
template <class T, int Columns, bool Own, int Stages>
struct Row8Kernel : RowWalk<Row8Shape<Columns, Own>::kWarps, PlainRing<Stages>, Row8Shape<Columns, Own>::kChunkSteps> {
  using Shape = Row8Shape<Columns, Own>;
  using Ring = PlainRing<Stages>;
  using Walk = RowWalk<Shape::kWarps, Ring, Shape::kChunkSteps>;
  using typename Walk::Copies;
  using Walk::begin;
  using Walk::enter;
  using Walk::first;
  using Walk::issue;
  using Walk::kStages;
  using Walk::kThreads;
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

  using Rows = BlockRows<T, kThreads, Own ? 1 : kRow8Most>;
  using Operands = uint32_t[Shape::kChunkSteps][Columns][4];

  // Shared memory behind the ring: of all tiles the sums, then absmax of W; then what kRow8RowsAt says.
  static constexpr int kRowsAt = kRow8RowsAt<Own>;
  static __device__ int normed_bytes(const LinearProblem& p) { return row8_normed_bytes<Own>(p.k, p.norm.weight); }
  /// Of a tile: of the codes (0), or of an outlier's digit (1 to 3).
  __device__ __forceinline__ int* sums(int tile, int digit = 0) const {
    return reinterpret_cast<int*>(shared + plan.sums + tile * Shape::kSumsBytes) + digit * Shape::kTileSums;
  }
  __device__ __forceinline__ float* weight_absmax(int tile) const {
    return reinterpret_cast<float*>(sums(plan.tiles)) + tile * 16;
  }
  __device__ __forceinline__ float* row_absmax() const {
    return reinterpret_cast<float*>(shared + plan.tables + Rows::kScratchBytes);
  }
  __device__ __forceinline__ float* row_unit() const { return row_absmax() + kRow8Most; }
  __device__ __forceinline__ Rows rows_of_x(const QuantizeX& q) const {
    uint8_t* scratch = shared + plan.tables;
    return {Own ? scratch + kRowsAt + normed_bytes(p) : q.rows, reinterpret_cast<uint32_t*>(scratch),
            static_cast<int>(p.k)};
  }
  /// Where what a norm gives is read again.
  __device__ __forceinline__ T* normed() const {
    return reinterpret_cast<T*>(Own ? shared + plan.tables + kRowsAt : static_cast<uint8_t*>(p.norm.out));
  }

  /// absmax of the group's rows of W: a thread's, on its way.
  __device__ float load_weight_absmax() const {
    const int tile = threadIdx.x / 16, r = threadIdx.x % 16, in_tile = p.gated ? r % 8 : r;
    if (tile >= plan.tiles || in_tile >= rows_in(tile)) return 0.f;
    return __ldg(static_cast<const float*>(p.part[p.gated ? r / 8 : part].absmax) + begin + tile * plan.tile_rows +
                 in_tile);
  }
  /// Sums start at 0.
  __device__ void start_group(float weight_absmax_of_thread) const {
    for (int i = threadIdx.x; i < plan.tiles * Shape::kSumsBytes / 16; i += kThreads)
      reinterpret_cast<int4*>(sums(0))[i] = make_int4(0, 0, 0, 0);
    if (threadIdx.x < plan.tiles * 16) weight_absmax(0)[threadIdx.x] = weight_absmax_of_thread;
  }

  /// x of a chunk as the second operand: column lane / 4 of tile j is row j * 8 + lane / 4. The only row: columns 1 to
  /// 3 are its outliers' digits, if asked.
  template <bool WithDigits>
  __device__ __forceinline__ void load_x(const Rows& rows, int chunk, Operands& x) const {
    const int count = steps_in(chunk), at = (first + chunk * Shape::kChunkSteps) * 64 + lane % 4 * 16;
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      const int m = j * 8 + lane / 4;
      const int8_t* row = Own ? m == 0 ? rows.codes(0) : rows.digits(m - 1, 0) : rows.codes(m);
#pragma unroll
      for (int i = 0; i < Shape::kChunkSteps; ++i) {
        const uint4 v = m < (WithDigits ? 1 + Rows::kDigits : p.rows) && i < count
                            ? *reinterpret_cast<const uint4*>(row + at + i * 64)
                            : make_uint4(0, 0, 0, 0);
        x[i][j][0] = v.x, x[i][j][1] = v.y, x[i][j][2] = v.z, x[i][j][3] = v.w;
      }
    }
  }
  /// Adds to a tile's sums of the codes (0), or of a digit (1 to 3).
  __device__ __forceinline__ void add(int tile, int digit, const int (&c)[Columns][4]) const {
#pragma unroll
    for (int j = 0; j < Columns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) atomicAdd(sums(tile, digit) + (j * 4 + e) * 32 + lane, c[j][e]);
  }

  /// Of each step of a chunk, which rows of x have outliers there, a bit each.
  struct Flags {
    uint32_t rows[Shape::kChunkSteps];
    __device__ __forceinline__ bool any() const {
      uint32_t all = 0;
#pragma unroll
      for (int i = 0; i < Shape::kChunkSteps; ++i) all |= rows[i];
      return all != 0;
    }
  };
  __device__ __forceinline__ Flags load_flags(const Rows& rows, int chunk) const {
    Flags f;
    const bool has = lane < p.rows && row_unit()[lane % kRow8Most] != 0.f;  // also if it is not a number
#pragma unroll
    for (int i = 0; i < Shape::kChunkSteps; ++i)
      f.rows[i] = __ballot_sync(0xffffffffu,
                                has && i < steps_in(chunk) && rows.flags(lane)[first + chunk * Shape::kChunkSteps + i]);
    return f;
  }
  using DigitSums = int[Rows::kDigits][Columns][4];
  /// Adds a step of W times a digit of the outliers of some rows.
  __device__ __forceinline__ void multiply_digit(const Rows& rows, uint32_t of_rows, int digit, int step,
                                                 const uint32_t (&a)[2][4], int (&c)[Columns][4]) const {
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      const int m = j * 8 + lane / 4;
      const uint4 v = of_rows >> m & 1
                          ? *reinterpret_cast<const uint4*>(rows.digits(digit, m) + step * 64 + lane % 4 * 16)
                          : make_uint4(0, 0, 0, 0);
      mma_int8(c[j], a[0], v.x, v.y);
      mma_int8(c[j], a[1], v.z, v.w);
    }
  }
  /// All digits of them, to `kept` or to the tile's sums.
  __device__ __forceinline__ void multiply_outliers(const Rows& rows, uint32_t of_rows, int step, int tile,
                                                    const uint32_t (&a)[2][4], DigitSums& kept) const {
    if constexpr (Shape::kKeepDigits) {
#pragma unroll
      for (int digit = 0; digit < Rows::kDigits; ++digit) multiply_digit(rows, of_rows, digit, step, a, kept[digit]);
    } else {
#pragma unroll 1
      for (int digit = 0; digit < Rows::kDigits; ++digit) {
        int c[Columns][4] = {};
        multiply_digit(rows, of_rows, digit, step, a, c);
        add(tile, 1 + digit, c);
      }
    }
  }

  /// From the start of a stage to what this lane reads.
  __device__ __forceinline__ int stage_lane() const { return row_offset(lane / 4) + lane % 4 * 16; }
  /// A tile times a chunk of x; also(step, a): what else is done with a step of W.
  template <class Also>
  __device__ __forceinline__ void visit(int chunk, int tile, int& from, Copies& copies, const Operands& x,
                                        Also also) const {
    const int count = steps_in(chunk);
    int c[Columns][4] = {};
#pragma unroll
    for (int step = 0; step < Shape::kChunkSteps; ++step) {
      if (step >= count) break;
      async_wait<kStages - 2>();
      __syncwarp();
      const uint4 low = *reinterpret_cast<const uint4*>(shared + from),
                  high = *reinterpret_cast<const uint4*>(shared + from + row_offset(8));
      issue(copies);
      const uint32_t a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < Columns; ++j) mma_int8(c[j], a[i], x[step][j][2 * i], x[step][j][2 * i + 1]);
      also(step, a);
      next_stage(from);
    }
    add(tile, 0, c);
  }
  /// The group times x, whose first chunk is in registers. Twice in the kernel's code: without outliers, which is
  /// usual, no instruction of theirs lies in between.
  template <bool WithOutliers>
  __device__ __forceinline__ void multiply(const Rows& rows, Operands& x, Copies& copies) const {
    constexpr bool kApart = WithOutliers && !Own;
    int from = this->ring() + stage_lane();
#pragma unroll 1
    for (int chunk = 0; chunk * Shape::kChunkSteps < plan.steps; ++chunk) {
      if (chunk > 0 || (WithOutliers && Own)) load_x<WithOutliers && Own>(rows, chunk, x);
      Flags flags = {};
      if constexpr (kApart) flags = load_flags(rows, chunk);
#pragma unroll 1
      for (int tile = side; tile < plan.tiles; tile += sides) {
        DigitSums kept = {};
        visit(chunk, tile, from, copies, x, [&](int step, const uint32_t (&a)[2][4]) {
          if constexpr (kApart)
            if (flags.rows[step])
              multiply_outliers(rows, flags.rows[step], first + chunk * Shape::kChunkSteps + step, tile, a, kept);
        });
        if (kApart && Shape::kKeepDigits && flags.any())
#pragma unroll
          for (int digit = 0; digit < Rows::kDigits; ++digit) add(tile, 1 + digit, kept[digit]);
      }
    }
    __syncthreads();
    this->template store_group<T>([&](int m, int tile, int slot) {
      const auto sum = [&](int digit) {
        const int column = Own ? digit : m;  // of the operand
        return sums(
            tile,
            Own ? 0
                : digit)[((column >> 3) * 4 + (column & 1) + (slot >> 3) * 2) * 32 + (slot & 7) * 4 + (column & 7) / 2];
      };
      const float absmax = weight_absmax(tile)[slot];
      float y = static_cast<float>(sum(0)) * (row_absmax()[m] * absmax * (1.f / (127.f * 127.f)));
      if constexpr (WithOutliers) {
        const int64_t units = (static_cast<int64_t>(sum(3)) << 16) + (static_cast<int64_t>(sum(2)) << 8) + sum(1);
        y += static_cast<float>(units) * (row_unit()[m] * absmax * (1.f / 127.f));
      }
      return y;
    });
  }

  __device__ void run(const QuantizeX& q) {
    pdl_trigger();
    const Rows rows_of_x = this->rows_of_x(q);
    bool with_outliers = false;
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) {
      enter(group);
      // The first weights are on their way while earlier kernels end (launch.h) and x is quantized. x waits behind
      // them: who quantizes starts with few.
      const float weight_absmax_of_thread = load_weight_absmax();
      Copies copies = this->start_copies();
      int issued = plan.early;
#pragma unroll 1
      for (int i = 0; i < issued; ++i) issue(copies);
      start_group(weight_absmax_of_thread);
      if (group == blockIdx.x) {
        if (Own || blockIdx.x < p.rows) Rows::prefetch(p.norm, static_cast<int>(p.k));
        pdl_wait();
        if constexpr (Own) {
          rows_of_x.quantize(static_cast<const T*>(p.x), 0, q.threshold, p.norm, normed(),
                             blockIdx.x == 0 ? static_cast<T*>(p.norm.out) : nullptr);
          __syncthreads();
        } else {
#pragma unroll 1
          for (int row = blockIdx.x; row < p.rows; row += gridDim.x) {
            rows_of_x.quantize(static_cast<const T*>(p.x), row, q.threshold, p.norm, normed() + row * p.k, nullptr);
            arrive(q.arrived);
          }
          // As one copy ends another starts: with more at once what is waited for would come late.
#pragma unroll 1
          for (; issued < kStages - 1; ++issued) {
            async_wait<kInFlight - 1>();
            issue(copies);
          }
          pass(q.arrived, p.rows);
        }
      }
      Operands x;
      load_x<false>(rows_of_x, 0, x);
      bool any = with_outliers;
      if (group == blockIdx.x && threadIdx.x < p.rows) {
        row_absmax()[threadIdx.x] = rows_of_x.absmax(threadIdx.x);
        any = (row_unit()[threadIdx.x] = rows_of_x.unit(threadIdx.x)) != 0.f;
      }
#pragma unroll 1
      for (; issued < kStages - 1; ++issued) issue(copies);
      with_outliers = __syncthreads_or(any);
      if (!with_outliers)
        multiply<false>(rows_of_x, x, copies);
      else
        multiply<true>(rows_of_x, x, copies);
      if (group + gridDim.x < plan.groups) __syncthreads();
    }
    if (!Own) leave(q.arrived, q.arrived + 1);
  }
};

template <class T, int Columns, bool Own, int Stages>
__global__ void __launch_bounds__(Row8Shape<Columns, Own>::kThreads, 1)
    row8_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ RowPlan plan,
                const __grid_constant__ QuantizeX quantize) {
  extern __shared__ __align__(128) uint8_t shared[];
  Row8Kernel<T, Columns, Own, Stages>(p, plan, shared).run(quantize);
}

}  // namespace q::cuda
