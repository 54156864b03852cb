// experts of many rows: the choices of each expert together, on tensor cores; prefill
// maths   y[choice] = W[expert] x[row]; tiles of 64 choices of one expert and 64 rows of W (gated: 32 of gate and the
//         32 of up that belong to them), k in steps of 64; 4-bit codes times absmax are rounded to T; f32 sums
// layout  plan_kernel sorts the choices by expert and lists the tiles, on the device: the grid is as large as the most
//         tiles that there can be, and blocks without one end. Shared rows of 72 values: no bank conflicts
// floor   2 choices k n flops, and the weights of the experts chosen once for every 64 of their choices
// launch  plan: one block of 1,024 threads; product: grid (tiles, n / 64), block 128, 18 KB of shared memory
// needs   sm_80, k and blocks of 64, x and W aligned to 16 bytes; dense W of dtype T
// exact   sums in a fixed order that depends on k only: same bits each run, whatever the other rows hold
// ref     tensor/src/reference/experts.ts
#include "experts.h"
#include "launch.h"
#include "mma.cuh"
#include "quant/codebook.h"

namespace q::cuda {
namespace {

constexpr int kTileRows = 64, kTileColumns = 64, kTileK = static_cast<int>(kExpertTileK), kLine = kTileK + 8;
constexpr int kThreads = 128, kPlanThreads = 1024, kMostGroups = 257;

__constant__ float kBooks[2][16] = {{kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8],
                                     kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
                                    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8],
                                     kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// A tile: choices order[first .. first + count) of an expert, -1: of none.
struct Tile {
  int expert, first, count;
};
struct Plan {
  int* order;   // [choices]
  Tile* tiles;  // at most most_tiles
  int* count;
};

/// Choices by expert. Their order within an expert is not fixed, and changes no result: a row of a tile is by itself.
__global__ void __launch_bounds__(kPlanThreads) plan_kernel(const __grid_constant__ ExpertProblem p, const Plan plan) {
  __shared__ int counts[kMostGroups], firsts[kMostGroups + 1], tiles[kMostGroups + 1], filled[kMostGroups];
  pdl_begin();
  const int64_t total = p.rows * p.choices;
  const int groups = p.experts + 1;  // the last: choices of none
  for (int g = threadIdx.x; g < groups; g += kPlanThreads) counts[g] = filled[g] = 0;
  __syncthreads();
  const auto group_of = [&](int64_t i) {
    const int expert = expert_of(p, i);
    return expert < 0 ? p.experts : expert;
  };
  for (int64_t i = threadIdx.x; i < total; i += kPlanThreads) {
    const int expert = p.chosen[i];
    if (expert < -1 || expert >= p.experts) report_error(p.error, Command::expertLinear, expert, p.experts);
    atomicAdd(&counts[group_of(i)], 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    firsts[0] = tiles[0] = 0;
    for (int g = 0; g < groups; ++g) {
      firsts[g + 1] = firsts[g] + counts[g];
      tiles[g + 1] = tiles[g] + (counts[g] + kTileRows - 1) / kTileRows;
    }
    *plan.count = tiles[groups];
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < total; i += kPlanThreads) {
    const int g = group_of(i);
    plan.order[firsts[g] + atomicAdd(&filled[g], 1)] = static_cast<int>(i);
  }
  for (int g = threadIdx.x; g < groups; g += kPlanThreads) {
    for (int t = tiles[g]; t < tiles[g + 1]; ++t) {
      const int first = firsts[g] + (t - tiles[g]) * kTileRows;
      plan.tiles[t] = {g < p.experts ? g : -1, first, min(kTileRows, firsts[g + 1] - first)};
    }
  }
}

/// Half a row of a tile of W, 32 values, on its way to shared memory.
template <class T>
struct HalfRow {
  uint4 data[4];  // dense: all; bnb4: the first, with absmax
  float absmax;
};

template <class T, int N>
struct Grouped {
  const ExpertProblem& p;
  const ExpertTable<N>& table;
  const float* book;
  T* x_tile;  // [64, kLine]
  T* w_tile;  // [64, kLine]
  const int* choices;
  int count, part;
  int64_t w_row;  // of this thread, -1: none

  __device__ __forceinline__ void fetch_x(int64_t k, uint4 (&data)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int piece = threadIdx.x + i * kThreads, row = piece >> 3;
      data[i] = make_uint4(0, 0, 0, 0);
      if (row >= count) continue;
      const int64_t x_row = p.scores ? choices[row] : choices[row] / p.choices;
      data[i] = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + x_row * p.k + k + (piece & 7) * 8);
    }
  }
  __device__ __forceinline__ void put_x(const uint4 (&data)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int piece = threadIdx.x + i * kThreads;
      *reinterpret_cast<uint4*>(x_tile + (piece >> 3) * kLine + (piece & 7) * 8) = data[i];
    }
  }
  __device__ __forceinline__ void fetch_w(int64_t k, HalfRow<T>& half) const {
    half.absmax = 0.f;
#pragma unroll
    for (int i = 0; i < 4; ++i) half.data[i] = make_uint4(0, 0, 0, 0);
    if (w_row < 0) return;
    const int64_t at = w_row * p.k + k + (threadIdx.x & 1) * 32;
    if (p.kind == WeightKind::bnb4) {
      half.data[0] = *reinterpret_cast<const uint4*>(table.weight[part] + at / 2);
      half.absmax = table.block_absmax(part, at >> p.block_shift, p.nested_shift);
      return;
    }
    const T* from = reinterpret_cast<const T*>(table.weight[part]) + at;
#pragma unroll
    for (int i = 0; i < 4; ++i) half.data[i] = *reinterpret_cast<const uint4*>(from + i * 8);
  }
  __device__ __forceinline__ void put_w(const HalfRow<T>& half) const {
    T* to = w_tile + (threadIdx.x >> 1) * kLine + (threadIdx.x & 1) * 32;
    if (p.kind != WeightKind::bnb4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) *reinterpret_cast<uint4*>(to + i * 8) = half.data[i];
      return;
    }
    const unsigned words[4] = {half.data[0].x, half.data[0].y, half.data[0].z, half.data[0].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      uint32_t pairs[4];
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        const unsigned byte = words[i] >> (8 * b);
        pairs[b] = pack2<T>(book[byte >> 4 & 15] * half.absmax, book[byte & 15] * half.absmax);
      }
      *reinterpret_cast<uint4*>(to + i * 8) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
  }

  /// sums[t] of columns 8 t .. 8 t + 7, for the warp's 16 choices.
  __device__ __forceinline__ void multiply(float (&sums)[8][4]) const {
    const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, warp = threadIdx.x >> 5;
    const auto word = [](const T* at) { return *reinterpret_cast<const uint32_t*>(at); };
#pragma unroll
    for (int k = 0; k < kTileK; k += 16) {
      const T* a = x_tile + (warp * 16 + g) * kLine + k + 2 * c;
      const uint32_t a0 = word(a), a1 = word(a + 8 * kLine), a2 = word(a + 8), a3 = word(a + 8 * kLine + 8);
#pragma unroll
      for (int t = 0; t < 8; ++t) {
        const T* b = w_tile + (t * 8 + g) * kLine + k + 2 * c;
        mma<T>(sums[t], a0, a1, a2, a3, word(b), word(b + 8));
      }
    }
  }
};

template <class T>
__device__ __forceinline__ void put(const ExpertProblem& p, float* products, int64_t choice, int64_t column, float y) {
  if (products)
    products[choice * p.width + column] = y;
  else
    static_cast<T*>(p.out)[choice * p.width + column] = from_float<T>(y);
}

/// products: null, and results go to out.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    grouped_kernel(const __grid_constant__ ExpertProblem p, const __grid_constant__ ExpertTable<N> table,
                   const Plan plan, float* products) {
  __shared__ __align__(16) uint8_t x_bytes[kTileRows * kLine * 2], w_bytes[kTileColumns * kLine * 2];
  __shared__ float book[16];
  __shared__ int choices[kTileRows];
  if (threadIdx.x < 16) book[threadIdx.x] = kBooks[static_cast<int>(p.quant_type)][threadIdx.x];
  pdl_begin();
  if (static_cast<int>(blockIdx.x) >= *plan.count) return;
  const Tile tile = plan.tiles[blockIdx.x];
  if (static_cast<int>(threadIdx.x) < tile.count) choices[threadIdx.x] = plan.order[tile.first + threadIdx.x];
  __syncthreads();
  const int outputs = p.gated ? kTileColumns / 2 : kTileColumns;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * outputs;
  if (tile.expert < 0) {
    for (int i = threadIdx.x; i < tile.count * outputs; i += kThreads) {
      const int64_t column = first + i % outputs;
      if (column < p.width) put<T>(p, products, choices[i / outputs], column, NAN);
    }
    return;
  }
  const auto place = [&](int slot, int& part, int64_t& row) {  // slot: a row of the tile of W
    const int64_t column = first + (p.gated ? slot % outputs : slot);
    if (column >= p.width) return false;
    part = tile.expert * p.per_expert + (p.gated ? slot / outputs : static_cast<int>(column / p.n));
    row = p.gated ? column : column % p.n;
    return true;
  };
  Grouped<T, N> own{p,          table, book, reinterpret_cast<T*>(x_bytes), reinterpret_cast<T*>(w_bytes), choices,
                    tile.count, 0,     -1};
  if (!place(threadIdx.x >> 1, own.part, own.w_row)) own.w_row = -1;
  float sums[8][4] = {};
  uint4 x_data[4];
  HalfRow<T> w_data;
  own.fetch_x(0, x_data);
  own.fetch_w(0, w_data);
  for (int64_t k = 0; k < p.k; k += kTileK) {
    own.put_x(x_data);
    own.put_w(w_data);
    __syncthreads();
    if (k + kTileK < p.k) {
      own.fetch_x(k + kTileK, x_data);
      own.fetch_w(k + kTileK, w_data);
    }
    own.multiply(sums);
    __syncthreads();
  }
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, warp = threadIdx.x >> 5;
#pragma unroll
  for (int t = 0; t < 8; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int at = warp * 16 + g + (e >> 1) * 8, slot = t * 8 + 2 * c + (e & 1);
      int part;
      int64_t row;
      if (at >= tile.count || (p.gated && t >= 4) || !place(slot, part, row)) continue;
      float y = table.with_bias(part, row, sums[t][e]);
      y = p.gated ? gate_and_up(p, y, table.with_bias(part + 1, row, sums[t | 4][e])) : activate(p.activation, y);
      put<T>(p, products, choices[at], first + slot, y);
    }
  }
}

}  // namespace

template <class T, int N>
void launch_expert_grouped(const ExpertProblem& p, const ExpertTable<N>& table, float* products, Context& context) {
  const int64_t total = p.rows * p.choices;
  const int64_t most = total / kTileRows + (total < p.experts + 1 ? total : p.experts + 1);
  Plan plan{};
  plan.order = context.workspace.take_array<int>(static_cast<size_t>(total));
  plan.tiles = context.workspace.take_array<Tile>(static_cast<size_t>(most));
  plan.count = context.workspace.take_array<int>(1);
  launch(context, "plan of experts", plan_kernel, 1, kPlanThreads, 0, p, plan);
  const dim3 grid(static_cast<unsigned>(most), blocks_for(p.width, p.gated ? kTileColumns / 2 : kTileColumns));
  launch(context, "experts", grouped_kernel<T, N>, grid, kThreads, 0, p, table, plan, products);
}

#define Q_INSTANCE(T, N) \
  template void launch_expert_grouped<T, N>(const ExpertProblem&, const ExpertTable<N>&, float*, Context&);
Q_INSTANCE(half_t, kFewParts)
Q_INSTANCE(half_t, kMostParts)
Q_INSTANCE(bfloat_t, kFewParts)
Q_INSTANCE(bfloat_t, kMostParts)
#undef Q_INSTANCE

}  // namespace q::cuda
