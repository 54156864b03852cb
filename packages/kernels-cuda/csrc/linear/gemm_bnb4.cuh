// gemm_bnb4: out = finish(x[rows, k] . dequant(W)[n, k]^T) for 17 to 256 rows on Hopper; nf4 / fp4, plain or nested
// maths   W = round_T(f16(code[nibble]) * absmax), bitsandbytes' dequantization but for the code's rounding (2^-12 of
//         it); f16: absmax as a sum of two f16, one fused multiply-add; f32 sums of T products
// layout  out^T = W x^T: W is the A operand, dequantized straight into wgmma's A registers; x [rows, k] is B, by TMA,
//         128-byte swizzle. A byte holds k = 2j (high nibble) and 2j + 1: exactly the pair of one A register, so a
//         thread picks one byte in four of each row (lane % 4) and never exchanges anything. A byte looks up its two
//         codes in shared memory.
// tile    64 outputs a warpgroup (1 to 3 of them) x TR rows of x; K steps of 64. While the tensor cores multiply a
//         step, a warp looks up the codes of the next one and loads the bytes of the one after; scaling by absmax
//         stands just before the product. Every warp multiplies, and they take turns at issuing TMA (x: a step, codes:
//         four). gated: 32 outputs of gate and the same of up in a warpgroup.
// launch  clusters of `split` blocks share a tile, each a part of K; their f32 sums meet in distributed shared memory,
//         in rank order
// floor   max(n k / 2 bytes / 4.3 TB/s, 2 rows n k / 785e12 s): 11008 x 4096: 5.2 us to 44 rows, 7.5 us 64, 15 us 128,
//         30 us 256 (H200)
// needs   sm_90a; k % 64 == 0, blockSize and nestedBlockSize powers of two, blockSize >= 64, k % blockSize == 0, under
//         2^32 blocks; 16-byte aligned x and codes; activation none, silu or relu
// exact   fixed order for a given number of rows; a row's bits do not depend on the other rows' values
// seen    H200, 11008 x 4096, CUDA graph, us, nf4 (nested within 2 %): 32 rows 21, 64 rows 23, 96 rows 26, 128 rows 29,
//         192 rows 43, 256 rows 49. Of the 52,000 cycles for 128 rows the K steps take 36,000 (1,130 a step; tensor
//         cores alone 768), sums and finish 6,500, start and launch 8,000
// ref     q::reference::linear in csrc/test/gemm_reference.cuh          bench  csrc/test/gemm_bench.cu (rows)
#pragma once
#include "gemm_bnb4_codes.cuh"
#include "launch.h"
#include <type_traits>

namespace q::cuda {

struct Bnb4Params {
  CUtensorMap x;                  // boxes of 64 x TR
  CUtensorMap codes[kMaxRepeat];  // bytes [n, k / 2], boxes of 128 x the tile's outputs (gated: 32), 128-byte swizzle
  Bnb4Part quant[kMaxRepeat];
  Finish finish;
  __half table[16];
  int64_t blocks_per_row;  // k / blockSize
  int steps_shift;         // log2(blockSize / 64)
  int nested_shift;        // log2(nestedBlockSize)
  int k_steps;             // k / 64
  int row_tiles;
  int split;  // blocks of a cluster
};

constexpr int kBnb4Warpgroups = 3;  // at most: the sums leave registers for no more
constexpr int bnb4_stages(int tr) { return tr > 64 ? 5 : 8; }
constexpr int kBnb4TableBytes =
    256 * 32 * 4;              // both codes of every byte as f16, one copy a lane: no two lanes meet in a bank
constexpr int kBnb4Group = 4;  // K steps of codes that are loaded together: TMA is slow with rows of 32 bytes
constexpr int kBnb4CodeStages = 3;
constexpr int kBnb4CodeBytes = kBnb4Warpgroups * 64 * kBnb4Group * 32;
constexpr int bnb4_shared_bytes(int tr) {
  return 1024 + kBnb4TableBytes + 2048 + kBnb4CodeStages * (kBnb4CodeBytes + 16) + bnb4_stages(tr) * (tr * 128 + 16);
}

/// Rows [first, last) of the tile to memory: adds the split's partial tiles (`pitch` floats a row) in rank order, and
/// finishes. A thread keeps to four outputs.
template <class T, int AtOnce>
__device__ __forceinline__ void finish_transposed(const Finish& f, uint32_t partial, int pitch, int split, int rank,
                                                  int part, int n0, int row0, int first, int last) {
  const bool gated = f.gated;
  const int fours = (pitch - 4) / (gated ? 8 : 4), each = gated ? 16 : 8;  // threads of a row, rows of a pass
  const int o = threadIdx.x % fours * 4, n = n0 + o, line = gated ? o / 32 * 64 + o % 32 : o;
  const FinishPart& mine = f.part[part];
  if (n >= mine.n) return;
  auto bias_four = [&](float (&v)[4], const FinishPart& from) {
    if (!from.bias) return;
#pragma unroll 1
    for (int e = 0; e < 4; ++e) {
      const float add = n + e < from.n ? bias_of(from, n + e) : 0.f;
      v[0] = e == 0 ? add : v[0], v[1] = e == 1 ? add : v[1], v[2] = e == 2 ? add : v[2], v[3] = e == 3 ? add : v[3];
    }
  };
  float bias[4] = {}, bias_up[4] = {};
  bias_four(bias, mine);
  if (gated) bias_four(bias_up, f.part[1]);
  auto read = [&](float4(&sums)[AtOnce], int row, int at) {  // AtOnce rows under way
#pragma unroll 1
    for (int r = 0; r < split; ++r) {
      const uint32_t base = partial + (row * pitch + at) * 4;
      float4 more[AtOnce];
      if (r == rank) {
#pragma unroll
        for (int i = 0; i < AtOnce; ++i) more[i] = load_shared_floats(base + min(each * i, last - 1 - row) * pitch * 4);
      } else {
        const uint32_t there = sm90::cluster_address(base, r);
#pragma unroll
        for (int i = 0; i < AtOnce; ++i)
          more[i] = sm90::cluster_read(there + min(each * i, last - 1 - row) * pitch * 4);
      }
#pragma unroll
      for (int i = 0; i < AtOnce; ++i)
        sums[i] = r == 0 ? more[i]
                         : make_float4(sums[i].x + more[i].x, sums[i].y + more[i].y, sums[i].z + more[i].z,
                                       sums[i].w + more[i].w);
    }
  };
#pragma unroll 1
  for (int row = first + threadIdx.x / fours; row < last; row += AtOnce * each) {
    float4 sums[AtOnce], ups[AtOnce];
    read(sums, row, line);
    if (gated) read(ups, row, line + 32);
    int64_t at = static_cast<int64_t>(row0 + row) * f.ldo + (gated ? 0 : mine.column) + n;
#pragma unroll
    for (int i = 0; i < AtOnce; ++i, at += each * f.ldo) {
      if (row + each * i >= last) break;
      float v[4] = {sums[i].x + bias[0], sums[i].y + bias[1], sums[i].z + bias[2], sums[i].w + bias[3]};
      if (f.activation != ActivationKind::none) {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] = activate_fused(f.activation, v[e]);
      }
      if (gated)
        v[0] *= ups[i].x + bias_up[0], v[1] *= ups[i].y + bias_up[1], v[2] *= ups[i].z + bias_up[2],
            v[3] *= ups[i].w + bias_up[3];
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
#pragma unroll 1
        for (int e = 0; e < 4 && n + e < mine.n; ++e) {
          const float y = e == 0 ? v[0] : e == 1 ? v[1] : e == 2 ? v[2] : v[3];
          out[e] = from_float<T>(y + (residual ? to_float(residual[e]) : 0.f));
        }
      }
    }
  }
}

/// One function, as its stages share registers, and the compiler starts products early only where it sees all writes to
/// their A registers.
template <class T, int TR>
__global__ void __launch_bounds__(kBnb4Warpgroups * 128, 1) gemm_bnb4_kernel(const __grid_constant__ Bnb4Params p) {
#if Q_SM90A
  constexpr int kStages = bnb4_stages(TR), kStage = TR * 128;
  static_assert(kStages * kStage + kBnb4CodeStages * kBnb4CodeBytes >= TR * (kBnb4Warpgroups * 64 + 4) * 4,
                "the partial tile overlays the stages of x and codes");
  extern __shared__ uint8_t raw[];
  const uint32_t tiles = (sm90::shared_address(raw) + 1023) & ~1023u, codes = tiles + kStages * kStage,
                 table = codes + kBnb4CodeStages * kBnb4CodeBytes;
  const uint32_t nested = table + kBnb4TableBytes, barriers = nested + 2048, code_barriers = barriers + kStages * 16;
  uint8_t* shared = raw + (tiles - sm90::shared_address(raw));
  float* nested_code = reinterpret_cast<float*>(shared + (nested - tiles));

  const bool gated = p.finish.gated;
  const int threads = blockDim.x, warps = threads / 32, lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane >> 2,
            c = lane & 3;
  const int outputs = threads / 2;  // A rows of the tile: 64 a warpgroup
  const int rank = p.split == 1 ? 0 : sm90::cluster_rank();
  const int tile = blockIdx.x / p.split, column_tile = tile / p.row_tiles, row0 = tile % p.row_tiles * TR;
  int part = 0;
  while (part + 1 < p.finish.parts && !gated && column_tile >= p.finish.part[part + 1].first_tile) ++part;
  const int n0 = (column_tile - p.finish.part[part].first_tile) * (gated ? outputs / 2 : outputs);
  const int begin = static_cast<int>(static_cast<int64_t>(p.k_steps) * rank / p.split),
            end = static_cast<int>(static_cast<int64_t>(p.k_steps) * (rank + 1) / p.split);
  const int steps = end - begin, groups = (steps + kBnb4Group - 1) / kBnb4Group;

  auto each_box = [&](auto use) {  // boxes of codes in one group
    if (!gated) return use(&p.codes[part], 0, n0);
#pragma unroll 1
    for (int b = 0; b < outputs / 32; ++b) use(&p.codes[b & 1], b * 32, n0 + b / 2 * 32);
  };
  auto load_codes = [&](int group) {
    const uint32_t slot = group % kBnb4CodeStages, full = code_barriers + slot * 16, to = codes + slot * kBnb4CodeBytes;
    sm90::barrier_expect(full, outputs * 128);
    each_box([&](const CUtensorMap* map, int line, int n) {
      sm90::tensor_load(to + line * 128, map, full, (begin + group * kBnb4Group) * 32, n);
    });
  };
  auto load_x = [&](int step) {
    const uint32_t slot = step % kStages, full = barriers + slot * 16;
    sm90::barrier_expect(full, kStage);
    sm90::tensor_load(tiles + slot * kStage, &p.x, full, (begin + step) * 64, row0);
  };

  const int line = warp * 16 + g;  // of the tile's A rows; the thread's other one is 8 further
  const int which = gated ? line / 32 & 1 : part, n = n0 + (gated ? line / 64 * 32 + line % 32 : line);
  const Bnb4Part& quant = p.quant[which];
  AbsmaxReader absmax{quant,
                      nested_code + which % 2 * 256,
                      {static_cast<uint32_t>(n * p.blocks_per_row), static_cast<uint32_t>((n + 8) * p.blocks_per_row)},
                      {n < p.finish.part[which].n, n + 8 < p.finish.part[which].n},
                      p.steps_shift,
                      p.nested_shift,
                      0.f,
                      {},
                      {}};
  if (threadIdx.x == 0) {  // each thread makes the barriers of the loads that it issues
    for (int s = 0; s < kBnb4CodeStages; ++s) {
      sm90::barrier_init(code_barriers + s * 16, 1);
      sm90::barrier_init(code_barriers + s * 16 + 8, warps);
    }
    sm90::barrier_init_fence();
    each_box([&](const CUtensorMap* map, int, int n) {
      sm90::prefetch_map(map);
      sm90::tensor_prefetch(map, begin * 32, n);
    });
  } else if (threadIdx.x == 32) {
    sm90::prefetch_map(&p.x);
    for (int s = 0; s < kStages; ++s) {
      sm90::barrier_init(barriers + s * 16, 1);
      sm90::barrier_init(barriers + s * 16 + 8, warps);
    }
    sm90::barrier_init_fence();
  } else {
    absmax.prefetch(begin, end, c);
  }
  {
    const uint32_t mine = __half_as_ushort(p.table[lane & 15]);
    for (int i = threadIdx.x; i < 2048; i += threads) {
      const uint32_t bits = __shfl_sync(0xffffffffu, mine, i / 128) | __shfl_sync(0xffffffffu, mine, i / 8 % 16) << 16;
      *reinterpret_cast<uint4*>(shared + (table - tiles) + i * 16) = make_uint4(bits, bits, bits, bits);
    }
  }
  pdl_begin();
  AbsmaxReader start = absmax;
  start.fetch(begin + c, end);
  absmax.fetch(begin + kBnb4Group + c, end);
  if (threadIdx.x == 0) {
    for (int i = 0; i < min(groups, kBnb4CodeStages); ++i) load_codes(i);
  } else if (threadIdx.x == 32) {
    for (int i = 0; i < min(steps, kStages); ++i) load_x(i);
  }
  __syncwarp();
  if (quant.nested_absmax) {
    absmax.offset = start.offset = *quant.offset;
    for (int i = threadIdx.x; i < 512; i += threads)
      nested_code[i] = (gated ? p.quant[i / 256] : quant).nested_code[i % 256];
  }
  __syncthreads();

  const uint32_t select = 0x4440 | c, bank = table + lane * 4;
  float acc[TR / 2];
  uint32_t fragments[2][4][4], pairs[4][4], packed[2], scale[2];
  uint4 low[2], high[2];                         // codes of a step, 32 k each: rows `line` and `line` + 8
  uint32_t place = codes + line * 128 + g * 16;  // piece i (16 bytes) of a row of codes lies at place i ^ (row % 8)
  int code_stage = 0, code_parity = 0, stage = 0, parity = 0, turn = warp;
  auto load_half = [&](int half, int piece) {
    low[half] = load_shared16(place ^ piece * 16);
    high[half] = load_shared16((place ^ piece * 16) + 1024);
  };
  auto look_up_half = [&](int half) {
    const uint4 a = low[half], b = high[half];
    uint32_t (&first)[4] = pairs[2 * half], (&second)[4] = pairs[2 * half + 1];
    first[0] = look_up(a.x, select, bank), first[1] = look_up(b.x, select, bank), first[2] = look_up(a.y, select, bank),
    first[3] = look_up(b.y, select, bank);
    second[0] = look_up(a.z, select, bank), second[1] = look_up(b.z, select, bank),
    second[2] = look_up(a.w, select, bank), second[3] = look_up(b.w, select, bank);
  };
  auto next_group = [&](int step) {  // absmax of the group that begins at `step`, and the fetch of the one after it
    packed[0] = Absmax<T>::pack(absmax.value(0));
    packed[1] = Absmax<T>::pack(absmax.value(1));
    absmax.fetch(begin + step + kBnb4Group + c, end);
  };
  auto next_scale = [&](int quarter) {
    scale[0] = __shfl_sync(0xffffffffu, packed[0], quarter, 4);
    scale[1] = __shfl_sync(0xffffffffu, packed[1], quarter, 4);
  };
  /// One K step, the quarter-th of its group: scales what was looked up a step ago, starts its products and looks up
  /// the next step's codes; past the last step anything may be looked up. (The branch of the wait for x keeps the
  /// compiler from scaling at once, which would wait for the look-ups.)
  auto multiply_step = [&](int step, auto quarter_constant) {
    constexpr int kQuarter = decltype(quarter_constant)::value;
    uint32_t (&a)[4][4] = fragments[kQuarter & 1];
    const uint64_t b = sm90::tile_descriptor(tiles + stage * kStage);
    sm90::barrier_wait(barriers + stage * 16, parity);
    const Absmax<T> first(scale[0]), second(scale[1]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[i][0] = first.times(pairs[i][0]), a[i][1] = second.times(pairs[i][1]), a[i][2] = first.times(pairs[i][2]),
      a[i][3] = second.times(pairs[i][3]);
    sm90::wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<T, TR>::rs(acc, a[i], b + 2 * i, step != 0 || i != 0);
    sm90::wgmma_commit();
    look_up_half(0);
    const int used = code_stage;
    if (kQuarter == kBnb4Group - 2) {
      if (++code_stage == kBnb4CodeStages) {
        code_stage = 0;
        code_parity ^= 1;
      }
      place = codes + code_stage * kBnb4CodeBytes + line * 128 + g * 16;
      if (step + 2 < steps) sm90::barrier_wait(code_barriers + code_stage * 16, code_parity);
    }
    load_half(0, (2 * kQuarter + 4) % 8);
    look_up_half(1);
    if (kQuarter == kBnb4Group - 2) {  // every lane has its codes of the group
      __syncwarp();
      if (lane == 0) sm90::barrier_arrive(code_barriers + used * 16 + 8);
    }
    load_half(1, (2 * kQuarter + 5) % 8);
    if (kQuarter == kBnb4Group - 1) next_group(step + 1);
    next_scale((kQuarter + 1) % kBnb4Group);
    sm90::wgmma_wait<1>();  // the step before is done
    if (step != 0 && lane == 0) sm90::barrier_arrive(barriers + (stage == 0 ? kStages - 1 : stage - 1) * 16 + 8);
    if (turn == 0 &&
        lane == 0) {  // refill what was used two steps ago (codes: a group ago), so that nobody waits for a slower warp
      const int last = step - 2, group = step / kBnb4Group - 1;
      if (last >= 0 && last + kStages < steps) {
        sm90::barrier_wait(barriers + last % kStages * 16 + 8, last / kStages & 1);
        load_x(last + kStages);
      }
      if (kQuarter == 1 && group >= 0 && group + kBnb4CodeStages < groups) {
        sm90::barrier_wait(code_barriers + group % kBnb4CodeStages * 16 + 8, group / kBnb4CodeStages & 1);
        load_codes(group + kBnb4CodeStages);
      }
    }
    __syncwarp();
    turn = turn == 0 ? warps - 1 : turn - 1;
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  };

  sm90::barrier_wait(code_barriers, 0);
  load_half(0, 0);
  load_half(1, 1);
  look_up_half(0);
  load_half(0, 2);
  look_up_half(1);
  load_half(1, 3);
  packed[0] = Absmax<T>::pack(start.value(0));
  packed[1] = Absmax<T>::pack(start.value(1));
  next_scale(0);
  for (int step = 0;;) {  // with breaks, so that the compiler sees each step's A registers follow the other ones
    multiply_step(step, std::integral_constant<int, 0>{});
    if (++step >= steps) break;
    multiply_step(step, std::integral_constant<int, 1>{});
    if (++step >= steps) break;
    multiply_step(step, std::integral_constant<int, 2>{});
    if (++step >= steps) break;
    multiply_step(step, std::integral_constant<int, 3>{});
    if (++step >= steps) break;
  }
  sm90::wgmma_wait<0>();
  __syncthreads();  // all are done with the stages: the partial tile takes their place
  const int pitch = outputs + 4;
  float* partial = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int j = 0; j < TR / 8; ++j) {
    float* to = partial + (8 * j + 2 * c) * pitch + line;
    to[0] = acc[4 * j];
    to[pitch] = acc[4 * j + 1];
    to[8] = acc[4 * j + 2];
    to[pitch + 8] = acc[4 * j + 3];
  }
  if (p.split > 1)
    sm90::cluster_sync();
  else
    __syncthreads();
  const int valid = min(TR, p.finish.rows - row0), first = valid * rank / p.split, last = valid * (rank + 1) / p.split;
  finish_transposed<T, (TR < 64 ? 2 : 4)>(p.finish, tiles, pitch, p.split, rank, part, n0, row0, first, last);
  __syncwarp();
  if (p.split > 1) sm90::cluster_leave();  // the others may still read this block's partial tile
#else
  __trap();
#endif
}

/// Blocks of 64 * warpgroups outputs x tr rows.
template <class T>
void launch_gemm_bnb4(Context& context, const Bnb4Params& p, int tr, int warpgroups, int blocks);

/// Clusters of `size` blocks that the current device runs at a time (groups of multiprocessors are of uneven sizes).
int bnb4_clusters(int size);

template <class T, int TR>
void launch_bnb4_instance(Context& context, const Bnb4Params& p, int warpgroups, int blocks) {
  auto kernel = gemm_bnb4_kernel<T, TR>;
  constexpr int bytes = bnb4_shared_bytes(TR);
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "linear (bnb4)");
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = p.split;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(warpgroups * 128);
  config.dynamicSmemBytes = bytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  check(cudaLaunchKernelEx(&config, kernel, p), "linear (bnb4)");
}

template <class T>
void launch_bnb4_rows(Context& context, const Bnb4Params& p, int tr, int warpgroups, int blocks) {
  switch (tr) {
    case 32:
      return launch_bnb4_instance<T, 32>(context, p, warpgroups, blocks);
    case 64:
      return launch_bnb4_instance<T, 64>(context, p, warpgroups, blocks);
    case 96:
      return launch_bnb4_instance<T, 96>(context, p, warpgroups, blocks);
    case 128:
      return launch_bnb4_instance<T, 128>(context, p, warpgroups, blocks);
    default:
      throw CommandError("linear (bnb4): no instance for " + std::to_string(tr) + " rows");
  }
}

}  // namespace q::cuda
