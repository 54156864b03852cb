// stream_linear: out = epilogue(x W^T) for 1 to 32 rows of x; weights dense in x's f16/bf16 or in f32, bnb4 or int8;
// decode and small batches
// maths   tensor cores with W as the 16-row operand and x as the 8-column one, so 1..8 rows cost the same; f32 (int8:
//         i32) sums
// layout  a virtual row is one row of one part (gated: a tile holds 8 gate rows and the 8 up rows that belong to them).
//         A block owns a group of virtual rows in tiles of at most 16 and walks k in chunks; each of its 8 warps takes
//         128 bytes of a row's chunk and has a ring of its own in shared memory that cp.async fills: no barrier until
//         the warps' sums, kept in shared memory, are added. 16-byte pieces are swizzled by row, so reads have no bank
//         conflicts. x of a chunk stays in registers over all tiles. The loops are not unrolled: code must fit the
//         instruction cache. bnb4 codes become f16/bf16 pairs through a table (code_table.cuh); the ring's rows lie in
//         its gaps. Values are code * s, rounded; each 64 values of k are summed apart and then multiplied by absmax in
//         f32; 1 / s comes last.
//         f32 weights go to the tf32 cores in three parts, so that products are exact; what x has is widened.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 f16 21 us, int8 10.5 us, nf4 5.9 us; 28672 x 8192 nf4
//         31 us; 1024 x 65536 f32 62 us
// launch  two blocks of 256 threads a multiprocessor (bnb4 with over 8 rows: one), rows of W spread evenly over them. A
//         block's first copies of W start before anything else and before earlier kernels have ended (launch.h), but
//         few: x would wait behind them.
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 f16 1, 16 rows 21.2, 23.7 (21.0); nf4 17, 32 rows 18.7, 21.4
//         (5.9), nested 19.6, 22.3 (5.4). 4 bits are bound by shared memory, where each pair of codes is looked up (64
//         of the 108 accesses of a stage); nested absmax is decoded there too. To 16 rows 4-bit and int8 weights have
//         kernels of their own (row4.cuh, batch4.cuh, row8.cuh); what does not suit those comes here
// needs   sm_80, k % 64 == 0, 16-byte aligned x and W, bnb4: blockSize a power of two from 64; int8: rows quantized by
//         quantize_rows
// exact   sums over k in a fixed order that depends on k only: same bits each run, whatever the other rows hold and
//         however many there are
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include "launch.h"
#include "stream_copies.cuh"

namespace q::cuda {

template <StreamWeight Kind, class T, int ColumnTiles>
struct StreamKernel : StreamCopies<Kind, T, ColumnTiles> {
  using Base = StreamCopies<Kind, T, ColumnTiles>;
  using Base::absmax_of;
  using Base::at;
  using Base::base;
  using Base::blocks_in;
  using Base::chunks;
  using Base::decode_absmax;
  using Base::first_block;
  using Base::issue;
  using Base::issue_even;
  using Base::kStages;
  using Base::lane;
  using Base::locate_rows;
  using Base::move;
  using Base::nested_table;
  using Base::outlier_sums;
  using Base::p;
  using Base::plan;
  using Base::quantized;
  using Base::rows;
  using Base::shared;
  using Base::stage;
  using Base::sums;
  using Base::swizzled;
  using Base::walk;
  using Base::warp;
  using typename Base::Operands;
  using typename Base::S;
  using typename Base::Sum;
  using typename Base::Walk;

  /// absmax of rows g and g + 8 for the blocks of a stage, in every lane.
  __device__ __forceinline__ void read_absmax(int slot, float (&s0)[4], float (&s1)[4]) const {
    const float4* values = reinterpret_cast<const float4*>(shared + absmax_of(slot));
    const float4 low = values[lane >> 2], high = values[(lane >> 2) + 8];
    s0[0] = low.x, s0[1] = low.y, s0[2] = low.z, s0[3] = low.w;
    s1[0] = high.x, s1[1] = high.y, s1[2] = high.z, s1[3] = high.w;
  }

  /// x of this warp's slice of one chunk as the second operand.
  __device__ __forceinline__ void load_x(int chunk, Operands& b) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j) {
      const int m = j * 8 + g;
      const int64_t row = m * p.k + static_cast<int64_t>(first_block(chunk)) * 64;
      const int blocks = m < p.rows ? blocks_in(chunk) : 0;
#pragma unroll
      for (int i = 0; i < S::kBlocks; ++i) {
#pragma unroll
        for (int h = 0; h < S::kOperands / 4; ++h) {
          uint4 v = make_uint4(0, 0, 0, 0);
          if constexpr (S::kInt8) {
            if (i < blocks) v = *reinterpret_cast<const uint4*>(quantized.codes + row + i * 64 + t * 16);
          } else {
            const int offset = i * 64 + (S::kBnb4 ? t * 16 + h * 8 : t * 8 + h * 32);
            if (i < blocks) v = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + row + offset);
          }
          b[i][j][4 * h] = v.x, b[i][j][4 * h + 1] = v.y, b[i][j][4 * h + 2] = v.z, b[i][j][4 * h + 3] = v.w;
        }
      }
    }
  }

  /// x of a chunk as it is stored, on its way into registers (wide).
  using Stored = uint2[ColumnTiles][2];
  __device__ __forceinline__ void load_stored(int chunk, Stored& x) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j) {
      const int m = j * 8 + g;
      const bool there = m < p.rows && chunk < chunks;
      const T* from = static_cast<const T*>(p.x) + m * p.k + first_block(chunk) * 32ll + t * 4;
#pragma unroll
      for (int h = 0; h < 2; ++h) x[j][h] = there ? *reinterpret_cast<const uint2*>(from + h * 16) : make_uint2(0, 0);
    }
  }
  /// The same as the second operand.
  __device__ __forceinline__ void widen(const Stored& x, Operands& b) const {
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        b[0][j][4 * h] = widen_low<T>(x[j][h].x), b[0][j][4 * h + 1] = widen_high<T>(x[j][h].x);
        b[0][j][4 * h + 2] = widen_low<T>(x[j][h].y), b[0][j][4 * h + 3] = widen_high<T>(x[j][h].y);
      }
    }
  }

  // / f32 weights as three numbers of 11 significant bits, which add up to them, times x, which has no more: each
  // product / is exact. The smaller ones have sums of their own, so that no product waits for the one before it.
  __device__ __forceinline__ void multiply_wide(const uint8_t* row, const uint32_t (&b)[ColumnTiles][S::kOperands],
                                                Sum (&c)[ColumnTiles][4]) const {
    const int g = lane >> 2, t = lane & 3;
    float middles[ColumnTiles][4] = {}, rests[ColumnTiles][4] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint8_t* low = row + swizzled(g, h * 4 + t);
      const uint4 w0 = *reinterpret_cast<const uint4*>(low),
                  w1 = *reinterpret_cast<const uint4*>(low + 8 * S::kRowStride);
      const uint32_t a[2][4] = {{w0.x, w1.x, w0.y, w1.y}, {w0.z, w1.z, w0.w, w1.w}};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint32_t high[4], middle[4], rest[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) split_tf32(a[i][e], high[e], middle[e], rest[e]);
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j) {
          const uint32_t b0 = b[j][4 * h + 2 * i], b1 = b[j][4 * h + 2 * i + 1];
          mma_tf32(c[j], high, b0, b1);
          mma_tf32(middles[j], middle, b0, b1);
          mma_tf32(rests[j], rest, b0, b1);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) c[j][e] += middles[j][e] + rests[j][e];
  }

  /// Adds one tile times one block of k; `row`: row g of the stage.
  __device__ __forceinline__ void multiply(const uint8_t* row, int block, float s0, float s1,
                                           const uint32_t (&b)[ColumnTiles][S::kOperands],
                                           Sum (&c)[ColumnTiles][4]) const {
    const int g = lane >> 2, t = lane & 3;
    if constexpr (S::kWide) {
      multiply_wide(row, b, c);
    } else if constexpr (S::kBnb4) {
      const uint8_t* low = row + swizzled(g, block * 2 + (t >> 1)) + (t & 1) * 8;
      const uint2 w0 = *reinterpret_cast<const uint2*>(low),
                  w1 = *reinterpret_cast<const uint2*>(low + 8 * S::kRowStride);
      uint32_t a[4][4];
      look_up_codes(a, shared, w0, w1, lane);
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        float d[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int i = 0; i < 4; ++i) mma<T>(d, a[i], b[j][2 * i], b[j][2 * i + 1]);
        c[j][0] = fmaf(s0, d[0], c[j][0]), c[j][1] = fmaf(s0, d[1], c[j][1]);
        c[j][2] = fmaf(s1, d[2], c[j][2]), c[j][3] = fmaf(s1, d[3], c[j][3]);
      }
    } else {
#pragma unroll
      for (int h = 0; h < S::kBlockBytes / 64; ++h) {
        const uint8_t* low = row + swizzled(g, (block * S::kBlockBytes / 64 + h) * 4 + t);
        const uint4 w0 = *reinterpret_cast<const uint4*>(low),
                    w1 = *reinterpret_cast<const uint4*>(low + 8 * S::kRowStride);
        const uint32_t a[2][4] = {{w0.x, w1.x, w0.y, w1.y}, {w0.z, w1.z, w0.w, w1.w}};
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j) {
            if constexpr (S::kInt8)
              mma_int8(c[j], a[i], b[j][2 * i], b[j][2 * i + 1]);
            else
              mma<T>(c[j], a[i], b[j][4 * h + 2 * i], b[j][4 * h + 2 * i + 1]);
          }
      }
    }
  }

  /// x's outliers in this warp's slice times the dequantized weight. A lane holds one row of the tile and every second
  /// row of x; a row of x adds its own outliers in order of k.
  __device__ __forceinline__ void multiply_outliers(const uint8_t* weights, int chunk, int tile) const {
    const int r = lane & 15;
    const StreamRow& row = rows()[tile * 16 + r];
    if (!row.weight) return;
    const int n = static_cast<int>((row.first_part >> 2) / (p.k >> 6)), slice = chunk * kWarps + warp,
              first = first_block(chunk) * 64;
    const float scale = static_cast<const float*>(p.part[row.first_part & 3].absmax)[n];
    float* to = outlier_sums(warp, tile) + lane;
    const auto code_of = [&](int k) {
      return static_cast<float>(static_cast<int8_t>(weights[r * kSliceBytes + swizzled(r, k >> 4) + (k & 15)]));
    };
    const auto weight_of = [&](int k) { return to_float(from_float<T>(code_of(k) * scale * (1.f / 127.f))); };
    for (int m = lane >> 4, i = 0; m < p.rows; m += 2, ++i) {
      float sum = to[i * 32];
      const int* starts = quantized.outlier_starts + static_cast<int64_t>(m) * (quantized.slices + 1) + slice;
      const int end = starts[1];
      for (int j = starts[0]; j < end; ++j) {
        const int k = quantized.outlier_columns[m * p.k + j] - first;
        sum = fmaf(weight_of(k), quantized.outlier_values[m * p.k + j], sum);
      }
      to[i * 32] = sum;
    }
  }

  /// The chunks (bit chunk % 32) in whose slice of this warp any row of x may have outliers; all are looked up at once,
  /// so that one latency is waited for.
  __device__ uint32_t outlier_chunks() const {
    if (!S::kInt8 || quantized.slices == 0) return 0;
    uint32_t mask = 0;
#pragma unroll 4
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int slice = chunk * kWarps + warp;
      bool any = false;
      if (lane < p.rows) {
        const int* starts = quantized.outlier_starts + static_cast<int64_t>(lane) * (quantized.slices + 1) + slice;
        any = starts[0] != starts[1];
      }
      mask |= static_cast<uint32_t>(any) << (chunk & 31);
    }
#if Q_HAS_MMA
    mask = __reduce_or_sync(0xffffffffu, mask);
#endif
    return mask;
  }

  /// One output before bias, of merged sums. Row m of x, slot r of a tile.
  __device__ float total(int m, int tile, int r, float scale, bool with_outliers) const {
    const int holder = (r & 7) << 2 | (m & 7) >> 1, element = (m & 1) | (r >> 3) << 1;
    float y = static_cast<float>(sums(0, tile, m >> 3, holder)[element]);
    if constexpr (S::kInt8) {
      y *= quantized.scales[m] * scale * (1.f / (127.f * 127.f));
      if (with_outliers) {
        float outliers = 0.f;
        for (int w = 0; w < kWarps; ++w) outliers += outlier_sums(w, tile)[(m >> 1) * 32 + (m & 1) * 16 + r];
        y += outliers;
      }
    }
    if constexpr (S::kBnb4) y *= 1.f / code_scale<T>(p.quant_type);
    return y;
  }

  /// Adds the warps' sums in warp order into those of the first: each lane what it holds, so that no two meet in a bank
  /// of shared memory.
  __device__ void merge(const StreamGroup& group) const {
#pragma unroll 1
    for (int i = warp; i < group.tiles * ColumnTiles; i += kWarps) {
      const int tile = i / ColumnTiles, j = i % ColumnTiles;
      Sum s[4];
      *reinterpret_cast<uint4*>(s) = *reinterpret_cast<const uint4*>(sums(0, tile, j, lane));
#pragma unroll
      for (int w = 1; w < kWarps; ++w) {
        Sum more[4];
        *reinterpret_cast<uint4*>(more) = *reinterpret_cast<const uint4*>(sums(w, tile, j, lane));
#pragma unroll
        for (int e = 0; e < 4; ++e) s[e] += more[e];
      }
      *reinterpret_cast<uint4*>(sums(0, tile, j, lane)) = *reinterpret_cast<const uint4*>(s);
    }
  }

  /// Stores the outputs of a group.
  __device__ void finish(const StreamGroup& group, bool with_outliers) const {
    const int r = lane & 15;
#pragma unroll 1
    for (int i = warp * 2 + (lane >> 4); i < group.tiles * p.rows; i += kWarps * 2) {
      const int m = p.rows == 1 ? 0 : i / group.tiles, tile = i - m * group.tiles;
      int part, row;
      if ((p.gated && r >= 8) || !group.locate(p, tile, r, part, row)) continue;
      const auto output = [&](int in_tile, int of) {
        const LinearPartView& w = p.part[of];
        return with_bias(
            w, row, total(m, tile, in_tile, S::kInt8 ? static_cast<const float*>(w.absmax)[row] : 0.f, with_outliers));
      };
      float y = activate(p.activation, output(r, part));
      if (p.gated) y *= output(r + 8, 1);
      store_output<T>(p, m, p.gated ? row : p.part[part].first + row, y);
    }
  }

  /// Fills the tables of the first group; they depend on weights only. Issued: stages whose copies have started since
  /// those of copy_nested.
  template <int Issued>
  __device__ void set_up(const StreamGroup& group) {
    locate_rows(group);
    if constexpr (S::kBnb4) build_code_table<kStreamThreads>(shared, p.codes);
    if constexpr (S::kBnb4) async_wait<Issued>();
    __syncthreads();
  }

  /// Returns outlier_chunks().
  __device__ uint32_t run_group(const StreamGroup& group, bool first_group) {
    const int g = lane >> 2;
    // Where the copies are, kStages - 1 stages ahead of the products.
    int ahead_chunk = 0, ahead_tile = 0, ahead_slot = 0, slot = 0;
    int64_t ahead_offset = static_cast<int64_t>(warp) * kSliceBytes + (lane & 7) * 16;
    Walk ahead_walk = walk(group);
    const int tile_rows = p.gated ? group.tile_rows >> 1 : group.tile_rows;
    const auto issue_next = [&] {
      if (ahead_chunk >= chunks) return async_commit();
      if (ahead_walk.even)
        issue_even(ahead_walk, ahead_chunk, ahead_tile + 1 == group.tiles ? ahead_walk.last : ahead_walk.full,
                   ahead_slot);
      else
        issue(ahead_chunk, ahead_tile, ahead_slot, ahead_offset);
      if (++ahead_tile == group.tiles) {
        move(ahead_walk, -static_cast<int64_t>(tile_rows) * (group.tiles - 1), 1);
        ahead_tile = 0, ++ahead_chunk, ahead_offset += kWarps * kSliceBytes;
      } else {
        move(ahead_walk, tile_rows, 0);
      }
      if (++ahead_slot == kStages) ahead_slot = 0;
    };
    // The first weights are on their way while shared memory is set up and earlier kernels end (launch.h), the others
    // follow x.
    if (first_group && !ahead_walk.even) set_up<0>(group);
#pragma unroll 1
    for (int i = 0; i < S::kEarlyStages; ++i) issue_next();
    if (first_group && ahead_walk.even) set_up<S::kEarlyStages>(group);
    if (first_group) pdl_wait();
    Operands b, ahead;
    Stored stored[2];
    if constexpr (S::kWide)
      load_stored(0, stored[0]), load_stored(1, stored[1]);
    else if (chunks > 0)
      load_x(0, b);
#pragma unroll 1
    for (int i = S::kEarlyStages; i < kStages - 1; ++i) issue_next();
    const uint32_t outliers = outlier_chunks();
#pragma unroll 1
    for (int tile = 0; tile < group.tiles; ++tile) {
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        if (chunks == 0) *reinterpret_cast<uint4*>(sums(warp, tile, j, lane)) = make_uint4(0, 0, 0, 0);
      }
      if (S::kInt8 && quantized.slices)
        for (int i = lane; i < p.rows * 16; i += 32) outlier_sums(warp, tile)[i] = 0.f;
    }
    const auto multiply_chunk = [&](int chunk) {
      const bool has_outliers = S::kInt8 && (outliers >> (chunk & 31) & 1);
      const int blocks = blocks_in(chunk);
#pragma unroll 1
      for (int tile = 0; tile < group.tiles; ++tile) {
        Sum c[ColumnTiles][4] = {};
        if (chunk > 0)
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j)
            *reinterpret_cast<uint4*>(c[j]) = *reinterpret_cast<const uint4*>(sums(warp, tile, j, lane));
        async_wait<kStages - 2>();
        __syncwarp();
        issue_next();
        const uint8_t* weights = shared + stage(slot);
        float s0[4]{}, s1[4]{};
        if constexpr (S::kBnb4) {
          if (plan.nested_parts && plan.direct) decode_absmax(tile, slot);
          read_absmax(slot, s0, s1);
        }
        if (++slot == kStages) slot = 0;
        const auto block = [&](int i) { multiply(weights + g * S::kRowStride, i, s0[i], s1[i], b[i], c); };
        if (blocks == S::kBlocks) {  // without branches between them the blocks overlap
#pragma unroll
          for (int i = 0; i < S::kBlocks; ++i) block(i);
        } else {
#pragma unroll
          for (int i = 0; i < S::kBlocks - 1; ++i)
            if (i < blocks) block(i);
        }
        if (has_outliers) multiply_outliers(weights, chunk, tile);
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j)
          *reinterpret_cast<uint4*>(sums(warp, tile, j, lane)) = *reinterpret_cast<const uint4*>(c[j]);
      }
    };
    if constexpr (S::kWide) {  // a chunk is short: x is loaded two ahead, or its latency would show
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; chunk += 2) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (chunk + i >= chunks) break;
          widen(stored[i], b);
          load_stored(chunk + i + 2, stored[i]);
          multiply_chunk(chunk + i);
        }
      }
    } else {
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; ++chunk) {
        if (S::kLookAhead && chunk + 1 < chunks) load_x(chunk + 1, ahead);
        multiply_chunk(chunk);
        if constexpr (S::kLookAhead) {
#pragma unroll
          for (int i = 0; i < S::kBlocks; ++i)
#pragma unroll
            for (int j = 0; j < ColumnTiles; ++j)
#pragma unroll
              for (int e = 0; e < S::kOperands; ++e) b[i][j][e] = ahead[i][j][e];
        } else if (chunk + 1 < chunks) {
          load_x(chunk + 1, b);
        }
      }
    }
    return outliers;
  }

  __device__ void run() {
    const int blocks = static_cast<int>(p.k >> S::kBlockShift), first = warp * S::kBlocks, step = kWarps * S::kBlocks;
    chunks = first < blocks ? (blocks - first + step - 1) / step : 0;
    pdl_trigger();
    if constexpr (S::kBnb4) this->copy_nested();
    for (int index = blockIdx.x;;) {
      const StreamGroup group(plan, index);
      const bool with_outliers = __syncthreads_or(run_group(group, index == blockIdx.x) != 0);
      merge(group);
      index += gridDim.x;
      if (index < plan.groups) locate_rows(StreamGroup(plan, index));
      __syncthreads();
      finish(group, with_outliers);
      if (index >= plan.groups) return;
      __syncthreads();
    }
  }
};

template <StreamWeight Kind, class T, int ColumnTiles>
__global__ void __launch_bounds__(kStreamThreads, (StreamShape<Kind, ColumnTiles>::kBlocksPerMultiprocessor))
    stream_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ StreamPlan plan,
                  const __grid_constant__ QuantizedRows quantized) {
  using Kernel = StreamKernel<Kind, T, ColumnTiles>;
  extern __shared__ __align__(128) uint8_t shared[];
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));  // kept in a register: reading the thread index is slow
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0);
  Kernel kernel{
      p,         plan,
      quantized, StreamLayout<typename Kernel::S>(plan.tiles, quantized.slices > 0 ? p.rows : 0, plan.nested_parts),
      shared,    shared_address(shared),
      warp,      lane,
      0};
  kernel.run();
}

}  // namespace q::cuda
