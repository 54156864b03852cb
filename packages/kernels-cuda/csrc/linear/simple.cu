// linear (simple): out = epilogue(x W^T), any k, any alignment, any mix of weight kinds, x in f32, f16 or bf16; where
// stream and gemm do not fit
// maths   a warp takes one output column and up to 4 rows of x; lanes stride over k; f32 sums (int8: i32), butterfly
//         over the lanes
// floor   bytes of the weight; reaches about half the bandwidth for f32 weights and one row, and reads the weight again
//         for every 4 rows
// launch  grid (columns / 8, rows / 4), block 256; no shared memory; all architectures
// exact   fixed order: same bits each run, whatever the other rows hold; ref tensor/src/ops (linear); test
//         csrc/test/linear.cu
#include "../quant/codebook.h"
#include "launch.h"
#include "simple.h"

namespace q::cuda {
namespace {

constexpr int kRows = 4, kWarps = 8;

__constant__ float kBooks[2][16] = {{kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8],
                                     kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
                                    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8],
                                     kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// Columns that this launch computes; out may be wider.
__host__ __device__ int64_t own_columns(const LinearProblem& p) {
  return p.gated ? p.part[0].n : p.part[p.parts - 1].first + p.part[p.parts - 1].n;
}

__device__ __forceinline__ float round_to(DType dtype, float x) {
  if (dtype == DType::f16) return to_float(from_float<half_t>(x));
  if (dtype == DType::bf16) return to_float(from_float<bfloat_t>(x));
  return x;
}

/// V consecutive values of a dense row.
template <class W, int V>
__device__ __forceinline__ void dense_values(const LinearPartView& w, int64_t at, float (&out)[V]) {
  load(out, reinterpret_cast<const W*>(w.weight) + at);
}

template <int V>
__device__ void weight_values(const LinearPartView& w, const SimplePart& s, int64_t at, float (&out)[V]) {
  if (s.kind == WeightKind::dense) {
    if (w.weight_dtype == DType::f16) return dense_values<half_t>(w, at, out);
    if (w.weight_dtype == DType::bf16) return dense_values<bfloat_t>(w, at, out);
    if constexpr (V == 8) {
      float low[4], high[4];
      dense_values<float>(w, at, low);
      dense_values<float>(w, at + 4, high);
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = low[i], out[i + 4] = high[i];
      return;
    } else {
      return dense_values<float>(w, at, out);
    }
  }
  const float* book = kBooks[static_cast<int>(s.quant_type)];
  const float absmax = block_absmax(w, at >> w.block_shift);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const int byte = w.weight[(at + i) >> 1];
    out[i] = round_to(s.compute, book[(at + i) & 1 ? byte & 15 : byte >> 4] * absmax);
  }
}

/// Sums of one output column for rows [m0, m0 + kRows), in every lane, with bias.
template <class T, int V>
__device__ void column(const SimpleProblem& p, int part, int64_t row, int m0, float (&y)[kRows]) {
  const LinearPartView& w = p.linear.part[part];
  const SimplePart& s = p.part[part];
  const QuantizedRows& quantized = p.quantized[part];
  const int64_t k = p.linear.k;
  const int lane = threadIdx.x & 31;
  float sum[kRows] = {};
  int dot[kRows] = {};
  for (int64_t i = lane * V; i < k; i += 32 * V) {
    if (s.kind == WeightKind::int8) {
      const float scale = static_cast<const float*>(w.absmax)[row] * (1.f / 127.f);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const int code = reinterpret_cast<const int8_t*>(w.weight)[row * k + i + j];
#pragma unroll
        for (int m = 0; m < kRows; ++m) {
          if (m0 + m >= p.linear.rows) continue;
          const int64_t at = (m0 + m) * k + i + j;
          const float x = to_float(static_cast<const T*>(p.linear.x)[at]);
          dot[m] += code * quantized.codes[at];
          if (s.threshold > 0.f && fabsf(x) >= s.threshold)
            sum[m] = fmaf(to_float(from_float<T>(code * scale)), x, sum[m]);
        }
      }
      continue;
    }
    float v[V];
    weight_values(w, s, row * k + i, v);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (m0 + m >= p.linear.rows) continue;
      const T* x = static_cast<const T*>(p.linear.x) + (m0 + m) * k + i;
#pragma unroll
      for (int j = 0; j < V; ++j)
        sum[m] = fmaf(v[j], s.kind == WeightKind::bnb4 ? round_to(s.compute, to_float(x[j])) : to_float(x[j]), sum[m]);
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    y[m] = warp_reduce<Sum>(sum[m]);
    if (s.kind == WeightKind::int8) {
      int d = dot[m];
      for (int o = 16; o > 0; o >>= 1) d += __shfl_xor_sync(0xffffffffu, d, o);
      if (m0 + m < p.linear.rows)
        y[m] += static_cast<float>(d) *
                (quantized.scales[m0 + m] * static_cast<const float*>(w.absmax)[row] * (1.f / (127.f * 127.f)));
    }
    y[m] = with_bias(w, row, y[m]);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kWarps * 32) simple_linear(const __grid_constant__ SimpleProblem p) {
  pdl_begin();
  const LinearProblem& l = p.linear;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + (threadIdx.x >> 5);
  const int m0 = blockIdx.y * kRows;
  if (at >= own_columns(l)) return;
  int part = 0;
  if (!l.gated)
    while (part + 1 < l.parts && at >= l.part[part + 1].first) ++part;
  float y[kRows];
  column<T, V>(p, part, l.gated ? at : at - l.part[part].first, m0, y);
  if (l.gated) {
    float up[kRows];
    column<T, V>(p, 1, at, m0, up);
#pragma unroll
    for (int m = 0; m < kRows; ++m) y[m] = activate(l.activation, y[m]) * up[m];
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m)
    if ((threadIdx.x & 31) == m && m0 + m < l.rows)
      store_output<T>(l, m0 + m, at, l.gated ? y[m] : activate(l.activation, y[m]));
}

}  // namespace

template <class T>
void launch_simple(const SimpleProblem& p, Context& context) {
  bool wide = p.linear.k % 8 == 0 && aligned16(p.linear.x);
  for (int i = 0; i < p.linear.parts; ++i)
    wide = wide && aligned16(p.linear.part[i].weight) && p.linear.part[i].block_shift >= 3;
  const dim3 grid(blocks_for(own_columns(p.linear), kWarps), blocks_for(p.linear.rows, kRows));
  launch(context, "linear", wide ? simple_linear<T, 8> : simple_linear<T, 1>, grid, kWarps * 32, 0, p);
}

template void launch_simple<float>(const SimpleProblem&, Context&);
template void launch_simple<half_t>(const SimpleProblem&, Context&);
template void launch_simple<bfloat_t>(const SimpleProblem&, Context&);

}  // namespace q::cuda
