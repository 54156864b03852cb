// Flash attention on Hopper: the same maths as prefill.cu with wgmma, for D <= 128.
// layout  Q, K and V tiles as panels of 64 columns, rows of 128 bytes swizzled by 128 (what wgmma reads); S = Q K^T
//         from shared memory, O += P V with P in registers and V read transposed. A producer warpgroup gathers K and V
//         rows with cp.async, two stages
// floor   4 D operations per visible (query, key, head): 2048 x 2048 causal, 32 heads of 128: 34 GFLOP = 44 us at 785
//         TFLOP/s
// launch  grid (heads, tiles of 128 queries, sequences), 3 warpgroups: one copies, two have 64 queries each; 128 keys a
//         step
// needs   sm_90a, D % 8 == 0, D <= 128; exact fixed order; ref tensor/src/driver/schema.ts
#include "attention/row.cuh"
#include "launch.h"
#include "mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define Q_HOPPER 1
#else
#define Q_HOPPER 0
#endif

namespace q::cuda {
namespace {

constexpr int kQueries = 128, kKeys = 128, kStages = 2, kThreads = 384;
constexpr uint32_t kPanelBytes = 128 * 128;  // 128 rows of 64 elements
constexpr float kLog2e = 1.4426950408889634f;
template <int D>
constexpr uint32_t kTileBytes = D / 64 * kPanelBytes;
template <int D>
constexpr size_t kSharedBytes = size_t(1 + 2 * kStages) * kTileBytes<D> + 1024;

__device__ __forceinline__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>((piece >> 3) * kPanelBytes + row * 128 + (((piece & 7) ^ (row & 7)) << 4));
}

#if Q_HOPPER
__device__ __forceinline__ void barrier_init(uint32_t b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(arrivals));
}
__device__ __forceinline__ void barrier_arrive(uint32_t b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t b, int parity) {
  asm volatile(
      "{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra done; bra again; done: }" ::
          "r"(b),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void to_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_finish() {
  asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}

/// Descriptor of a tile with 128-byte swizzled rows, 8-row groups 1024 bytes apart; `panel` is the distance between
/// panels when the rows run along the contraction (V), in units of 16 bytes.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t panel) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | (static_cast<uint64_t>(panel) << 16) |
         (static_cast<uint64_t>(64) << 32) | (static_cast<uint64_t>(1) << 62);
}

#define Q_F8(i)                                                                                               \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define Q_F32(i) Q_F8(i), Q_F8(i + 8), Q_F8(i + 16), Q_F8(i + 24)
#define Q_L32                                                                                                          \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30," \
  "%31"
#define Q_L64                                                                                                      \
  Q_L32                                                                                                            \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%" \
  "59,%60,%61,%62,%63"

/// d[64 x 128] (+)= A B^T, both with rows along the contraction, from shared memory.
template <class T>
__device__ __forceinline__ void product_qk(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
#define Q_SS(TYPE)                                                                                                \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE \
               " {" Q_L64 "}, %64, %65, p, 1, 1, 0, 0;}"                                                          \
               : Q_F32(0), Q_F32(32)                                                                              \
               : "l"(a), "l"(b), "r"(accumulate))
  if constexpr (std::is_same_v<T, half_t>)
    Q_SS("f16");
  else
    Q_SS("bf16");
}
/// d[64 x N] += A B, A from registers, B with rows across the contraction.
template <class T>
__device__ __forceinline__ void product_pv(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
#define Q_RS128(TYPE)                                                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" Q_L64 \
               "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"                                \
               : Q_F32(0), Q_F32(32)                                                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  if constexpr (std::is_same_v<T, half_t>)
    Q_RS128("f16");
  else
    Q_RS128("bf16");
}
template <class T>
__device__ __forceinline__ void product_pv(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
#define Q_RS64(TYPE)                                                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" Q_L32 \
               "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"                               \
               : Q_F32(0)                                                             \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  if constexpr (std::is_same_v<T, half_t>)
    Q_RS64("f16");
  else
    Q_RS64("bf16");
}

struct Tile {
  int group, head, start, length, context, local, past, begin, end;
  const int32_t* table;
  const float* bias;  // the head's column of the distance bias, rows bias_stride apart
  int bias_stride;
};

/// The producer warpgroup: queries and first keys, then tile after tile as its stage becomes free.
template <class T, int D>
__device__ __forceinline__ void produce(const AttentionParams& p, const Tile& t, uint32_t shared, uint32_t full,
                                        uint32_t empty) {
  constexpr int kPieces = D / 8;
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const T* queries = static_cast<const T*>(p.qkv);
  for (int item = threadIdx.x & 127; item < kQueries * kPieces; item += 128) {
    const int row = item / kPieces, piece = item % kPieces;
    const bool valid = t.local + row < t.length && piece * 8 < p.head_dim;
    copy_async16(shared + place(row, piece),
                 valid ? queries + p.query_offset(int64_t(t.start) + t.local + row, t.head) + piece * 8 : queries,
                 valid);
  }
  const auto copy = [&](const T* cache, long long slot, int dim,
                        uint32_t to) {  // the warp's 32 rows; a lane holds the slot of one
#pragma unroll 4
    for (int i = 0; i < kPieces; ++i) {
      const int item = i * 32 + lane, row = item / kPieces, piece = item % kPieces;
      const long long from = __shfl_sync(0xffffffffu, slot, row);
      const bool valid = from >= 0 && piece * 8 < dim;
      copy_async16(to + place(warp * 32 + row, piece), cache + (valid ? from * dim + piece * 8 : 0), valid);
    }
    copy_async_commit();
  };
  const auto issue = [&](int base, int stage) {
    const int own = base + warp * 32 + lane;
    const long long slot = own < t.end ? p.slot(t.table, own, t.group) : -1;
    const uint32_t to = shared + (1 + 2 * stage) * kTileBytes<D>;
    copy(static_cast<const T*>(p.keys), slot, p.head_dim, to);
    copy(static_cast<const T*>(p.values), slot, p.value_dim, to + kTileBytes<D>);
  };
  issue(t.begin, 0);
  for (int base = t.begin, i = 0; base < t.end; base += kKeys, ++i) {
    const int stage = i & 1;
    copy_async_wait<1>();
    to_async_proxy();
    barrier_arrive(full + 16 * stage);
    copy_async_wait<0>();
    to_async_proxy();
    barrier_arrive(full + 16 * stage + 8);
    if (base + kKeys >= t.end) break;
    if (i >= 1) barrier_wait(empty + 8 * (stage ^ 1), ((i - 1) >> 1) & 1);
    issue(base + kKeys, stage ^ 1);
  }
}

/// A consumer warpgroup: 64 queries.
template <class T, int D, bool MODIFIED>
__device__ __forceinline__ void consume(const AttentionParams& p, const Tile& t, char* staged, uint32_t shared,
                                        uint32_t full, uint32_t empty) {
  const int half = (threadIdx.x >> 7) - 1, warp = (threadIdx.x >> 5) & 3, lane = threadIdx.x & 31, g = lane >> 2,
            c = lane & 3;
  const int first_row = half * 64 + warp * 16, first_query = t.past + t.local + half * 64;
  float o[D / 2] = {};
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
  const float scale = MODIFIED ? kLog2e : p.scale * kLog2e;
  for (int base = t.begin, i = 0; base < t.end; base += kKeys, ++i) {
    const int stage = i & 1, parity = (i >> 1) & 1;
    const uint32_t keys = shared + (1 + 2 * stage) * kTileBytes<D>, values = keys + kTileBytes<D>;
    float s[64];
    barrier_wait(full + 16 * stage, parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      const uint32_t at = (k / 4) * kPanelBytes + (k % 4) * 32;
      product_qk<T>(s, descriptor(shared + half * 64 * 128 + at, 1), descriptor(keys + at, 1), k > 0);
    }
    wgmma_finish();

    if (MODIFIED || base + kKeys > t.context || (p.causal && base + kKeys - 1 > first_query) ||
        (p.window > 0 && base <= first_query + 63 - p.window)) {
#pragma unroll
      for (int n = 0; n < 16; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int query = t.past + t.local + first_row + g + (e >> 1) * 8, key = base + n * 8 + 2 * c + (e & 1);
          if (!p.visible(query, key, t.context))
            s[4 * n + e] = -INFINITY;
          else if (MODIFIED)
            s[4 * n + e] = p.score(s[4 * n + e], t.head, query, key, t.bias, t.bias_stride);
        }
      }
    }
    uint32_t weights[8][4];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = largest[h];
#pragma unroll
      for (int n = 0; n < 16; ++n) most = fmaxf(most, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float safe = most == -INFINITY ? 0.f : most * scale;
      const float keep = exp2_fast(largest[h] * scale - safe);
      largest[h] = most;
      float sum = 0.f;
#pragma unroll
      for (int n = 0; n < 16; ++n) {
        const float w0 = exp2_fast(s[4 * n + 2 * h] * scale - safe),
                    w1 = exp2_fast(s[4 * n + 2 * h + 1] * scale - safe);
        sum += w0 + w1;
        weights[n / 2][(n & 1) * 2 + h] = pack2<T>(w0, w1);
      }
      total[h] = total[h] * keep + sum;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) o[4 * n + 2 * h] *= keep, o[4 * n + 2 * h + 1] *= keep;
    }

    barrier_wait(full + 16 * stage + 8, parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
      product_pv<T>(o, weights[k], descriptor(values + k * 16 * 128, kPanelBytes >> 4));
    wgmma_finish();
    barrier_arrive(empty + 8 * stage);
  }

  // Rows go out through the warp's own part of the query tile, so that global stores are 16 bytes.
  unsigned broken[2];  // lanes that hold NaN or infinity, of rows g and g + 8
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = total[h];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    sum = p.with_sink(sum, largest[h] == -INFINITY ? -INFINITY : largest[h] * scale, t.head);
    const float factor = sum == 0.f ? 0.f : 1.f / sum;
    float zeros = factor * 0.f;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<uint32_t*>(staged + place(first_row + g + 8 * h, n) + 4 * c) =
          pack2<T>(o[4 * n + 2 * h] * factor, o[4 * n + 2 * h + 1] * factor);
      zeros += o[4 * n + 2 * h] * 0.f + o[4 * n + 2 * h + 1] * 0.f;
    }
    broken[h] = __ballot_sync(0xffffffffu, !(zeros == 0.f));
  }
  __syncwarp();
  T* out = static_cast<T*>(p.out);
  for (int item = lane; item < 16 * (D / 8); item += 32) {
    const int row = first_row + item / (D / 8), piece = item % (D / 8);
    if (t.local + row >= t.length || piece * 8 >= p.value_dim) continue;
    const int64_t to = ((int64_t(t.start) + t.local + row) * p.heads + t.head) * p.value_dim + piece * 8;
    *reinterpret_cast<uint4*>(out + to) = *reinterpret_cast<const uint4*>(staged + place(row, piece));
  }
  if ((broken[0] | broken[1]) == 0) return;
  __syncwarp();
#pragma unroll 1
  for (int i = 0; i < 16; ++i) {
    const int row = t.local + first_row + i;
    if (((i < 8 ? broken[0] : broken[1]) >> (4 * (i & 7)) & 15) != 0 && row < t.length)
      attend_row<D / 32>(p, int64_t(t.start) + row, t.head, t.context, t.past + row, t.table);
  }
}
#endif

template <class T, int D, bool MODIFIED>
__global__ void __launch_bounds__(kThreads, 1) prefill_hopper_kernel(AttentionParams p) {
#if Q_HOPPER
  pdl_begin();
  extern __shared__ char dynamic_shared[];
  __shared__ uint64_t barriers[3 * kStages];  // keys full and values full by stage, then empty by stage
  Tile t;
  const int sequence = blockIdx.z;
  t.head = blockIdx.x;
  t.group = t.head / p.group_size;
  t.start = p.starts[sequence];
  t.length = p.starts[sequence + 1] - t.start;
  t.context = p.contexts[sequence];
  const int tile = (t.length + kQueries - 1) / kQueries - 1 - static_cast<int>(blockIdx.y);
  if (t.length <= 1 || tile < 0) return;
  t.local = tile * kQueries;
  t.past = t.context - t.length;
  const int last_query = t.past + (t.local + kQueries < t.length ? t.local + kQueries : t.length) - 1;
  t.end = p.causal && last_query + 1 < t.context ? last_query + 1 : t.context;
  t.begin = p.first_key(t.past + t.local) / kKeys * kKeys;
  t.table = p.tables + int64_t(sequence) * p.max_blocks;

  const uint32_t raw = shared_address(dynamic_shared), shared = (raw + 1023) & ~1023u;
  const uint32_t full = shared_address(barriers), empty = full + 16 * kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * kStages; ++i) barrier_init(full + 8 * i, 128);
    for (int i = 0; i < kStages; ++i) barrier_init(empty + 8 * i, 256);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  t.bias = p.bias + t.head;
  t.bias_stride = p.heads;
  if (MODIFIED && p.staged()) {
    float* staged = reinterpret_cast<float*>(dynamic_shared + kSharedBytes<D>);
    for (int i = threadIdx.x; i < p.distances; i += kThreads) staged[i] = t.bias[int64_t(i) * p.heads];
    t.bias = staged;
    t.bias_stride = 1;
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    produce<T, D>(p, t, shared, full, empty);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    consume<T, D, MODIFIED>(p, t, dynamic_shared + (shared - raw), shared, full, empty);
  }
#else
  __trap();
#endif
}

template <class T, int D>
void prefill_hopper(const AttentionParams& p, int max_query, Context& c) {
  const dim3 grid(static_cast<unsigned>(p.heads), blocks_for(max_query, kQueries), static_cast<unsigned>(p.sequences));
  const size_t shared = kSharedBytes<D> + (p.staged() ? p.distances * sizeof(float) : 0);
  const bool modified = p.modified();
  launch(c, "attention", modified ? prefill_hopper_kernel<T, D, true> : prefill_hopper_kernel<T, D, false>, grid,
         kThreads, shared, p);
}

}  // namespace

void attention_prefill_hopper(const AttentionParams& p, int max_query, int width, Context& c) {
  const auto go = [&](auto zero) {
    using T = decltype(zero);
    width == 64 ? prefill_hopper<T, 64>(p, max_query, c) : prefill_hopper<T, 128>(p, max_query, c);
  };
  p.act == DType::f16 ? go(half_t{}) : go(bfloat_t{});
}

}  // namespace q::cuda
