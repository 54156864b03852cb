// gemm_plain: out = finish(x[rows, k] . W[n, k]^T) in f32 arithmetic          any float types
// layout  row-major; tiles of 64 rows x 64 outputs, K steps of 16 in shared memory, 4 x 4 outputs a thread
// floor   2 rows n k / 60e12 s (f32 rate of an H200); for f32 models and the f32 compute dtype, not a fast path
// exact   f32 sums in K order          ref  q::reference::linear in csrc/test/gemm_reference.cuh
// finish_rows: the elementwise rest of a linear (activation, gating, residual) after a product that could not fuse it
//   floor  rows * columns * (product + out + residual) bytes: 2048 x 22016 gated f16 135 MB = 31 us
#include "gemm_mma.cuh"

namespace q::cuda {
namespace {

template <class X, class W>
__global__ void __launch_bounds__(256) gemm_plain_kernel(const __grid_constant__ MmaParams p) {
  __shared__ float xs[16][65], ws[16][65];
  pdl_begin();
  if (p.only_if && *p.only_if == 0) return;
  const int column_tile = blockIdx.x / p.row_tiles;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x % p.row_tiles) * 64;
  int part = 0;
  while (part + 1 < p.finish.parts && column_tile >= p.finish.part[part + 1].first_tile) ++part;
  const FinishPart& mine = p.finish.part[part];
  const int n0 = (column_tile - mine.first_tile) * 64;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const X* x = static_cast<const X*>(p.x);
  const W* w = static_cast<const W*>(p.weight[part]);
  float acc[4][4] = {};
  for (int64_t k0 = 0; k0 < p.k; k0 += 16) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int line = ty + i * 16;
      const int64_t k = k0 + tx;
      xs[tx][line] = k < p.k && row0 + line < p.finish.rows ? to_float(x[(row0 + line) * p.x_pitch + k]) : 0.f;
      ws[tx][line] = k < p.k && n0 + line < mine.n ? to_float(w[static_cast<int64_t>(n0 + line) * p.k + k]) : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = xs[k][ty + i * 16];
        b[i] = ws[k][tx + i * 16];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t row = row0 + ty + i * 16;
      const int n = n0 + tx + j * 16;
      if (row < p.finish.rows && n < mine.n) finish_one<X>(p.finish, mine, row, n, acc[i][j]);
    }
  }
}

template <class In, class T>
__global__ void __launch_bounds__(256)
    finish_rows_kernel(const In* product, int64_t pitch, int64_t width, const __grid_constant__ Finish f) {
  pdl_begin();
  constexpr int V = 16 / (sizeof(In) > sizeof(T) ? sizeof(In) : sizeof(T));
  const int64_t vectors = f.vectors ? width / V : 0, per_row = f.vectors ? vectors : width, count = per_row * f.rows;
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    const int64_t row = i / per_row, column = i % per_row * (f.vectors ? V : 1);
    const In* from = product + row * pitch + column;
    T* out = static_cast<T*>(f.out) + row * f.ldo + column;
    const T* residual = f.residual ? static_cast<const T*>(f.residual) + row * f.ldo + column : nullptr;
    if (f.vectors) {
      float v[V];
      load<In, V>(v, from);
#pragma unroll
      for (int j = 0; j < V; ++j) v[j] = activate(f.activation, v[j]);
      if (f.gated) {
        float up[V];
        load<In, V>(up, from + width);
#pragma unroll
        for (int j = 0; j < V; ++j) v[j] *= up[j];
      }
      if (residual) {
        float add[V];
        load<T, V>(add, residual);
#pragma unroll
        for (int j = 0; j < V; ++j) v[j] += add[j];
      }
      store<T, V>(out, v);
    } else {
      float v = activate(f.activation, to_float(*from));
      if (f.gated) v *= to_float(from[width]);
      *out = from_float<T>(v + (residual ? to_float(*residual) : 0.f));
    }
  }
}

}  // namespace

void gemm_plain(Context& context, DType x_dtype, DType weight_dtype, const MmaParams& p, int column_tiles) {
  const dim3 grid(static_cast<unsigned>(column_tiles) * p.row_tiles);
  with_float(x_dtype, "linear", [&](auto a) {
    with_float(weight_dtype, "linear", [&](auto b) {
      launch(context, "linear (plain)", gemm_plain_kernel<decltype(a), decltype(b)>, grid, dim3(256), 0, p);
    });
  });
}

void finish_rows(Context& context, DType product_dtype, const void* product, int64_t pitch, DType out,
                 const Finish& finish) {
  const int64_t width =
      finish.gated ? finish.part[0].n : finish.part[finish.parts - 1].column + finish.part[finish.parts - 1].n;
  const int64_t count = width * finish.rows, most = context.multiprocessors * 16, wanted = (count + 255) / 256;
  const unsigned blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  with_float(product_dtype, "linear", [&](auto a) {
    with_float(out, "linear", [&](auto b) {
      using In = decltype(a);
      launch(context, "linear (finish)", finish_rows_kernel<In, decltype(b)>, dim3(blocks), dim3(256), 0,
             static_cast<const In*>(product), pitch, width, finish);
    });
  });
}

}  // namespace q::cuda
