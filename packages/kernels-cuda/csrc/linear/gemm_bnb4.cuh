// gemm_bnb4: out = finish(x[rows, k] . dequant(W)[n, k]^T) for 65 to 256 rows on Hopper          nf4 / fp4, plain or nested
// maths   W = round_T(f16(code[nibble]) * absmax), bitsandbytes' dequantization but for the code's rounding (2^-12 of it); f16: absmax as a
//         sum of two f16, one fused multiply-add; f32 sums of T products
// layout  out^T = W x^T: W is the A operand, dequantized straight into wgmma's A registers; x [rows, k] is B, by TMA, 128-byte swizzle.
//         A byte holds k = 2j (high nibble) and 2j + 1: exactly the pair of one A register, so a thread picks one byte in four of
//         each row (lane % 4) and never exchanges anything. A byte looks up its two codes in shared memory.
// tile    128 outputs x TR rows per block: 1 warpgroup loads (a thread issues TMA for x and codes, two warps fetch and denest absmax, eight K steps at a time),
//         2 warpgroups multiply 64 outputs each; gated: one has the gate, the other the up outputs. K steps of 64.
// launch  clusters of `split` blocks share a tile, each a part of K; their f32 sums meet in distributed shared memory, in rank order
// floor   max(n k / 2 bytes / 4.3 TB/s, 2 rows n k / 785e12 s): 11008 x 4096 x 128 rows 15 us (H200)
// needs   sm_90a; k % 64 == 0, blockSize and nestedBlockSize powers of two, blockSize >= 64, k % blockSize == 0, under 2^32 blocks; 16-byte aligned x and codes; activation none, silu or relu
// exact   fixed order for a given number of rows; a row's bits do not depend on the other rows' values
// seen    H200, 11008 x 4096, CUDA graph: 65 rows 46 us, 128 rows 45-51, 256 rows 57; the dequantization bounds it (shared-memory look-ups and
//         instruction issue of two warps a scheduler), not the tensor cores
// ref     q::reference::linear in csrc/test/gemm_reference.cuh          bench  csrc/test/gemm.cu
#pragma once
#include "gemm_bnb4_codes.cuh"
#include "launch.h"

namespace q::cuda {

struct Bnb4Part {
  const void* absmax;  // f32, or u8 when nested
  const float* nested_absmax;  // null: plain
  const float* nested_code;
  const float* offset;
};

struct Bnb4Params {
  CUtensorMap x;  // boxes of 64 x TR
  CUtensorMap codes[kMaxRepeat];  // bytes [n, k / 2], boxes of 128 x 64, 128-byte swizzle
  Bnb4Part quant[kMaxRepeat];
  Finish finish;
  __half table[16];
  int64_t blocks_per_row;  // k / blockSize
  int steps_shift;  // log2(blockSize / 64)
  int nested_shift;  // log2(nestedBlockSize)
  int k_steps;  // k / 64
  int row_tiles;
  int split;  // blocks of a cluster
};

constexpr int kBnb4Threads = 384;
constexpr int bnb4_stages(int tr) { return tr > 192 ? 4 : tr > 128 ? 5 : 8; }
constexpr int kBnb4TableBytes = 256 * 32 * 4;  // both codes of every byte as f16, one copy a lane: no two lanes meet in a bank
constexpr int kBnb4CodeBytes = 128 * 128, kBnb4CodeStages = 3;  // codes of four K steps: TMA is slow with rows of 32 bytes
constexpr int kBnb4ScaleBytes = 8 * 128 * 4;  // eight K steps of absmax; two of these
constexpr int bnb4_shared_bytes(int tr) { return 1024 + kBnb4TableBytes + 2048 + 2 * (kBnb4ScaleBytes + 16) + kBnb4CodeStages * (kBnb4CodeBytes + 16) + bnb4_stages(tr) * (tr * 128 + 16); }

/// Adds the split's partial tiles (rows of 132 floats) and writes the rows that are this block's share.
template <class T> __device__ __forceinline__ void finish_transposed(const Bnb4Params& p, uint32_t partial, int rank, int part, int n0, int row0, int valid) {
  const Finish& f = p.finish;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 - 4;
  const int which = f.gated ? lane >> 4 : part;
  const int n = n0 + 4 * (f.gated ? lane & 15 : lane);
  const FinishPart& mine = f.part[which];
  float bias[4] = {};
  if (mine.bias) {
    for (int i = 0; i < 4; ++i) bias[i] = n + i < mine.n ? bias_of(mine, n + i) : 0.f;
  }
  const int last = valid * (rank + 1) / p.split;
  for (int first = valid * rank / p.split + warp; first < last; first += 32) {
    float4 sums[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // four rows under way at a time
      const uint32_t at = partial + (min(first + 8 * i, last - 1) * 132 + 4 * lane) * 4;
      sums[i] = p.split == 1 ? load_shared_floats(at) : sm90::cluster_read(at, 0);
      for (int s = 1; s < p.split; ++s) {
        const float4 t = sm90::cluster_read(at, s);
        sums[i].x += t.x;
        sums[i].y += t.y;
        sums[i].z += t.z;
        sums[i].w += t.w;
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = first + 8 * i;
      float v[4] = {sums[i].x + bias[0], sums[i].y + bias[1], sums[i].z + bias[2], sums[i].w + bias[3]};
      if (f.gated) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float up = __shfl_down_sync(0xffffffffu, v[e], 16);
          v[e] = activate_fused(f.activation, v[e]) * up;
        }
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] = activate_fused(f.activation, v[e]);
      }
      if (r >= last || n >= mine.n || (f.gated && lane >= 16)) continue;
      const int64_t at = static_cast<int64_t>(row0 + r) * f.ldo + (f.gated ? 0 : mine.column) + n;
      T* out = static_cast<T*>(f.out) + at;
      const T* residual = f.residual ? static_cast<const T*>(f.residual) + at : nullptr;
      if (f.vectors) {
        if (residual) {
          float add[4];
          load<T, 4>(add, residual);
#pragma unroll
          for (int e = 0; e < 4; ++e) v[e] += add[e];
        }
        store<T, 4>(out, v);
      } else {
        for (int e = 0; e < 4 && n + e < mine.n; ++e) out[e] = from_float<T>(v[e] + (residual ? to_float(residual[e]) : 0.f));
      }
    }
  }
}

template <class T, int TR> __global__ void __launch_bounds__(kBnb4Threads, 1) gemm_bnb4_kernel(const __grid_constant__ Bnb4Params p) {
#if Q_SM90A
  constexpr int kStages = bnb4_stages(TR), kStage = TR * 128;
  static_assert(kStages * kStage + kBnb4CodeStages * kBnb4CodeBytes >= TR * 132 * 4, "the partial tile overlays the stages of x and codes");
  extern __shared__ uint8_t raw[];
  const uint32_t tiles = (sm90::shared_address(raw) + 1023) & ~1023u, codes = tiles + kStages * kStage, scales = codes + kBnb4CodeStages * kBnb4CodeBytes;
  const uint32_t nested = scales + 2 * kBnb4ScaleBytes, barriers = nested + 2048, scale_barriers = barriers + kStages * 16, code_barriers = scale_barriers + 32;
  const uint32_t table = code_barriers + kBnb4CodeStages * 16;
  uint8_t* shared = raw + (tiles - sm90::shared_address(raw));
  float* nested_code = reinterpret_cast<float*>(shared + (nested - tiles));
  const int rank = p.split == 1 ? 0 : sm90::cluster_rank();
  const int tile = blockIdx.x / p.split, column_tile = tile / p.row_tiles, row0 = tile % p.row_tiles * TR;
  int part = 0;
  while (part + 1 < p.finish.parts && !p.finish.gated && column_tile >= p.finish.part[part + 1].first_tile) ++part;
  const int n0 = (column_tile - p.finish.part[part].first_tile) * (p.finish.gated ? 64 : 128);
  const int begin = static_cast<int>(static_cast<int64_t>(p.k_steps) * rank / p.split), end = static_cast<int>(static_cast<int64_t>(p.k_steps) * (rank + 1) / p.split);

  for (int i = threadIdx.x; i < 2048; i += kBnb4Threads) {
    const __half2 pair = __halves2half2(p.table[i / 128], p.table[i / 8 % 16]);
    const uint32_t bits = *reinterpret_cast<const uint32_t*>(&pair);
    *reinterpret_cast<uint4*>(shared + (table - tiles) + i * 16) = make_uint4(bits, bits, bits, bits);
  }
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      sm90::barrier_init(barriers + s * 16, 1);
      sm90::barrier_init(barriers + s * 16 + 8, 8);
    }
    for (int s = 0; s < kBnb4CodeStages; ++s) {
      sm90::barrier_init(code_barriers + s * 16, 1);
      sm90::barrier_init(code_barriers + s * 16 + 8, 8);
    }
    for (int s = 0; s < 2; ++s) {
      sm90::barrier_init(scale_barriers + s * 16, 2);
      sm90::barrier_init(scale_barriers + s * 16 + 8, 8);
    }
    sm90::barrier_init_fence();
    sm90::prefetch_map(&p.x);
  }
  pdl_begin();
  for (int i = threadIdx.x; i < 512; i += kBnb4Threads) {
    const Bnb4Part& q = p.quant[p.finish.gated ? i / 256 : part];
    if (q.nested_absmax) nested_code[i] = q.nested_code[i % 256];
  }
  __syncthreads();

  int stage = 0, parity = 0;
  if (threadIdx.x < 128) {
    sm90::fewer_registers<72>();
    if (threadIdx.x == 0) {
      const CUtensorMap *low = &p.codes[part], *high = &p.codes[p.finish.gated ? 1 : part];
      const int n1 = p.finish.gated ? n0 : n0 + 64;
      int code_stage = 0, code_parity = 0;
      for (int step = begin; step < end; ++step) {
        if ((step - begin) % 4 == 0) {
          const uint32_t full = code_barriers + code_stage * 16, at = codes + code_stage * kBnb4CodeBytes;
          sm90::barrier_wait(full + 8, code_parity ^ 1);
          sm90::barrier_expect(full, kBnb4CodeBytes);
          sm90::tensor_load(at, low, full, step * 32, n0);
          sm90::tensor_load(at + kBnb4CodeBytes / 2, high, full, step * 32, n1);
          if (++code_stage == kBnb4CodeStages) {
            code_stage = 0;
            code_parity ^= 1;
          }
        }
        const uint32_t full = barriers + stage * 16;
        sm90::barrier_wait(full + 8, parity ^ 1);
        sm90::barrier_expect(full, kStage);
        sm90::tensor_load(tiles + stage * kStage, &p.x, full, step * 64, row0);
        if (++stage == kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
    } else if (threadIdx.x >= 64) {  // one output of each half a thread
      const int t = threadIdx.x - 64;
      auto reader = [&](int half) {
        const int which = p.finish.gated ? half : part, n = n0 + t + (p.finish.gated ? 0 : half * 64);
        const Bnb4Part& q = p.quant[which];
        return AbsmaxReader{q.absmax, q.nested_absmax, nested_code + (p.finish.gated ? half * 256 : 0), static_cast<uint32_t>(n * p.blocks_per_row), q.nested_absmax ? *q.offset : 0.f, p.steps_shift, p.nested_shift,
                            n < p.finish.part[which].n, {}, {}};
      };
      AbsmaxReader low = reader(0), high = reader(1);
      low.fetch(begin, end);
      high.fetch(begin, end);
      for (int step = begin; step < end; step += 8) {
        const uint32_t full = scale_barriers + stage * 16;
        sm90::barrier_wait(full + 8, parity ^ 1);
        float* to = reinterpret_cast<float*>(shared + (scales - tiles)) + stage * 1024 + t;
        low.put(to);
        high.put(to + 64);
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(full);
        low.fetch(step + 8, end);
        high.fetch(step + 8, end);
        parity ^= stage;
        stage ^= 1;
      }
    }
    if (p.split > 1) sm90::cluster_sync();
  } else {
    sm90::more_registers<216>();
    const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
    const int line = (threadIdx.x / 32 - 4) * 16 + g;  // of the 128 outputs; the thread's other one is 8 further
    const uint32_t select = 0x4440 | c, bank = table + lane * 4;
    float acc[TR / 2];
    uint32_t a[2][4][4];
    uint32_t previous = 0;
    int group = 0, group_parity = 0, eighth = 0;  // where in the absmax of eight K steps
    int code_stage = 0, code_parity = 0, quarter = 0;  // and in the codes of four
    const int warpgroup = threadIdx.x / 128 - 1;
    // The warpgroups take turns at the tensor cores, so that one dequantizes while the other multiplies. Left alone they fall into step, and
    // both do the same at the same time (a warp that multiplies from registers cannot go on until these are read).
    if (warpgroup == 1) sm90::named_arrive(2, 256);
    auto step = [&](uint32_t (&fragments)[4][4], bool first, bool last) {
      if (eighth == 0) sm90::barrier_wait(scale_barriers + group * 16, group_parity);
      if (quarter == 0) sm90::barrier_wait(code_barriers + code_stage * 16, code_parity);
      const uint32_t at = codes + code_stage * kBnb4CodeBytes + line * 128, scale_at = scales + group * kBnb4ScaleBytes + eighth * 512 + line * 4;
      const Absmax<T> scale[2] = {Absmax<T>(load_shared(scale_at)), Absmax<T>(load_shared(scale_at + 32))};
      uint4 words[2][2];  // 16-byte chunk i of a row lies at place i ^ (row % 8)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int half = 0; half < 2; ++half) words[h][half] = load_shared16(at + h * 1024 + ((2 * quarter + half) ^ g) * 16);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4 w = words[h][half];
          fragments[2 * half][h] = dequantize_byte<T>(w.x, select, bank, scale[h]);
          fragments[2 * half][h + 2] = dequantize_byte<T>(w.y, select, bank, scale[h]);
          fragments[2 * half + 1][h] = dequantize_byte<T>(w.z, select, bank, scale[h]);
          fragments[2 * half + 1][h + 2] = dequantize_byte<T>(w.w, select, bank, scale[h]);
        }
      }
      __syncwarp();  // every lane has its codes and absmax
      if (++eighth == 8) {
        if (lane == 0) sm90::barrier_arrive(scale_barriers + group * 16 + 8);
        eighth = 0;
        group_parity ^= group;
        group ^= 1;
      }
      if (++quarter == 4) {
        if (lane == 0) sm90::barrier_arrive(code_barriers + code_stage * 16 + 8);
        quarter = 0;
        if (++code_stage == kBnb4CodeStages) {
          code_stage = 0;
          code_parity ^= 1;
        }
      }
      const uint32_t full = barriers + stage * 16;
      const uint64_t b = sm90::tile_descriptor(tiles + stage * kStage);
      sm90::barrier_wait(full, parity);
      sm90::named_barrier(2 + warpgroup, 256);
      sm90::wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; ++i) Wgmma<T, TR>::rs(acc, fragments[i], b + 2 * i, !first || i != 0);
      sm90::wgmma_commit();
      if (warpgroup == 0 || !last) sm90::named_arrive(3 - warpgroup, 256);
      sm90::wgmma_wait<1>();
      if (!first && lane == 0) sm90::barrier_arrive(previous);
      previous = full + 8;
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    };
    int i = begin;
    step(a[0], true, i + 1 == end);
    for (++i; i + 1 < end; i += 2) {
      step(a[1], false, false);
      step(a[0], false, i + 2 == end);
    }
    if (i < end) step(a[1], false, true);
    sm90::wgmma_wait<0>();
    sm90::named_barrier(1, 256);  // both warpgroups are done with the stages: the partial tile takes their place
    float* partial = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int j = 0; j < TR / 8; ++j) {
      float* to = partial + (8 * j + 2 * c) * 132 + line;
      to[0] = acc[4 * j];
      to[132] = acc[4 * j + 1];
      to[8] = acc[4 * j + 2];
      to[140] = acc[4 * j + 3];
    }
    if (p.split > 1) sm90::cluster_sync();
    else sm90::named_barrier(1, 256);
    finish_transposed<T>(p, tiles, rank, part, n0, row0, min(TR, p.finish.rows - row0));
  }
  if (p.split > 1) sm90::cluster_sync();  // the others may still read this block's partial tile
#else
  __trap();
#endif
}

template <class T> void launch_gemm_bnb4(Context& context, const Bnb4Params& p, int tr, int blocks);

/// Clusters of `size` blocks that the current device runs at a time (groups of multiprocessors are of uneven sizes).
int bnb4_clusters(int size);

template <class T, int TR> void launch_bnb4_instance(Context& context, const Bnb4Params& p, int blocks) {
  auto kernel = gemm_bnb4_kernel<T, TR>;
  constexpr int bytes = bnb4_shared_bytes(TR);
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "linear (bnb4)");
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = p.split;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(kBnb4Threads);
  config.dynamicSmemBytes = bytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  check(cudaLaunchKernelEx(&config, kernel, p), "linear (bnb4)");
}

}  // namespace q::cuda
