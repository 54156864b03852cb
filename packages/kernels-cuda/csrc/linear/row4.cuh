// row4_linear: out = epilogue(x W^T) for one row of x, normalized first if asked, and 4-bit weights                   decode at batch 1
// maths   tensor cores with W as the 16-row operand. The 8 columns of the other operand are 8 blocks of 64 values of the same row of x: what a column's own
//         block gives is taken, the rest dropped, so x takes 8 registers for 512 values. Each block's sum is multiplied by absmax in f32; 1 / s comes last.
// layout  a block owns a group of rows of one part (gated: pairs of a gate row and its up row) in tiles of at most 16. Of its 16 warps up to 8 share k, and
//         sides of that many share the tiles. A warp walks its part of k in chunks of 512 values, each over all its tiles, in steps of 128 values (64 bytes of
//         a row) through a ring of its own in shared memory that cp.async fills; the warps' sums meet in shared memory at the end of the group.
//         Codes become f16/bf16 pairs through a table (code_table.cuh); the ring's rows lie in its gaps, in pieces of 16 bytes that change places by row (no
//         bank conflicts). absmax comes through registers.
// floor   bytes of the weight / 4.3 TB/s (H200): 11008 x 4096 5.9 us (nested 5.4), 28672 x 8192 31 us; shared memory (look-ups, ring) 9600 cycles of the first
// launch  one block of 512 threads a multiprocessor, never two (kExclusiveBytes). Copies start before earlier kernels have ended (launch.h). Three steps ahead
//         are best: with seven, x waits behind them (11.2 instead of 10.2 us)
// time    one H200, 2026-11-21, us (floor): 11008 x 4096 10.4 (5.9), nested 10.9 (5.4); 4096 x 4096 6.0 (2.2); 22016 x 4096 17.1 (11.8); 28672 x 8192
//         39.4 (30.7), nested 35.9 (28.2). Traced on a variant: a step takes 830 cycles, bound by shared memory; from the last block's end
//         to the next kernel's x 3000 cycles pass.
// norm    one norm less to launch and wait for, twice a layer: decode of Llama 2 7B 510 -> 521 tok/s
// needs   sm_80, k % 128 == 0, k >= 512, 16-byte aligned x and W, blocks of 64 values, absmax aligned to 8 bytes (nested: 2); norm: k of 512, 1024, 2048 or 4096
// exact   sums over k in a fixed order that depends on k only: same bits each run; the norm has the same bits as norm.cu's
// ref     tensor/src/ops (linear)        bench  csrc/test/linear_bench.cu
#pragma once
#include <climits>
#include "code_table.cuh"
#include "launch.h"

namespace q::cuda {

constexpr int kRowWarps = 16, kRowThreads = kRowWarps * 32;
constexpr int kStepBytes = 64, kChunkSteps = 4;       // a step: 128 values of a row, two blocks; a chunk: the 8 blocks of one operand
constexpr int kStages = 4, kStageBytes = 2048, kRingBytes = kStages * kStageBytes;  // steps in a warp's ring; from one to the next: 8 lines of 128 bytes, every 256
constexpr int kTableWarps = kCodeTableBytes / kRingBytes;       // their rings lie between the table's lines, those of the others behind it two by two
constexpr int kPairs = (kRowWarps - kTableWarps) / 2, kRingEnd = (kTableWarps + kPairs) * kRingBytes;
constexpr int kRowNestedBytes = 1040;                 // 256 values and the offset

/// Groups of rows. They differ by at most one row (gated: pair of rows), so that their sizes in bytes are no multiples of a large power of two: blocks that
/// walk in step would otherwise meet in the same channels of memory (12288 x 4096 in groups of 96 rows: 16.9 us instead of 10.6).
struct RowPart {
  int begin;         // first group
  int rows, larger;  // of a group; the first `larger` groups have one more. gated: pairs
};

struct RowPlan {
  RowPart part[kMaxRepeat];   // parts that are not there begin at INT_MAX
  int groups;
  int tiles, tile_rows;       // of any group; the last tiles may hold fewer rows. gated: pairs
  int split_shift;            // log2 of the warps that share k, 1 to 8; the others are further sides, which share the tiles
  int steps;                  // of a warp along k, at most
  int sums, nested, total;    // where shared memory's pieces start, in bytes
  uint32_t zero;              // 0, which the compiler does not know
  int64_t pitch;              // bytes of a row of W
  int64_t high;               // bytes from a tile's row r to its row r + 8
  int64_t next_tile;          // bytes from a warp's tile to its next
  int64_t group_bytes;        // next_tile times the tiles of a warp
};

template <class T, bool Nested> struct RowKernel {
  const LinearProblem& p;
  const RowPlan& plan;
  uint8_t* shared;
  uint32_t base;  // the same as an address of shared memory
  int warp, lane;
  int side, sides, share;  // of this warp: which tiles and which part of k
  int first, steps;        // this warp's steps along k
  int part, begin, rows;   // of the group: its part, first row and number of rows (gated: pairs)

  __device__ float* sums(int tile, int of_share) const { return reinterpret_cast<float*>(shared + plan.sums) + ((tile << plan.split_shift) + of_share) * 16; }
  __device__ float* nested_table(int of_part) const { return reinterpret_cast<float*>(shared + plan.nested + of_part * kRowNestedBytes); }

  /// Where this warp's stages start: at multiples of kRingBytes, plus 128 for the half of a line that is theirs.
  __device__ int ring() const {
    const int behind = warp - kTableWarps;
    return (behind < 0 ? warp : kTableWarps + behind % kPairs) * kRingBytes + (behind < 0 || behind >= kPairs ? 128 : 0);
  }
  static __device__ __forceinline__ int row_offset(int r) { return (r >> 1) * 256 + (r & 1) * 64; }
  /// From a place in one stage to the same in the next.
  static __device__ __forceinline__ void next_stage(int& at) {
    constexpr int kMask = (kStages - 1) * kStageBytes;
    at = (at & ~kMask) | ((at + kStageBytes) & kMask);
  }

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
  __device__ __forceinline__ int steps_in(int chunk) const { return min(kChunkSteps, steps - chunk * kChunkSteps); }

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
    int to;    // in shared memory
    Visit at;
    int left;  // steps of this visit that are not copied yet
    bool low, high;
  };
  __device__ Copies start_copies() const {
    Copies c;
    c.from = p.part[part].weight + (begin + side * plan.tile_rows + lane / 4) * plan.pitch + (first * kStepBytes + lane % 4 * 16);
    c.to = ring() + row_offset(lane / 4) + (lane % 4 ^ (lane / 4 & 2)) * 16;
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
      const bool more = c.at.chunk * kChunkSteps < steps;
      c.left = more ? steps_in(c.at.chunk) : INT_MAX;
      c.low = more && has_low(c.at.tile), c.high = more && has_high(c.at.tile);
    }
  }

  /// absmax of rows lane / 4 and lane / 4 + 8 for blocks 2 * (lane % 4) and the next of a chunk, on its way: as it is stored.
  struct Absmax {
    uint32_t low[2], high[2];  // f32 of two blocks; nested: codes of two blocks, f32 scale
  };
  __device__ __forceinline__ void load_absmax(uint32_t (&to)[2], int of_part, int row, int chunk) const {
    const LinearPartView& w = p.part[of_part];
    const int64_t block = row * (p.k >> 6) + (first + chunk * kChunkSteps + lane % 4) * 2;
    if constexpr (Nested) {
      to[0] = __ldg(reinterpret_cast<const uint16_t*>(static_cast<const uint8_t*>(w.absmax) + block));
      to[1] = __ldg(reinterpret_cast<const uint32_t*>(w.nested_absmax) + (block >> w.nested_shift));
    } else {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(static_cast<const float*>(w.absmax) + block));
      to[0] = v.x, to[1] = v.y;
    }
  }
  __device__ __forceinline__ void load_absmax(Absmax& a, const Visit& v) const {
    if (lane % 4 >= steps_in(v.chunk)) return;
    const int row = begin + v.tile * plan.tile_rows + lane / 4;
    if (has_low(v.tile)) load_absmax(a.low, part, row, v.chunk);
    if (has_high(v.tile)) load_absmax(a.high, p.gated ? 1 : part, p.gated ? row : row + 8, v.chunk);
  }
  __device__ __forceinline__ void decode_absmax(const uint32_t (&from)[2], int of_part, float (&to)[2]) const {
    if constexpr (Nested) {
      const float* table = nested_table(of_part);
      const float scale = __uint_as_float(from[1]), offset = table[256];
      to[0] = __fadd_rn(__fmul_rn(table[from[0] & 255], scale), offset);
      to[1] = __fadd_rn(__fmul_rn(table[from[0] >> 8 & 255], scale), offset);
    } else {
      to[0] = __uint_as_float(from[0]), to[1] = __uint_as_float(from[1]);
    }
  }

  // The hardware has few counters for loads under way, and the compiler gives x and absmax the same one: whoever waits for one waits for both. So absmax is
  // decoded before x is loaded (`after` makes x's address depend on it), and x is waited for in the first step after it was loaded (settle), when the codes of
  // that step have been looked up and no other absmax has been asked for.

  /// x of a chunk as the second operand, on its way: column lane / 4 is one block.
  __device__ __forceinline__ void load_x(int chunk, uint32_t after, uint32_t (&x)[8]) const {
    const int block = chunk * (kChunkSteps * 2) + lane / 4;
    uint4 v[2] = {};
    if (block < steps * 2) {
      const uint4* from = reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + (first * 2 + block) * 64 + lane % 4 * 16 + (after & plan.zero));
      v[0] = from[0], v[1] = from[1];
    }
    x[0] = v[0].x, x[1] = v[0].y, x[2] = v[0].z, x[3] = v[0].w;
    x[4] = v[1].x, x[5] = v[1].y, x[6] = v[1].z, x[7] = v[1].w;
  }
  /// rmsNorm of the row, whose chunk is in x; the same bits as norm.cu's, whose threads take 8 values each and whose warps 256.
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
    for (int i = 0; i < 16; ++i) values[i] = from_float<T>(fmaf(to_float(values[i]) * scale, to_float(weights[i]) + p.norm.offset, 0.f));
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

  /// This thread's part of the nested tables, on its way: they are cold.
  __device__ void load_nested(float (&value)[kMaxRepeat]) const {
#pragma unroll
    for (int i = 0; i < kMaxRepeat; ++i) {
      if (!Nested || i >= p.parts || threadIdx.x > 256) continue;
      value[i] = __ldg(threadIdx.x < 256 ? p.part[i].nested_code + threadIdx.x : p.part[i].offset);
    }
  }

  __device__ void set_up(const float (&nested)[kMaxRepeat]) const {
    build_code_table<T, kRowThreads>(shared, p.quant_type);
    if constexpr (Nested) {
#pragma unroll
      for (int i = 0; i < kMaxRepeat; ++i)
        if (i < p.parts && threadIdx.x <= 256) nested_table(i)[threadIdx.x] = nested[i];
    }
    __syncthreads();
  }

  /// Adds the warps' sums and stores the outputs of the group. A thread has slot threadIdx % 16 of every 32nd tile; `residual` is that of the first.
  __device__ void finish(float residual) const {
    const float scale = 1.f / code_scale<T>(p.quant_type);
    const int r = threadIdx.x % 16;
    for (int tile = threadIdx.x / 16; tile < plan.tiles; tile += kRowThreads / 16) {
      if (r >= rows_in(tile)) return;
      const int row = begin + tile * plan.tile_rows + r;
      const auto output = [&](int slot, int of) {
        float y = 0.f;
        for (int w = 0; w < 1 << plan.split_shift; ++w) y += sums(tile, w)[slot];
        return with_bias(p.part[of], row, y * scale);
      };
      float y = activate(p.activation, output(r, part));
      if (p.gated) y *= output(r + 8, 1);
      if (tile >= kRowThreads / 16) residual = load_residual(tile);
      static_cast<T*>(p.out)[column_of(row)] = from_float<T>(y + residual);
    }
  }
  __device__ int64_t column_of(int row) const { return p.gated ? row : p.part[part].first + row; }
  __device__ float load_residual(int tile) const {
    const int r = threadIdx.x % 16;
    if (!p.residual || tile >= plan.tiles || r >= rows_in(tile)) return 0.f;
    return to_float(static_cast<const T*>(p.residual)[column_of(begin + tile * plan.tile_rows + r)]);
  }

  __device__ void run() {
    sides = kRowWarps >> plan.split_shift, side = warp >> plan.split_shift, share = warp & ((1 << plan.split_shift) - 1);
    first = share * plan.steps;
    steps = max(0, min(plan.steps, static_cast<int>(p.k >> 7) - first));
    const int t = lane % 4, g = lane / 4;
    const int from_start = ring() + row_offset(g) + ((t >> 1) ^ (g & 2)) * 16 + (t & 1) * 8;
    const int second = 32 - ((g & 2) << 5);  // from the first block's bytes to the second's
    pdl_trigger();
    for (int group = blockIdx.x; group < plan.groups; group += gridDim.x) {
      enter(group);
      float nested[kMaxRepeat];
      if (group == blockIdx.x) load_nested(nested);
      // The first weights are on their way while shared memory is set up and earlier kernels end (launch.h).
      Copies copies = start_copies();
#pragma unroll 1
      for (int i = 0; i < kStages - 1; ++i) issue(copies);
      Absmax coming{};
      Visit ahead{0, side};
      load_absmax(coming, ahead);
      if (group == blockIdx.x) {
        if (p.norm.weight && side == 0) prefetch_l2(static_cast<const T*>(p.norm.weight) + share * (kChunkSteps * 128) + lane * 16);
        set_up(nested);
        pdl_wait();
      }
      float of_low[2], of_high[2];  // absmax of this visit
      const auto decode = [&] {
        decode_absmax(coming.low, part, of_low);
        decode_absmax(coming.high, p.gated ? 1 : part, of_high);
      };
      decode();
      uint32_t x[8];
      const auto decoded = [&] { return __float_as_uint(of_low[0]) | __float_as_uint(of_low[1]) | __float_as_uint(of_high[0]) | __float_as_uint(of_high[1]); };
      load_x(0, decoded(), x);
      if (p.norm.weight && group == blockIdx.x) normalize(x);
      const float residual = load_residual(threadIdx.x / 16);
      int from = from_start;
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
            const uint2 a0 = codes(0), a1 = codes(row_offset(8)), b0 = codes(second), b1 = codes(second + row_offset(8));
            issue(copies);
            float a[4] = {}, b[4] = {};
            if constexpr (first_of_visit.value) settle(x);
            multiply(a0, a1, x, a);
            multiply(b0, b1, x, b);
            next_stage(from);
            if (step == t) {
              low = fmaf(of_low[0], a[0], low), high = fmaf(of_high[0], a[2], high);
              low = fmaf(of_low[1], b[1], low), high = fmaf(of_high[1], b[3], high);
            }
          };
          multiply_step(0, std::true_type{});
          next(ahead);
          if (ahead.chunk * kChunkSteps < steps) load_absmax(coming, ahead);
#pragma unroll 1
          for (int step = 1; step < count; ++step) multiply_step(step, std::false_type{});
          decode();
          const bool last = tile + sides >= plan.tiles && (chunk + 1) * kChunkSteps < steps;
          if (last) load_x(chunk + 1, decoded(), x);
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
__global__ void __launch_bounds__(kRowThreads, 1) row4_linear(const __grid_constant__ LinearProblem p, const __grid_constant__ RowPlan plan) {
  extern __shared__ __align__(128) uint8_t shared[];
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));  // kept in a register: reading the thread index is slow
  RowKernel<T, Nested> kernel{p, plan, shared, shared_address(shared), __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x >> 5), 0), lane};
  kernel.run();
}

}  // namespace q::cuda
