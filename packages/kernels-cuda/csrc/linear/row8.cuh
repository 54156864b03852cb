// row8_linear: out = epilogue(x W^T) for 1 to 16 rows of x and int8 weights (LLM.int8)                                  decode
// maths   int8 tensor cores with W as the 16-row operand and x as one or two of 8 columns, i32 sums. x is quantized here: absmax, codes and outliers as
//         quantize_block.cuh. What x's outliers give is added in f32 (outlier_columns.cuh).
// layout  row_walk.cuh; up to 16 warps share k. x of 256 values stays in registers over all tiles of a group; the warps add what they have to one sum in shared
//         memory, in any order, since integers are exact. The first blocks quantize a row of x each, for all blocks (meet.cuh); a single row is quantized by
//         every block for itself.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 10.5 us
// launch  one block of 512 threads a multiprocessor, which reads the codes of x, 64 KB at 16 rows of 4096, once. Up to 7 steps of W, 112 KB, are copied while x is
//         quantized
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 1, 2, 4, 8, 16 rows 12.5, 13.5, 13.6, 14.1, 15.2 (10.5), 1, 4, 16 rows with one outlier in 667 values
//         16.4, 18.9, 27.5; 22016 x 4096 1, 16 rows 22.7, 26.9 (21.0); 28672 x 8192 1, 16 rows 57.9, 62.6 (54.7). From the end of the kernel before it until all
//         blocks know x takes 3 us at 16 rows: x from the L2, its codes and the count of rows to the L2 and back
// norm    of x first, if asked, by who quantizes a row (k to 8192): one launch less, twice a layer
// needs   sm_80, k % 64 == 0, k >= 256, 16-byte aligned x and W
// exact   the same bits each run, whatever the other rows hold and however many there are; without outliers the same bits as stream.cuh; the norm's as norm.cu's
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "meet.cuh"
#include "outlier_columns.cuh"
#include "quantize_block.cuh"
#include "row_walk.cuh"

namespace q::cuda {

template <int Stages> struct PlainRing {
  static constexpr int kStepValues = 64;
  static constexpr int kStages = Stages, kStageBytes = 1024, kWarpBytes = kStages * kStageBytes;
  static __device__ int start(int warp) { return warp * kWarpBytes; }
  static __device__ __forceinline__ int next(int at, int warp) {
    at += kStageBytes;
    return at < (warp + 1) * kWarpBytes ? at : at - kWarpBytes;
  }
  static __device__ __forceinline__ int row_offset(int r) { return r * kStepBytes; }
  static __device__ __forceinline__ int piece(int, int i) { return i; }
};

constexpr int kRow8Most = 16;  // rows of x
constexpr int kInFlight = 2;   // steps of a warp whose copies are on their way while blocks meet
/// Columns: of 8 rows of x, 1 or 2.
template <int Columns> struct Row8Shape {
  static constexpr int kWarps = 16, kThreads = kWarps * 32;
  static constexpr int kChunkSteps = 4;  // whose x takes 16 registers for each 8 rows
  static constexpr int kSumsBytes = Columns * 512;  // of a tile: a lane's 4 for each 8 columns
  static constexpr int kMostTiles = kThreads / 16;  // of a group: a thread brings absmax of a row of W
  static constexpr int kTileBytes = kSumsBytes + 64;  // and absmax of W's rows, f32 [16]
};

/// How x is quantized.
struct QuantizeX {
  float threshold;    // 0: no outliers
  uint8_t* rows;      // where all blocks find the rows (BlockRows); null: every block quantizes the only row for itself
  unsigned* arrived;  // two zeros: rows that are quantized, blocks that leave; left as zeros
  int kept;           // columns of outliers that shared memory has room for (OutlierColumns)
};

/// Own: every block quantizes the only row of x for itself. Stages: of the ring.
template <class T, int Columns, bool Own, int Stages> struct Row8Kernel : RowWalk<Row8Shape<Columns>::kWarps, PlainRing<Stages>, Row8Shape<Columns>::kChunkSteps> {
  using Shape = Row8Shape<Columns>;
  using Ring = PlainRing<Stages>;
  using Walk = RowWalk<Shape::kWarps, Ring, Shape::kChunkSteps>;
  using Walk::Walk;
  using Walk::kStages;
  using Walk::kThreads;
  using typename Walk::Copies;
  using Walk::begin;
  using Walk::enter;
  using Walk::first;
  using Walk::issue;
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

  using Rows = BlockRows<T, kThreads, Own ? 1 : kRow8Most>;
  using Outliers = OutlierColumns<T, kThreads, Own ? 1 : Columns * 8>;
  using Operands = uint32_t[Shape::kChunkSteps][Columns][4];

  // Shared memory behind the ring: of all tiles the sums, then absmax of W; then scratch, absmax of x's rows, a row that is the block's
  // own, as codes and as the norm gave it, and outliers. The outliers' sums take the ring's place when it is done.
  static constexpr int kRowsAt = Rows::kScratchBytes + kRow8Most * 4;
  static __host__ __device__ int normed_at(int k) { return kRowsAt + (Own ? Rows::bytes(k) : 0); }
  static __host__ __device__ int outliers_at(const LinearProblem& p) { return static_cast<int>(normed_at(p.k) + (Own && p.norm.weight ? p.k * sizeof(T) : 0)); }
  static __host__ __device__ int columns_at(const LinearProblem& p) { return outliers_at(p) + Outliers::table_bytes(static_cast<int>(p.k)); }
  __device__ __forceinline__ int* sums(int tile) const { return reinterpret_cast<int*>(shared + plan.sums + tile * Shape::kSumsBytes); }
  __device__ __forceinline__ float* outlier_sums() const { return reinterpret_cast<float*>(shared); }
  static_assert(kRow8Most * Shape::kMostTiles * 16 * sizeof(float) <= Shape::kWarps * Ring::kWarpBytes);
  __device__ __forceinline__ float* weight_absmax(int tile) const { return reinterpret_cast<float*>(sums(plan.tiles)) + tile * 16; }
  __device__ __forceinline__ float* row_absmax() const { return reinterpret_cast<float*>(shared + plan.tables + Rows::kScratchBytes); }
  __device__ __forceinline__ Rows rows_of_x(const QuantizeX& q) const {
    uint8_t* scratch = shared + plan.tables;
    return {Own ? scratch + kRowsAt : q.rows, reinterpret_cast<uint32_t*>(scratch), static_cast<int>(p.k)};
  }
  __device__ __forceinline__ Outliers outliers(const QuantizeX& q) const {
    return {shared + plan.tables + outliers_at(p), outlier_sums(), static_cast<int>(p.k), p.rows, plan.tiles * 16, q.kept};
  }
  /// Where what a norm gives is read again.
  __device__ __forceinline__ T* normed() const { return Own ? reinterpret_cast<T*>(shared + plan.tables + normed_at(static_cast<int>(p.k))) : static_cast<T*>(p.norm.out); }
  __device__ __forceinline__ const T* multiplied() const { return p.norm.weight ? normed() : static_cast<const T*>(p.x); }

  /// absmax of the group's rows of W: a thread's, on its way.
  __device__ float load_weight_absmax() const {
    const int tile = threadIdx.x / 16, r = threadIdx.x % 16, in_tile = p.gated ? r % 8 : r;
    if (tile >= plan.tiles || in_tile >= rows_in(tile)) return 0.f;
    return __ldg(static_cast<const float*>(p.part[p.gated ? r / 8 : part].absmax) + begin + tile * plan.tile_rows + in_tile);
  }
  /// Sums start at 0.
  __device__ void start_group(float weight_absmax_of_thread) const {
    for (int i = threadIdx.x; i < plan.tiles * Shape::kSumsBytes / 16; i += kThreads) reinterpret_cast<int4*>(sums(0))[i] = make_int4(0, 0, 0, 0);
    if (threadIdx.x < plan.tiles * 16) weight_absmax(0)[threadIdx.x] = weight_absmax_of_thread;
  }

  /// x of a chunk as the second operand: column lane / 4 of tile j is row j * 8 + lane / 4.
  __device__ __forceinline__ void load_x(const int8_t* codes, int chunk, Operands& x) const {
    const int count = steps_in(chunk);
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      const int m = j * 8 + lane / 4;
      const uint4* from = reinterpret_cast<const uint4*>(codes + m * p.k + (first + chunk * Shape::kChunkSteps) * 64 + lane % 4 * 16);
#pragma unroll
      for (int i = 0; i < Shape::kChunkSteps; ++i) {
        const uint4 v = m < p.rows && i < count ? from[i * 4] : make_uint4(0, 0, 0, 0);
        x[i][j][0] = v.x, x[i][j][1] = v.y, x[i][j][2] = v.z, x[i][j][3] = v.w;
      }
    }
  }

  /// Row i of the group, 16 to a tile (gated: 8 and their up rows); null: the tile has fewer.
  __device__ __forceinline__ const int8_t* weight_row(int i) const {
    const int tile = i / 16, r = p.gated ? i % 8 : i % 16;
    if (r >= rows_in(tile)) return nullptr;
    return reinterpret_cast<const int8_t*>(p.part[p.gated ? i / 8 % 2 : part].weight + (begin + tile * plan.tile_rows + r) * plan.pitch);
  }
  /// Sums what the outliers give; those of the slices before `end` have been kept.
  template <class Mask> __device__ void add_outliers(const Outliers& outliers, Mask mask, int end) const {
    outliers.add(true, weight_absmax(0));
    __syncthreads();
    while (end < outliers.slices) {
      const int begin = end;
      end = outliers.end(begin);
      outliers.list(multiplied(), mask, begin, end);
      outliers.fetch(begin, end, [&](int i) { return weight_row(i); });
      __syncthreads();
      outliers.add(false, weight_absmax(0));
      __syncthreads();
    }
  }
  /// From the start of a stage to what this lane reads.
  __device__ __forceinline__ int stage_lane() const { return row_offset(lane / 4) + lane % 4 * 16; }
  /// A tile times a chunk of x; keep(step, stage): what else a stage is good for.
  template <class Keep> __device__ __forceinline__ void visit(int chunk, int tile, int& from, Copies& copies, const Operands& x, Keep keep) const {
    const int count = steps_in(chunk);
    int c[Columns][4] = {};
#pragma unroll
    for (int step = 0; step < Shape::kChunkSteps; ++step) {
      if (step >= count) break;
      async_wait<kStages - 2>();
      __syncwarp();
      const uint4 low = *reinterpret_cast<const uint4*>(shared + from), high = *reinterpret_cast<const uint4*>(shared + from + row_offset(8));
      issue(copies);
      const uint32_t a[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < Columns; ++j) mma_int8(c[j], a[i], x[step][j][2 * i], x[step][j][2 * i + 1]);
      keep(step, shared + from - stage_lane());
      next_stage(from);
    }
#pragma unroll
    for (int j = 0; j < Columns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) atomicAdd(sums(tile) + (j * 4 + e) * 32 + lane, c[j][e]);
  }
  /// The group times x. Twice in the kernel's code: without outliers, which is usual, no instruction of theirs lies in between.
  template <bool WithOutliers> __device__ __forceinline__ void multiply(const Rows& rows_of_x, Operands& x, Copies& copies, const QuantizeX& q, bool first_group) const {
    const Outliers outliers = this->outliers(q);
    const auto mask = [&](int m) { return reinterpret_cast<const uint32_t*>(rows_of_x.mask(m)); };
    int kept_end = 0;
    if constexpr (WithOutliers) {
      if (first_group) outliers.find(mask, reinterpret_cast<int*>(rows_of_x.largest));
      __syncthreads();
      kept_end = outliers.end(0);
      outliers.list(multiplied(), mask, 0, kept_end);
    }
    int from = this->ring() + stage_lane();
#pragma unroll 1
    for (int chunk = 0; chunk * Shape::kChunkSteps < plan.steps; ++chunk) {
      if (chunk > 0) load_x(rows_of_x.codes(), chunk, x);
      constexpr int kSlices = Ring::kStepValues / Outliers::kSlice;  // of a step
      const int slice = (first + chunk * Shape::kChunkSteps) * kSlices;
      unsigned kept = 0;  // a bit for each slice: it has columns to keep
      if constexpr (WithOutliers)
#pragma unroll 1
        for (int i = 0; i < min(steps_in(chunk) * kSlices, kept_end - slice); ++i) kept |= (outliers.any[slice + i] != 0) << i;
#pragma unroll 1
      for (int tile = side; tile < plan.tiles; tile += sides) {
        visit(chunk, tile, from, copies, x, [&](int step, const uint8_t* stage) {
          if constexpr (WithOutliers)
#pragma unroll 1
            for (int i = step * kSlices; i < (step + 1) * kSlices; ++i)
              if (kept >> i & 1) outliers.keep(slice + i, stage + i % kSlices * Outliers::kSlice, kStepBytes, tile * 16);
        });
      }
    }
    __syncthreads();
    if constexpr (WithOutliers) add_outliers(outliers, mask, kept_end);
    this->template store_group<T>([&](int m, int tile, int slot) {
      const int element = (m >> 3) * 4 + (m & 1) + (slot >> 3) * 2;
      const float y = static_cast<float>(sums(tile)[element * 32 + (slot & 7) * 4 + (m & 7) / 2]) * (row_absmax()[m] * weight_absmax(tile)[slot] * (1.f / (127.f * 127.f)));
      return WithOutliers ? y + outlier_sums()[(m * plan.tiles + tile) * 16 + slot] : y;
    });
  }

  __device__ void run(const QuantizeX& q) {
    pdl_trigger();
    const Rows rows_of_x = this->rows_of_x(q);
    bool with_outliers = false;
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) {
      enter(group);
      // The first weights are on their way while earlier kernels end (launch.h) and x is quantized. x waits behind them: who quantizes starts with few.
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
          rows_of_x.quantize(static_cast<const T*>(p.x), 0, q.threshold, p.norm, normed(), blockIdx.x == 0 ? static_cast<T*>(p.norm.out) : nullptr);
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
      load_x(rows_of_x.codes(), 0, x);
      bool any = with_outliers;
      if (group == blockIdx.x && threadIdx.x < p.rows) {
        row_absmax()[threadIdx.x] = rows_of_x.absmax(threadIdx.x);
        any = rows_of_x.has_outliers(threadIdx.x);
      }
#pragma unroll 1
      for (; issued < kStages - 1; ++issued) issue(copies);
      with_outliers = __syncthreads_or(any);
      if (!with_outliers)
        multiply<false>(rows_of_x, x, copies, q, group == blockIdx.x);
      else
        multiply<true>(rows_of_x, x, copies, q, group == blockIdx.x);
      if (group + gridDim.x < plan.groups) __syncthreads();
    }
    if (!Own) leave(q.arrived, q.arrived + 1);
  }
};

template <class T, int Columns, bool Own, int Stages>
__global__ void __launch_bounds__(Row8Shape<Columns>::kThreads, 1)
    row8_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ RowPlan plan, const __grid_constant__ QuantizeX quantize) {
  extern __shared__ __align__(128) uint8_t shared[];
  Row8Kernel<T, Columns, Own, Stages>(p, plan, shared).run(quantize);
}

}  // namespace q::cuda
