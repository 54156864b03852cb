// How a block of the kernels for few rows of x (row4.cuh, batch4.cuh, row8.cuh) goes through W: how rows and k are cut,
// and each warp's copies into its ring.
#pragma once
#include "launch.h"
#include "problem.h"
#include "ptx.cuh"
#include "row_layout.h"

namespace q::cuda {

/// The plan of a launch for these weights.
inline RowPlan plan_of(const LinearProblem& p, const RowLaunch& launch) {
  RowPlan plan = launch.plan;
  if (p.gated) plan.high = p.part[1].weight - p.part[0].weight;
  return plan;
}

/// Warps: of a block, 8 (two blocks a multiprocessor) or 16. Ring: of kStages steps of kStepValues of a row each, a
/// warp's own. ChunkSteps: steps whose x is in registers at once, all tiles long.
template <int Warps, class Ring, int ChunkSteps>
struct RowWalk {
  static constexpr int kThreads = Warps * 32, kStages = Ring::kStages;
  const LinearProblem& p;
  const RowPlan& plan;
  uint8_t* shared;
  uint32_t base;  // the same as an address of shared memory
  int warp, lane;
  int side, sides, share;  // of this warp: which tiles and which part of k
  int first, steps;        // this warp's steps along k
  int part, begin, rows;   // of the group: its part, first row and number of rows (gated: pairs)

  __device__ RowWalk(const LinearProblem& p, const RowPlan& plan, uint8_t* shared)
      : p(p), plan(plan), shared(shared), base(shared_address(shared)) {
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));  // kept in a register: reading the thread index is slow
    warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0);
    sides = Warps >> plan.split_shift, side = warp >> plan.split_shift, share = warp & ((1 << plan.split_shift) - 1);
    first = share * plan.steps;
    steps = max(0, min(plan.steps, static_cast<int>(static_cast<uint32_t>(p.k) / Ring::kStepValues) - first));
  }

  __device__ int ring() const { return Ring::start(warp); }
  static __device__ __forceinline__ int row_offset(int r) { return Ring::row_offset(r); }
  /// From a place in one stage to the same in the next.
  __device__ __forceinline__ void next_stage(int& at) const { at = Ring::next(at, warp); }

  __device__ void enter(int group) {
    part = (group >= plan.part[1].begin) + (group >= plan.part[2].begin) + (group >= plan.part[3].begin);
    const RowPart& of = plan.part[part];
    const int in_part = group - of.begin;
    begin = in_part * of.rows + min(in_part, of.larger);
    rows = of.rows + (in_part < of.larger);
  }
  __device__ __forceinline__ int rows_in(int tile) const { return min(plan.tile_rows, rows - tile * plan.tile_rows); }
  /// Whether a tile has this lane's rows lane / 4 and lane / 4 + 8.
  __device__ __forceinline__ bool has_low(int tile) const { return lane / 4 < rows_in(tile); }
  __device__ __forceinline__ bool has_high(int tile) const { return lane / 4 + (p.gated ? 0 : 8) < rows_in(tile); }
  __device__ __forceinline__ int steps_in(int chunk) const { return min(ChunkSteps, steps - chunk * ChunkSteps); }

  /// Where a warp is on its way through the group: all tiles of a chunk, then the next chunk.
  struct Visit {
    int chunk, tile;
  };
  /// Goes on; true: to the next chunk.
  __device__ __forceinline__ bool next(Visit& v) const {
    v.tile += sides;
    if (v.tile < plan.tiles) return false;
    v.tile = side, ++v.chunk;
    return true;
  }

  /// Where the copies are: 16 bytes of a tile's row lane / 4; its row 8 further is plan.high away.
  struct Copies {
    const uint8_t* from;
    int to;  // in shared memory
    Visit at;
    int left;  // steps of this visit that are not copied yet
    bool low, high;
  };
  __device__ Copies start_copies() const {
    Copies c;
    c.from = p.part[part].weight + (begin + side * plan.tile_rows + lane / 4) * plan.pitch +
             (first * kStepBytes + lane % 4 * 16);
    c.to = ring() + row_offset(lane / 4) + Ring::piece(lane / 4, lane % 4) * 16;
    c.at = {0, side};
    c.left = steps_in(0);
    c.low = has_low(side) && steps > 0, c.high = has_high(side) && steps > 0;
    return c;
  }
  /// Starts the copies of the next step; past the end an empty group, so that waits count on.
  __device__ __forceinline__ void issue(Copies& c) const {
    if (c.low) async_copy<16>(base + c.to, c.from);
    if (c.high) async_copy<16>(base + c.to + row_offset(8), c.from + plan.high);
    async_commit();
    next_stage(c.to);
    c.from += kStepBytes;
    if (--c.left == 0) {
      const int done = steps_in(c.at.chunk) * kStepBytes;
      c.from += plan.next_tile - done;
      if (next(c.at)) c.from += done - plan.group_bytes;
      const bool more = c.at.chunk * ChunkSteps < steps;
      c.left = more ? steps_in(c.at.chunk) : INT_MAX;
      c.low = more && has_low(c.at.tile), c.high = more && has_high(c.at.tile);
    }
  }
  template <int From, int To>
  __device__ __forceinline__ void issue_steps(Copies& c) const {
#pragma unroll 1
    for (int i = From; i < To; ++i) issue(c);
  }

  __device__ int64_t column_of(int row) const { return p.gated ? row : p.part[part].first + row; }

  /// Stores the outputs of the group for several rows of x; sum(m, tile, slot): of row m of x and slot 0..15 of a tile,
  /// before bias. A thread has slot threadIdx % 16 of tiles and a row of x.
  template <class T, class Sum>
  __device__ __forceinline__ void store_group(Sum sum) const {
    const int r = threadIdx.x % 16, rows_shift = 32 - __clz(p.rows - 1), m = threadIdx.x / 16 & ((1 << rows_shift) - 1);
    if (m >= p.rows) return;
    const LinearPartView &low = p.part[part], &high = p.part[1];
    const void *bias = low.bias, *high_bias = high.bias;
    const DType bias_dtype = low.bias_dtype, high_bias_dtype = high.bias_dtype;
    const int64_t at = m * p.columns + column_of(begin) + r;
    T* out = static_cast<T*>(p.out) + at;
    const T* residual = p.residual ? static_cast<const T*>(p.residual) + at : nullptr;
    for (int tile = threadIdx.x / 16 >> rows_shift; tile < plan.tiles; tile += kThreads / 16 >> rows_shift) {
      if (r >= rows_in(tile)) return;
      const int row = tile * plan.tile_rows;
      float y = sum(m, tile, r);
      if (bias) y += load_float(bias, bias_dtype, begin + row + r);
      y = activate(p.activation, y);
      if (p.gated) {
        float up = sum(m, tile, r + 8);
        if (high_bias) up += load_float(high_bias, high_bias_dtype, begin + row + r);
        y *= up;
      }
      if (residual) y += to_float(residual[row]);
      out[row] = from_float<T>(y);
    }
  }
};

}  // namespace q::cuda
