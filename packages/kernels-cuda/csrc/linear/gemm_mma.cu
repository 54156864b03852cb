// gemm_mma: out = finish(x[rows, k] . W[n, k]^T) with mma.sync          f16, bf16, int8; sm_75 and newer
// layout  row-major operands; K steps of 64 bytes staged through registers into double-buffered shared memory, rows
//         padded to 80 bytes (ldmatrix without bank conflicts). m16n8k16 for 16-bit and m16n8k32 for int8 have the same
//         fragments in bytes, so one body serves both; sm_75 takes m16n8k8 twice and m8n8k16 four times.
// launch  tile 128 rows x 128 outputs, 8 warps of 64 x 32
// floor   2 rows n k / tensor rate of the machine; this kernel is the fall-back where neither wgmma nor cuBLASLt serves
// needs   nothing: odd sizes and unaligned rows are read element by element
// exact   f32 (i32) sums in K order; a row does not depend on the others; ref q::reference::linear in
//         csrc/test/gemm_reference.cuh
#include "gemm_mma.cuh"

namespace q::cuda {
namespace {

constexpr int kPitch = 80;

__device__ __forceinline__ void load_fragments(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ void mma(half_t, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}
__device__ __forceinline__ void mma(bfloat_t, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();  // the host takes gemm_plain below sm_80
#endif
}
__device__ __forceinline__ void mma(int8_t, int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(d[2 * (i & 1)]), "+r"(d[2 * (i & 1) + 1])
                 : "r"(a[i]), "r"(i < 2 ? b0 : b1));
  }
#endif
}

/// 16 bytes of row `row` at byte `at`, zeros beyond the matrix.
template <class E>
__device__ __forceinline__ uint4 fetch(const void* base, int64_t row, int64_t rows, int64_t pitch, int64_t k,
                                       int64_t at, bool vectors) {
  uint4 v = make_uint4(0, 0, 0, 0);
  const int64_t first = at / sizeof(E);
  if (row >= rows || first >= k) return v;
  const E* from = static_cast<const E*>(base) + row * pitch + first;
  if (vectors) return *reinterpret_cast<const uint4*>(from);
  constexpr int kCount = 16 / sizeof(E);
  E* to = reinterpret_cast<E*>(&v);
  for (int i = 0; i < kCount; ++i) {
    if (first + i < k) to[i] = from[i];
  }
  return v;
}

template <class E, class T>
__global__ void __launch_bounds__(256) gemm_mma_kernel(const __grid_constant__ MmaParams p) {
  using Sum = std::conditional_t<sizeof(E) == 1, int, float>;
  __shared__ __align__(16) uint8_t shared[2][2][128 * kPitch];
  pdl_begin();
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const int column_tile = blockIdx.x / p.row_tiles;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x % p.row_tiles) * 128;
  int part = 0;
  while (part + 1 < p.finish.parts && column_tile >= p.finish.part[part + 1].first_tile) ++part;
  const FinishPart& mine = p.finish.part[part];
  const int n0 = (column_tile - mine.first_tile) * 128;
  const int warp_row = (warp / 4) * 64, warp_column = (warp % 4) * 32;
  Sum acc[4][4][4] = {};
  uint4 next[2][2];
  auto read = [&](int64_t step) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = threadIdx.x * 2 + i, row = at / 4;
      const int64_t byte = step * 64 + at % 4 * 16;
      next[0][i] = fetch<E>(p.x, row0 + row, p.finish.rows, p.x_pitch, p.k, byte, p.vectors);
      next[1][i] = fetch<E>(p.weight[part], n0 + row, mine.n, p.k, p.k, byte, p.vectors);
    }
  };
  auto keep = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = threadIdx.x * 2 + i, to = at / 4 * kPitch + at % 4 * 16;
      *reinterpret_cast<uint4*>(&shared[buffer][0][to]) = next[0][i];
      *reinterpret_cast<uint4*>(&shared[buffer][1][to]) = next[1][i];
    }
  };
  const int64_t steps = (p.k * sizeof(E) + 63) / 64;
  read(0);
  keep(0);
  __syncthreads();
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) read(step + 1);
    const uint32_t x = static_cast<uint32_t>(__cvta_generic_to_shared(shared[step & 1][0])),
                   w = static_cast<uint32_t>(__cvta_generic_to_shared(shared[step & 1][1]));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        load_fragments(a[i], x + (warp_row + i * 16 + (lane & 15)) * kPitch + half * 32 + (lane >> 4) * 16);
#pragma unroll
      for (int i = 0; i < 2; ++i)
        load_fragments(b[i], w + (warp_column + i * 16 + (lane & 7) + (lane >> 4) * 8) * kPitch + half * 32 +
                                 ((lane >> 3) & 1) * 16);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) mma(E{}, acc[i][j], a[i], b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]);
      }
    }
    if (step + 1 < steps) keep((step + 1) & 1);
    __syncthreads();
  }
  const int columns = sizeof(E) == 1 && p.groups ? 16 * p.groups[0] : 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = row0 + warp_row + i * 16 + (lane >> 2) + (e / 2) * 8;
        const int n = n0 + warp_column + j * 8 + (lane & 3) * 2 + (e & 1);
        if (row >= p.finish.rows || n >= mine.n) continue;
        float value = static_cast<float>(acc[i][j][e]);
        if constexpr (sizeof(E) == 1) {
          const float scale = p.scale[part][n];
          value *= p.row_scale[row] * (1.f / 16129.f) * scale;
          const int8_t* weight = static_cast<const int8_t*>(p.weight[part]) + n * p.k;
          for (int o = 0; o < columns; ++o) {
            const int64_t column = p.groups[1 + o / 16] * 16 + o % 16;
            if (column >= p.k) continue;
            const float v = to_float(static_cast<const T*>(p.x_float)[row * p.k + column]);
            if (fabsf(v) >= p.threshold)
              value += v * to_float(from_float<T>(static_cast<float>(weight[column]) * (scale / 127.f)));
          }
        }
        finish_one<T>(p.finish, mine, row, n, value);
      }
    }
  }
}

}  // namespace

void gemm_mma(Context& context, DType operand, DType out, const MmaParams& p, int column_tiles) {
  const dim3 grid(static_cast<unsigned>(column_tiles) * p.row_tiles);
  if (operand == DType::i8) {
    with_float(out, "linear", [&](auto zero) {
      launch(context, "linear (mma)", gemm_mma_kernel<int8_t, decltype(zero)>, grid, dim3(256), 0, p);
    });
  } else if (operand == DType::f16) {
    launch(context, "linear (mma)", gemm_mma_kernel<half_t, half_t>, grid, dim3(256), 0, p);
  } else {
    launch(context, "linear (mma)", gemm_mma_kernel<bfloat_t, bfloat_t>, grid, dim3(256), 0, p);
  }
}

}  // namespace q::cuda
