// lut_linear: out = epilogue(x W^T) for 1 to 4 rows of x; weights dense f16/bf16, bnb4 (plain and nested) or int8           the decode step
// maths   tensor cores, W as the 16-row operand and x as the 8-column one; f32 (int8: i32) sums. bnb4: a byte of codes is looked up as a pair of 16-bit
//         values in shared memory, one byte permutation making the address; columns of the product are (row of x, which of two 64-value blocks), so
//         16-byte loads span two absmax blocks and each is still summed apart and multiplied by its absmax in f32. Code book values are code * s,
//         rounded; 1 / s comes last. int8: every block quantizes x for itself (as quantize_rows does) while its first weights travel; columns of x with
//         outliers are added in f32 in the end.
// layout  a virtual row is one row of one part (gated: a tile holds 8 gate rows and the 8 up rows that belong to them). A block owns an equal share of the
//         virtual rows and its warps split k: a warp keeps its slice of x in registers and walks down the rows. Sums of the warps meet in shared memory.
//         The pair table has 256 entries 256 bytes apart, each copied for the 32 banks: no conflicts.
// floor   bytes of the weight / 4.3 TB/s (H200): 28672 x 8192 f16 109 us (114 measured), int8 55 us (61); 11008 x 4096 f16 21 us (26), int8 10.5 us (16)
// launch  a block a multiprocessor, of 1024 threads (bnb4) or 512; tables of rows and codes are built before the kernel ahead has ended
// needs   sm_80, k % 64 == 0, 16-byte aligned x and W, bnb4: blockSize a power of two from 64
// exact   sums over k in a fixed order that depends on k and the kind of weight only: same bits each run, whatever the other rows hold
// ref     tensor/src/ops (linear)        test  csrc/test/linear.cu        bench  csrc/test/linear_bench.cu
#pragma once
#include <algorithm>
#include "../quant/rounding.cuh"
#include "launch.h"
#include "lut_parts.cuh"

namespace q::cuda {

template <WeightKind Kind, class T, bool Nested> struct LutKernel {
  using S = LutShape<Kind, T, Nested>;
  using Sum = std::conditional_t<S::kInt8, int, float>;

  const LinearProblem& p;
  const LutPlan& plan;
  uint8_t* shared;
  LutShared at;
  int first, count;  // units of this block
  int row_bytes;
  int warp, lane, g, t;
  uint32_t table_lane;  // what all addresses of this lane in the pair table share
  uint32_t weights_at;  // rows g, as addresses

  // ---- where things are

  struct Place {
    int part, row;
  };
  /// Virtual row `r` (0 to 15) of the tile that begins `unit` units into the block; past the block's end: its last.
  __device__ __forceinline__ Place locate(int unit, int r) const {
    if (p.gated) return {r >> 3, first + min(unit + (r & 7), count - 1)};
    int row = first + min(unit + r, count - 1), part = 0;
    while (part + 1 < p.parts && row >= p.part[part + 1].first) ++part;
    return {part, row - p.part[part].first};
  }
  __device__ __forceinline__ float* nested_table(int part) const { return reinterpret_cast<float*>(shared + at.nested + part * 1024); }
  __device__ __forceinline__ float* nested_offsets() const { return reinterpret_cast<float*>(shared + at.nested + kMaxRepeat * 1024); }
  __device__ __forceinline__ Sum* sums(int group) const { return reinterpret_cast<Sum*>(shared + at.sums) + (group & 1) * S::kWarps * p.rows * plan.slots; }

  // ---- tables

  __device__ void build_rows() const {
    for (int i = threadIdx.x; i < plan.rows; i += S::kThreads) {
      const Place place = p.gated ? locate((i >> 4) * 8, i & 15) : locate(i, 0);
      const LinearPartView& w = p.part[place.part];
      reinterpret_cast<const uint8_t**>(shared + at.weights)[i] = w.weight + static_cast<int64_t>(place.row) * row_bytes;
      if constexpr (S::kBnb4)
        reinterpret_cast<LutBlocks*>(shared + at.blocks)[i] = {static_cast<const uint8_t*>(w.absmax), static_cast<int>(static_cast<int64_t>(place.row) * p.k >> 6), place.part};
    }
  }

  __device__ void build_table() const {
    const bool nf4 = p.quant_type == QuantType::nf4;
    const float scale = nf4 ? kNf4Scale<T> : kFp4Scale;
    const float* book = kLutBooks[nf4 ? 0 : 1];
    constexpr int kStep = S::kThreads / 8;  // bytes a round, eight threads each
    const T low = from_float<T>(book[threadIdx.x >> 3 & 15] * scale);
#pragma unroll
    for (int byte = threadIdx.x >> 3; byte < 256; byte += kStep) {
      const T pair[2] = {from_float<T>(book[byte >> 4] * scale), low};
      const uint32_t v = *reinterpret_cast<const uint32_t*>(pair);
      *reinterpret_cast<uint4*>(shared + byte * 256 + (threadIdx.x & 7) * 16) = make_uint4(v, v, v, v);
    }
  }

  /// int8: x's rows to codes in shared memory, with a bit per value that is an outlier.
  __device__ void quantize_x() const {
    float* reduce = reinterpret_cast<float*>(shared + at.reduce);
    int* any = reinterpret_cast<int*>(reduce + p.rows * S::kWarps);
    const int k = static_cast<int>(p.k);
    const float limit = plan.threshold > 0.f ? plan.threshold : INFINITY;
    if (threadIdx.x < p.rows) any[threadIdx.x] = 0;
    for (int m = 0; m < p.rows; ++m) {
      const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(m) * k;
      float absmax = 0.f;
      for (int i = threadIdx.x * 8; i < k; i += S::kThreads * 8) {
        float v[8];
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < 8; ++j)
          if (fabsf(v[j]) < limit) absmax = fmaxf(absmax, fabsf(v[j]));
      }
      absmax = warp_reduce<Max>(absmax);
      if (lane == 0) reduce[m * S::kWarps + warp] = absmax;
    }
    __syncthreads();
    for (int m = 0; m < p.rows; ++m) {
      const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(m) * k;
      const float scale = fast_divide(127.f, absmax_of(m));
      for (int i = threadIdx.x * 8; i < k; i += S::kThreads * 8) {
        float v[8];
        load(v, x + i);
        Pack<int8_t, 8> codes;
        unsigned bits = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const bool outlier = fabsf(v[j]) >= limit;
          codes.v[j] = outlier ? 0 : static_cast<int8_t>(__float2int_rn(v[j] * scale));
          bits |= static_cast<unsigned>(outlier) << j;
        }
        *reinterpret_cast<Pack<int8_t, 8>*>(shared + at.codes + m * plan.code_stride + i) = codes;
        if (plan.threshold > 0.f) {
          shared[at.bits + m * (k >> 3) + (i >> 3)] = static_cast<uint8_t>(bits);
          if (bits) any[m] = 1;
        }
      }
    }
  }
  __device__ float absmax_of(int m) const {
    const float* reduce = reinterpret_cast<const float*>(shared + at.reduce) + m * S::kWarps;
    float a = reduce[0];
    for (int w = 1; w < S::kWarps; ++w) a = fmaxf(a, reduce[w]);
    return a;
  }

  // ---- one warp's work

  /// This lane's values of x for a slice of k; zeros where the product's column has nothing to add.
  __device__ __forceinline__ void load_x(int slice, uint32_t (&b)[S::kChunks][S::kOperands]) const {
#pragma unroll
    for (int c = 0; c < S::kChunks; ++c) {
      const int byte = (slice * S::kChunks + c) * 64 + t * 16;  // of a weight row
      const int m = S::kBnb4 ? g >> 1 : g;
      const bool active = m < p.rows && byte < row_bytes && (!S::kBnb4 || (t >> 1) == (g & 1));
#pragma unroll
      for (int i = 0; i < S::kOperands; i += 4) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (active) {
          if constexpr (S::kInt8)
            v = *reinterpret_cast<const uint4*>(shared + at.codes + m * plan.code_stride + byte);
          else
            v = __ldcg(reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + static_cast<int64_t>(m) * p.k + byte * 8 / S::kBits) + i / 4);
        }
        b[c][i] = v.x, b[c][i + 1] = v.y, b[c][i + 2] = v.z, b[c][i + 3] = v.w;
      }
    }
  }

  /// The pair of a byte of codes. Its address is put together by one permutation; where shared memory begins is an immediate (run() checks it).
  template <int Byte> __device__ __forceinline__ uint32_t pair(uint32_t codes) const {
    uint32_t v;
    asm("ld.shared.u32 %0, [%1 + %2];" : "=r"(v) : "r"(__byte_perm(codes, table_lane, 0x7604 | Byte << 4)), "n"(kLutSharedBegin));
    return v;
  }
  template <int Word> __device__ __forceinline__ void multiply_word(uint32_t w0, uint32_t w1, const uint32_t (&b)[S::kChunks][S::kOperands], float (&c)[4]) const {
    const uint32_t low[4] = {pair<0>(w0), pair<0>(w1), pair<1>(w0), pair<1>(w1)};
    const uint32_t high[4] = {pair<2>(w0), pair<2>(w1), pair<3>(w0), pair<3>(w1)};
    mma<T>(c, low, b[0][Word * 4], b[0][Word * 4 + 1]);
    mma<T>(c, high, b[0][Word * 4 + 2], b[0][Word * 4 + 3]);
  }

  /// What a step reads: weights of rows g and g + 8, and the absmax of row g + 8 * (t / 2), block t % 2 of the slice.
  struct Loaded {
    uint4 w[S::kChunks][2];
    float absmax;
    uint32_t code;
    int part;
  };
  /// A lane's place in a slice: `byte` of a row, `block` of 64 values; past the row's end its begin, to be multiplied by 0. `chunks` are within the row.
  struct Slice {
    int byte, block, chunks;
    bool in_row, add;
  };
  __device__ __forceinline__ Slice slice_at(int slice) const {
    Slice s;
    s.byte = slice * S::kChunks * 64 + t * 16;
    s.block = slice * 2 + (t & 1);
    s.chunks = min(S::kChunks, row_bytes / 64 - slice * S::kChunks);
    s.in_row = !S::kBnb4 || s.block * 64 < static_cast<int>(p.k);
    if (!s.in_row) s.block = 0;
    if (S::kBnb4 && s.byte >= row_bytes) s.byte = 0;
    s.add = slice >= S::kWarps;
    return s;
  }
  __device__ __forceinline__ void load_step(int slot, const Slice& s, Loaded& to) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint8_t* row = reinterpret_cast<const uint8_t*>(load_shared<uint64_t>(weights_at + (slot + h * 8) * 8)) + s.byte;
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) to.w[c][h] = load_weight(row + (S::kBnb4 || c < s.chunks ? c * 64 : 0));
    }
    if constexpr (S::kBnb4) {
      const LutBlocks row = reinterpret_cast<const LutBlocks*>(shared + at.blocks)[slot + g + (t >> 1) * 8];
      to.part = row.part;
      const int i = (row.first + s.block) >> (p.part[0].block_shift - 6);
      if constexpr (S::kNested) {
        to.code = __ldg(row.absmax + i);
        to.absmax = __ldg(reinterpret_cast<const float* const*>(nested_offsets() + 8)[row.part] + (i >> p.part[0].nested_shift));
      } else {
        to.absmax = __ldg(reinterpret_cast<const float*>(row.absmax) + i);
      }
    }
  }
  __device__ __forceinline__ float scale_of(const Slice& s, const Loaded& loaded) const {
    if constexpr (!S::kNested) return s.in_row ? loaded.absmax : 0.f;
    return s.in_row ? __fadd_rn(__fmul_rn(nested_table(loaded.part)[loaded.code], loaded.absmax), nested_offsets()[loaded.part]) : 0.f;
  }

  __device__ __forceinline__ void put(uint32_t to, int m, bool add, Sum v) const {
    if (m >= p.rows) return;
    if (add) v += load_shared<Sum>(to);
    store_shared(to, v);
  }

  /// `to`: this lane's sum of row g and its first row of x.
  __device__ __forceinline__ void compute_step(uint32_t to, const Slice& slice, const Loaded& loaded, const uint32_t (&b)[S::kChunks][S::kOperands]) const {
    const bool add = slice.add;
    const uint32_t next_m = plan.slots * 4;
    if constexpr (S::kBnb4) {
      float c[4] = {};
      const uint4 w0 = loaded.w[0][0], w1 = loaded.w[0][1];
      multiply_word<0>(w0.x, w1.x, b, c);
      multiply_word<1>(w0.y, w1.y, b, c);
      multiply_word<2>(w0.z, w1.z, b, c);
      multiply_word<3>(w0.w, w1.w, b, c);
      const float scale = scale_of(slice, loaded);
      const float s0 = __shfl_sync(0xffffffffu, scale, 0, 4), s1 = __shfl_sync(0xffffffffu, scale, 1, 4);
      const float s2 = __shfl_sync(0xffffffffu, scale, 2, 4), s3 = __shfl_sync(0xffffffffu, scale, 3, 4);
      put(to, t, add, fmaf(s0, c[0], s1 * c[1]));
      put(to + 32, t, add, fmaf(s2, c[2], s3 * c[3]));
    } else {
      Sum c[4] = {};
#pragma unroll
      for (int j = 0; j < S::kChunks; ++j) {
        if (j >= slice.chunks) continue;
        const uint4 w0 = loaded.w[j][0], w1 = loaded.w[j][1];
        const uint32_t low[4] = {w0.x, w1.x, w0.y, w1.y}, high[4] = {w0.z, w1.z, w0.w, w1.w};
        if constexpr (S::kInt8) {
          mma_int8(c, low, b[j][0], b[j][1]);
          mma_int8(c, high, b[j][2], b[j][3]);
        } else {
          mma<T>(c, low, b[j][0], b[j][1]);
          mma<T>(c, high, b[j][2], b[j][3]);
        }
      }
      put(to, 2 * t, add, c[0]), put(to + next_m, 2 * t + 1, add, c[1]);
      put(to + 32, 2 * t, add, c[2]), put(to + next_m + 32, 2 * t + 1, add, c[3]);
    }
  }

  /// A step of a group: slices of k outermost, down the group's tiles each.
  struct Cursor {
    int slice, tile;
    Slice place;
  };
  __device__ __forceinline__ Cursor begin() const { return {warp, 0, slice_at(warp)}; }
  /// Whether another slice begins.
  __device__ __forceinline__ bool advance(Cursor& c, int tiles) const {
    if (++c.tile < tiles) return false;
    c.tile = 0, c.slice += S::kWarps, c.place = slice_at(c.slice);
    return true;
  }
  /// Loads the first kAhead steps of a group.
  __device__ __forceinline__ Cursor fill(int row_slot, int tiles, int slices, Loaded (&ring)[S::kAhead + 1]) const {
    Cursor c = begin();
#pragma unroll
    for (int i = 0; i < S::kAhead; ++i) {
      if (c.slice < slices) load_step(row_slot + c.tile * 16, c.place, ring[i]);
      advance(c, tiles);
    }
    return c;
  }
  /// All steps of a group, weights loaded kAhead steps ahead and x a slice ahead.
  __device__ __forceinline__ void run_group(Sum* sums, int row_slot, int tiles, int slices, Cursor ahead, Loaded (&ring)[S::kAhead + 1], uint32_t (&b)[S::kChunks][S::kOperands]) const {
    const uint32_t to = shared_address(sums + (warp * p.rows + (S::kBnb4 ? t : 2 * t)) * plan.slots + g);
    uint32_t next_b[S::kChunks][S::kOperands];
    if (S::kXAhead && slices > S::kWarps) load_x(warp + S::kWarps, next_b);
    Cursor c = begin();
    while (true) {
#pragma unroll
      for (int i = 0; i <= S::kAhead; ++i) {
        if (c.slice >= slices) return;
        if (ahead.slice < slices) load_step(row_slot + ahead.tile * 16, ahead.place, ring[(i + S::kAhead) % (S::kAhead + 1)]);
        advance(ahead, tiles);
        compute_step(to + c.tile * 64, c.place, ring[i], b);
        if (advance(c, tiles) && slices > S::kWarps) {
          if constexpr (S::kXAhead) {
#pragma unroll
            for (int j = 0; j < S::kChunks; ++j)
#pragma unroll
              for (int o = 0; o < S::kOperands; ++o) b[j][o] = next_b[j][o];
            load_x(c.slice + S::kWarps, next_b);
          } else {
            load_x(c.slice, b);
          }
        }
      }
    }
  }

  // ---- outputs

  /// int8: what x's outliers add to the rows of a group, a warp a row and row of x.
  __device__ void add_outliers(int unit, int units) const {
    const int* any = reinterpret_cast<const int*>(shared + at.reduce + p.rows * S::kWarps * 4);
    float* outliers = reinterpret_cast<float*>(shared + at.outliers);
    const int words = static_cast<int>(p.k >> 5), per_unit = p.gated ? 2 : 1;
    for (int i = warp; i < units * per_unit * p.rows; i += S::kWarps) {
      const int m = i / (units * per_unit), v = i - m * units * per_unit, u = v / per_unit, r = v - u * per_unit;
      if (!any[m]) continue;
      const Place place = p.gated ? locate(unit + u, r * 8) : locate(unit + u, 0);
      const int8_t* row = reinterpret_cast<const int8_t*>(p.part[place.part].weight) + static_cast<int64_t>(place.row) * p.k;
      const float scale = static_cast<const float*>(p.part[place.part].absmax)[place.row];
      const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(m) * p.k;
      const uint32_t* bits = reinterpret_cast<const uint32_t*>(shared + at.bits + m * (p.k >> 3));
      float sum = 0.f;
      for (int j = lane; j < words; j += 32)
        for (uint32_t left = bits[j]; left; left &= left - 1) {
          const int k = j * 32 + __ffs(left) - 1;
          sum = fmaf(to_float(from_float<T>(static_cast<float>(row[k]) * scale * (1.f / 127.f))), to_float(x[k]), sum);
        }
      sum = warp_reduce<q::cuda::Sum>(sum);
      if (lane == 0) outliers[m * plan.slots + slot_of(u) + r * 8] = sum;
    }
  }
  __device__ __forceinline__ int slot_of(int u) const { return p.gated ? (u >> 3) * 16 + (u & 7) : u; }

  __device__ float total(const Sum* sums, int active, int m, int slot, const Place& place) const {
    Sum s = 0;
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w)
      if (w < active) s += sums[(w * p.rows + m) * plan.slots + slot];
    float y = static_cast<float>(s);
    if constexpr (S::kBnb4) y *= 1.f / (p.quant_type == QuantType::nf4 ? kNf4Scale<T> : kFp4Scale);
    if constexpr (S::kInt8) {
      const int* any = reinterpret_cast<const int*>(shared + at.reduce + p.rows * S::kWarps * 4);
      y *= absmax_of(m) * static_cast<const float*>(p.part[place.part].absmax)[place.row] * (1.f / (127.f * 127.f));
      if (any[m]) y += reinterpret_cast<const float*>(shared + at.outliers)[m * plan.slots + slot];
    }
    return with_bias(p.part[place.part], place.row, y);
  }
  __device__ void finish(const Sum* sums, int active, int unit, int units) const {
    for (int i = threadIdx.x; i < units * p.rows; i += S::kThreads) {
      const int m = i / units, u = i - m * units;
      const Place place = locate(unit + u, 0);
      float y = activate(p.activation, total(sums, active, m, slot_of(u), place));
      if (p.gated) y *= total(sums, active, m, slot_of(u) + 8, {1, place.row});
      store_output<T>(p, m, first + unit + u, y);
    }
  }

  __device__ void run() {
    first = static_cast<int>(static_cast<int64_t>(plan.units) * blockIdx.x / gridDim.x);
    count = static_cast<int>(static_cast<int64_t>(plan.units) * (blockIdx.x + 1) / gridDim.x) - first;
    row_bytes = static_cast<int>(p.k * S::kBits / 8);
    pdl_trigger();
    build_rows();
    if constexpr (S::kNested)
      if (threadIdx.x < p.parts) reinterpret_cast<const float**>(nested_offsets() + 8)[threadIdx.x] = p.part[threadIdx.x].nested_absmax;
    weights_at = shared_address(shared + at.weights) + g * 8;
    if constexpr (S::kBnb4) {
      build_table();
      const uint32_t begin = shared_address(shared);
      if ((begin & 0xffffff) != kLutSharedBegin) __trap();
      table_lane = (begin & 0xff000000) + lane * 4;
    }
    __syncthreads();
    pdl_wait();
    const int slices = (row_bytes + 64 * S::kChunks - 1) / (64 * S::kChunks), active = min(slices, S::kWarps);
    const int per_tile = p.gated ? 8 : 16;
    const auto tiles_from = [&](int unit) { return (min(plan.group_units, count - unit) + per_tile - 1) / per_tile; };
    Loaded ring[S::kAhead + 1];
    uint32_t b[S::kChunks][S::kOperands];
    Cursor ahead = fill(0, tiles_from(0), slices, ring);
    if constexpr (S::kNested) {
      for (int i = threadIdx.x; i < p.parts * 256; i += S::kThreads) nested_table(i >> 8)[i & 255] = p.part[i >> 8].nested_code[i & 255];
      if (threadIdx.x < p.parts) nested_offsets()[threadIdx.x] = *p.part[threadIdx.x].offset;
    }
    if constexpr (S::kInt8) quantize_x();
    if constexpr (!S::kInt8)
      if (warp < slices) load_x(warp, b);
    if constexpr (S::kInt8 || S::kNested) __syncthreads();
    int any_outliers = 0;
    if constexpr (S::kInt8) {
      if (warp < slices) load_x(warp, b);
      for (int m = 0; m < p.rows; ++m) any_outliers |= reinterpret_cast<const int*>(shared + at.reduce + p.rows * S::kWarps * 4)[m];
    }
    for (int group = 0, unit = 0, row_slot = 0; unit < count; ++group, row_slot += plan.slots) {
      const int units = min(plan.group_units, count - unit), next = unit + units;
      Sum* to = sums(group);
      run_group(to, row_slot, tiles_from(unit), slices, ahead, ring, b);
      if (next < count) {  // memory works through the barrier
        ahead = fill(row_slot + plan.slots, tiles_from(next), slices, ring);
        if (slices > S::kWarps) load_x(warp, b);
      }
      if (any_outliers) add_outliers(unit, units);
      __syncthreads();
      finish(to, active, unit, units);
      if (any_outliers) __syncthreads();
      unit = next;
    }
  }
};

template <WeightKind Kind, class T, bool Nested>
__global__ void __launch_bounds__(LutShape<Kind, T, Nested>::kThreads, 1)
    lut_kernel(const __grid_constant__ LinearProblem p, const __grid_constant__ LutPlan plan) {
#if Q_HAS_MMA
  using Kernel = LutKernel<Kind, T, Nested>;
  extern __shared__ __align__(128) uint8_t shared[];
  const int lane = threadIdx.x & 31;
  Kernel kernel{p, plan, shared, lut_shared<typename Kernel::S>(p, plan), 0, 0, 0, static_cast<int>(threadIdx.x >> 5), lane, lane >> 2, lane & 3, 0, 0};
  kernel.run();
#else
  __trap();
#endif
}

template <WeightKind Kind, class T, bool Nested> void launch_lut_kernel(const LinearProblem& p, float threshold, Context& context) {
  using S = LutShape<Kind, T, Nested>;
  constexpr int kMostUnits = 512;  // of a block, whose rows are listed in shared memory
  constexpr int kMostSums = 512;   // of a warp between two barriers
  LutPlan plan{};
  plan.units = static_cast<int>(p.columns);
  int grid = std::min(plan.units, context.multiprocessors);
  while ((plan.units + grid - 1) / grid > kMostUnits) grid += context.multiprocessors;
  const int per_tile = p.gated ? 8 : 16, most = (plan.units + grid - 1) / grid;
  const int tiles = std::max(1, std::min(kMostSums / p.rows / 16, (most + per_tile - 1) / per_tile));
  plan.group_units = tiles * per_tile;
  plan.slots = tiles * 16;
  plan.rows = (most + plan.group_units - 1) / plan.group_units * plan.slots;
  plan.code_stride = static_cast<int>((p.k + 127) / 128 * 128 + 64);
  plan.threshold = threshold;
  launch(context, "linear", lut_kernel<Kind, T, Nested>, grid, S::kThreads, lut_shared<S>(p, plan).bytes, p, plan);
}

template <WeightKind Kind, class T> void launch_lut(const LinearProblem& p, float threshold, Context& context) {
  if constexpr (Kind == WeightKind::bnb4) {
    return p.part[0].nested_absmax ? launch_lut_kernel<Kind, T, true>(p, threshold, context) : launch_lut_kernel<Kind, T, false>(p, threshold, context);
  } else {
    launch_lut_kernel<Kind, T, false>(p, threshold, context);
  }
}

}  // namespace q::cuda
