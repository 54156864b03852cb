// Flash attention over the paged cache for sequences with several queries (Dao 2023, arXiv 2307.08691, forward pass).
//   out = softmax(scores(q K^T)) V; online softmax over tiles of keys, f32 scores and sums, weights rounded to act for
//   the second product
// layout  Q, K and V tiles in shared memory, 16-byte pieces swizzled by row (piece ^ row % 8); two stages of K and V by
//         cp.async
// floor   4 D operations per visible (query, key, head): 2048 x 2048 causal, 32 heads of 128: 34 GFLOP = 44 us at 785
//         TFLOP/s
// launch  grid (heads, query tiles, sequences), the tiles with the most keys first; 4 warps; a warp has 32 queries (D
//         <= 128) or 16
// needs   sm_80, D % 8 == 0, D <= 256; exact fixed order; a sequence's bits depend on nothing else; ref
//         tensor/src/driver/schema.ts
#include "attention/row.cuh"
#include "launch.h"
#include "mma.cuh"

namespace q::cuda {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

/// Sizes of the kernel for head sizes up to D.
template <int D>
struct Shape {
  static constexpr int kWarps = D <= 128 ? 8 : 4, kThreads = 32 * kWarps;
  static constexpr int kTilesM = 1;  // m16 tiles of a warp
  static constexpr int kQueries = kWarps * 16 * kTilesM;
  static constexpr int kKeys = D <= 128 ? 64 : 32;
  static constexpr int kStride = (D + 63) / 64 * 64;  // elements of a row in shared memory
  static constexpr int kPieces = D / 8;               // 16-byte pieces of a row
  static constexpr size_t kSharedBytes = size_t(kQueries + 4 * kKeys) * kStride * 2;
};

/// Byte offset of piece `piece` of row `row`.
template <int D>
__device__ __forceinline__ uint32_t place(int row, int piece) {
  return static_cast<uint32_t>(row * Shape<D>::kStride * 2 + ((piece ^ (row & 7)) << 4));
}

/// Starts copying keys (or values) base .. base + kKeys; rows from `end` on become zeros.
template <class T, int D>
__device__ __forceinline__ void copy_tile(const AttentionParams& p, const T* cache, const int32_t* table, int group,
                                          int dim, int base, int end, uint32_t to) {
  using S = Shape<D>;
#pragma unroll
  for (int i = 0; i < S::kKeys * S::kPieces / S::kThreads; ++i) {
    const int item = i * S::kThreads + threadIdx.x, row = item / S::kPieces, piece = item % S::kPieces;
    const bool valid = base + row < end && piece * 8 < dim;
    const T* from = valid ? cache + p.slot(table, base + row, group) * dim + piece * 8 : cache;
    copy_async16(to + place<D>(row, piece), from, valid);
  }
}

template <class T, int D, bool MODIFIED>
__global__ void __launch_bounds__(Shape<D>::kThreads, D <= 128 ? 2 : 1) prefill_kernel(AttentionParams p) {
  pdl_begin();
  using S = Shape<D>;
  constexpr int M = S::kTilesM, kKeyTiles = S::kKeys / 8;
  extern __shared__ float4 dynamic_shared[];
  const uint32_t shared_q = shared_address(dynamic_shared);
  const uint32_t shared_k = shared_q + S::kQueries * S::kStride * 2, stage_bytes = S::kKeys * S::kStride * 2;
  const uint32_t shared_v = shared_k + 2 * stage_bytes;

  const int sequence = blockIdx.z, head = blockIdx.x, group = head / p.group_size;
  const int start = p.starts[sequence], length = p.starts[sequence + 1] - start, context = p.contexts[sequence];
  const int tile = (length + S::kQueries - 1) / S::kQueries - 1 - static_cast<int>(blockIdx.y);
  if (length <= 1 || tile < 0) return;
  const int local = tile * S::kQueries;  // first query of the tile, within the sequence's rows
  const int past = context - length;     // position of the sequence's first row
  const int first_query = past + local;
  const int last_query = past + (local + S::kQueries < length ? local + S::kQueries : length) - 1;
  const int end = p.causal && last_query + 1 < context ? last_query + 1 : context;
  const int begin = p.first_key(first_query) / S::kKeys * S::kKeys;
  const int32_t* table = p.tables + int64_t(sequence) * p.max_blocks;
  const T* keys = static_cast<const T*>(p.keys);
  const T* values = static_cast<const T*>(p.values);
  const T* queries = static_cast<const T*>(p.qkv);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;

  for (int item = threadIdx.x; item < S::kQueries * S::kPieces; item += S::kThreads) {
    const int row = item / S::kPieces, piece = item % S::kPieces;
    const bool valid = local + row < length && piece * 8 < p.head_dim;
    copy_async16(shared_q + place<D>(row, piece),
                 valid ? queries + p.query_offset(int64_t(start) + local + row, head) + piece * 8 : queries, valid);
  }
  copy_tile<T, D>(p, keys, table, group, p.head_dim, begin, end, shared_k);
  copy_tile<T, D>(p, values, table, group, p.value_dim, begin, end, shared_v);
  copy_async_commit();
  const float* column = p.bias + head;
  int stride = p.heads;
  if (MODIFIED && p.staged()) {
    float* staged = reinterpret_cast<float*>(reinterpret_cast<char*>(dynamic_shared) + S::kSharedBytes);
    for (int i = threadIdx.x; i < p.distances; i += S::kThreads) staged[i] = column[int64_t(i) * stride];
    column = staged;  // read after the barrier of the first tile
    stride = 1;
  }

  float o[M][D / 8][4] = {};
  float largest[M][2], total[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m) largest[m][0] = largest[m][1] = -INFINITY, total[m][0] = total[m][1] = 0.f;
  const float scale = MODIFIED ? kLog2e : p.scale * kLog2e;

  for (int base = begin, stage = 0; base < end; base += S::kKeys, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();
    if (base + S::kKeys < end) {
      copy_tile<T, D>(p, keys, table, group, p.head_dim, base + S::kKeys, end, shared_k + (stage ^ 1) * stage_bytes);
      copy_tile<T, D>(p, values, table, group, p.value_dim, base + S::kKeys, end, shared_v + (stage ^ 1) * stage_bytes);
    }
    copy_async_commit();

    float s[M][kKeyTiles][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t a[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m)
        ldmatrix4(a[m], shared_q + place<D>((warp * M + m) * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        ldmatrix4(b, shared_k + stage * stage_bytes +
                         place<D>(n * 8 + (lane & 7) + (lane >> 4) * 8, 2 * k + ((lane >> 3) & 1)));
#pragma unroll
        for (int m = 0; m < M; ++m) {
          mma<T>(s[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
          mma<T>(s[m][n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
        }
      }
    }

    const bool masked = base + S::kKeys > context || (p.causal && base + S::kKeys - 1 > first_query) ||
                        (p.window > 0 && base <= last_query - p.window);
    if (MODIFIED || masked) {
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = local + (warp * M + m) * 16 + g + (e >> 1) * 8, query = past + row,
                      key = base + n * 8 + 2 * c + (e & 1);
            const bool visible = p.visible(query, key, context);
            if (MODIFIED)
              s[m][n][e] = visible && row < length ? p.score(s[m][n][e], head, query, key, column, stride) : -INFINITY;
            else if (!visible)
              s[m][n][e] = -INFINITY;
          }
        }
      }
    }

    uint32_t weights[M][kKeyTiles][2];
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float most = largest[m][h];
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) most = fmaxf(most, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float safe = most == -INFINITY ? 0.f : most * scale;
        const float keep = exp2_fast(largest[m][h] * scale - safe);
        largest[m][h] = most;
        float sum = 0.f;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
          const float w0 = exp2_fast(s[m][n][2 * h] * scale - safe), w1 = exp2_fast(s[m][n][2 * h + 1] * scale - safe);
          sum += w0 + w1;
          weights[m][n][h] = pack2<T>(w0, w1);
        }
        total[m][h] = total[m][h] * keep + sum;
#pragma unroll
        for (int d = 0; d < D / 8; ++d) o[m][d][2 * h] *= keep, o[m][d][2 * h + 1] *= keep;
      }
    }

#pragma unroll
    for (int k = 0; k < S::kKeys / 16; ++k) {
#pragma unroll
      for (int d = 0; d < D / 8; d += 2) {
        uint32_t b[4];
        ldmatrix4_transposed(b, shared_v + stage * stage_bytes + place<D>(k * 16 + (lane & 15), d + (lane >> 4)));
#pragma unroll
        for (int m = 0; m < M; ++m) {
          const auto& w = weights[m];
          mma<T>(o[m][d], w[2 * k][0], w[2 * k][1], w[2 * k + 1][0], w[2 * k + 1][1], b[0], b[1]);
          mma<T>(o[m][d + 1], w[2 * k][0], w[2 * k][1], w[2 * k + 1][0], w[2 * k + 1][1], b[2], b[3]);
        }
      }
    }
  }

  // Rows go out through the warp's own part of the query tile, so that global stores are 16 bytes.
  copy_async_wait<0>();
  __syncthreads();
  char* staged = reinterpret_cast<char*>(dynamic_shared);
  unsigned broken[M][2];  // lanes that hold NaN or infinity, of rows g and g + 8
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[m][h];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      sum = p.with_sink(sum, largest[m][h] == -INFINITY ? -INFINITY : largest[m][h] * scale, head);
      const float factor = sum == 0.f ? 0.f : 1.f / sum;
      float zeros = factor * 0.f;
      const int row = (warp * M + m) * 16 + g + 8 * h;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        *reinterpret_cast<uint32_t*>(staged + place<D>(row, d) + 4 * c) =
            pack2<T>(o[m][d][2 * h] * factor, o[m][d][2 * h + 1] * factor);
        zeros += o[m][d][2 * h] * 0.f + o[m][d][2 * h + 1] * 0.f;
      }
      broken[m][h] = __ballot_sync(0xffffffffu, !(zeros == 0.f));
    }
  }
  __syncwarp();
  T* out = static_cast<T*>(p.out);
  for (int item = lane; item < 16 * M * S::kPieces; item += 32) {
    const int row = warp * M * 16 + item / S::kPieces, piece = item % S::kPieces;
    if (local + row >= length || piece * 8 >= p.value_dim) continue;
    const int64_t to = ((int64_t(start) + local + row) * p.heads + head) * p.value_dim + piece * 8;
    *reinterpret_cast<uint4*>(out + to) = *reinterpret_cast<const uint4*>(staged + place<D>(row, piece));
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
    if ((broken[m][0] | broken[m][1]) == 0) continue;
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < 16; ++i) {
      const int row = local + (warp * M + m) * 16 + i;
      if (((i < 8 ? broken[m][0] : broken[m][1]) >> (4 * (i & 7)) & 15) != 0 && row < length)
        attend_row<(D + 31) / 32>(p, int64_t(start) + row, head, context, past + row, table);
    }
  }
}

template <class T, int D>
void prefill(const AttentionParams& p, int max_query, Context& c) {
  using S = Shape<D>;
  const dim3 grid(static_cast<unsigned>(p.heads), blocks_for(max_query, S::kQueries),
                  static_cast<unsigned>(p.sequences));
  const bool modified = p.modified();
  const size_t shared = S::kSharedBytes + (p.staged() ? p.distances * sizeof(float) : 0);
  require(shared <= c.shared_bytes_per_block, "attention: this head size needs more shared memory than the device has");
  launch(c, "attention", modified ? prefill_kernel<T, D, true> : prefill_kernel<T, D, false>, grid, S::kThreads, shared,
         p);
}

template <class T>
void prefill(const AttentionParams& p, int max_query, int width, Context& c) {
  if (width == 64) return prefill<T, 64>(p, max_query, c);
  if (width == 96) return prefill<T, 96>(p, max_query, c);
  if (width == 128) return prefill<T, 128>(p, max_query, c);
  if (width == 192) return prefill<T, 192>(p, max_query, c);
  prefill<T, 256>(p, max_query, c);
}

}  // namespace

void attention_prefill(const AttentionParams& p, int max_query, int width, Context& c) {
  if (p.act == DType::f16) return prefill<half_t>(p, max_query, width, c);
  prefill<bfloat_t>(p, max_query, width, c);
}

}  // namespace q::cuda
