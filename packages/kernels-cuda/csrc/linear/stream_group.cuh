// The tiles of one group of virtual rows of the streaming kernel (stream.cuh).
#pragma once
#include "code_table.cuh"
#include "stream_shape.h"

namespace q::cuda {

struct StreamGroup {
  int begin, rows, tile_rows, tiles;
  __device__ StreamGroup(const StreamPlan& plan, int group) {
    begin = group * plan.group_rows;
    rows = min(plan.group_rows, plan.virtual_rows - begin);
    tile_rows = plan.tile_rows;
    tiles = rows == plan.group_rows ? plan.tiles : (rows + tile_rows - 1) / tile_rows;
  }
  /// Part and row of slot r (0..15) of a tile; false: the slot is empty.
  __device__ __forceinline__ bool locate(const LinearProblem& p, int tile, int r, int& part, int& row) const {
    const int n = min(tile_rows, rows - tile * tile_rows), v = begin + tile * tile_rows;
    if (p.gated) {
      part = r >> 3;
      row = (v >> 1) + (r & 7);
      return (r & 7) < (n >> 1);
    }
    part = 0;
    row = v + r;
    if (p.parts > 1) {
#pragma unroll
      for (int i = 1; i < kMaxRepeat; ++i) part += i < p.parts && v + r >= p.part[i].first;
      row -= p.part[part].first;
    }
    return r < n;
  }
};

}  // namespace q::cuda
