// experts of few rows: each choice reads the weights of its expert once; decode
// maths   a warp takes kColumns rows of W (gated: half of them gate, half up) and one row of x; lanes stride over k, 16
// maths   a warp takes kColumns rows of W (gated: half gate, half up) and one row of x; lanes stride over k, 16 values
//         each where `wide`; f32 sums (int8: i32), each block of 4-bit codes times its absmax, butterfly over the
// floor   bytes of the experts chosen / 4.3 TB/s (H200): 8 of 768 x 2048 nf4 in three matrices 4.9 us
// launch  without scores grid (choices, columns / 8 / 4), with them (rows, columns / 4), block 256; all architectures
// exact   fixed order: same bits each run, whatever the other rows hold        ref  tensor/src/reference/experts.ts
#include "experts.h"
#include "launch.h"
#include "quant/codebook.h"

namespace q::cuda {
namespace {

constexpr int kWarps = 8, kColumns = 4, kPackValues = 16;

__constant__ float kBooks[2][16] = {{kNf4[0], kNf4[1], kNf4[2], kNf4[3], kNf4[4], kNf4[5], kNf4[6], kNf4[7], kNf4[8],
                                     kNf4[9], kNf4[10], kNf4[11], kNf4[12], kNf4[13], kNf4[14], kNf4[15]},
                                    {kFp4[0], kFp4[1], kFp4[2], kFp4[3], kFp4[4], kFp4[5], kFp4[6], kFp4[7], kFp4[8],
                                     kFp4[9], kFp4[10], kFp4[11], kFp4[12], kFp4[13], kFp4[14], kFp4[15]}};

/// 16 consecutive values as floats.
template <class T>
__device__ __forceinline__ void load16(float (&v)[16], const T* from) {
  constexpr int P = kPack<T>;
#pragma unroll
  for (int i = 0; i < 16; i += P) load(reinterpret_cast<float (&)[P]>(v[i]), from + i);
}
__device__ __forceinline__ void load16(float (&v)[16], const void* from, DType dtype) {
  if (dtype == DType::f32) return load16(v, static_cast<const float*>(from));
  if (dtype == DType::f16) return load16(v, static_cast<const half_t*>(from));
  load16(v, static_cast<const bfloat_t*>(from));
}

/// What a warp multiplies: rows of weights, and a row of x.
template <class T, int N>
struct Columns {
  const ExpertProblem& p;
  const ExpertTable<N>& table;
  const float* book;  // [16], shared
  int part[kColumns];
  int64_t row[kColumns];

  __device__ __forceinline__ void wide_floats(const T* x, float (&sum)[kColumns]) const {
    for (int64_t i = (threadIdx.x & 31) * kPackValues; i < p.k; i += 32 * kPackValues) {
      float v[16];
      load16(v, x + i);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        float w[16];
        load16(w, table.weight[part[c]] + (row[c] * p.k + i) * (p.weight_dtype == DType::f32 ? 4 : 2), p.weight_dtype);
#pragma unroll
        for (int j = 0; j < 16; ++j) sum[c] = fmaf(w[j], v[j], sum[c]);
      }
    }
  }

  __device__ __forceinline__ void wide_codes(const T* x, float (&sum)[kColumns]) const {
    for (int64_t i = (threadIdx.x & 31) * kPackValues; i < p.k; i += 32 * kPackValues) {
      uint2 codes[kColumns];
      float absmax[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int64_t at = row[c] * p.k + i;
        codes[c] = *reinterpret_cast<const uint2*>(table.weight[part[c]] + at / 2);
        absmax[c] = table.block_absmax(part[c], at >> p.block_shift, p.nested_shift);
      }
      float v[16];
      load16(v, x + i);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        float own = 0.f;
#pragma unroll
        for (int b = 0; b < 8; ++b) {
          const unsigned byte = (b < 4 ? codes[c].x : codes[c].y) >> (8 * (b & 3));
          own = fmaf(book[byte >> 4 & 15], v[2 * b], own);
          own = fmaf(book[byte & 15], v[2 * b + 1], own);
        }
        sum[c] = fmaf(own, absmax[c], sum[c]);
      }
    }
  }

  /// One value after the other, any k.
  __device__ __forceinline__ void narrow(const T* x, float (&sum)[kColumns]) const {
    for (int64_t i = threadIdx.x & 31; i < p.k; i += 32) {
      const float v = to_float(x[i]);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int64_t at = row[c] * p.k + i;
        float w;
        if (p.kind == WeightKind::dense) {
          w = load_any(table.weight[part[c]], p.weight_dtype, at);
        } else {
          const int byte = table.weight[part[c]][at >> 1];
          w = book[at & 1 ? byte & 15 : byte >> 4] * table.block_absmax(part[c], at >> p.block_shift, p.nested_shift);
        }
        sum[c] = fmaf(w, v, sum[c]);
      }
    }
  }

  /// int8: codes of x times codes of W, and its outliers times dequantized ones.
  template <bool WIDE>
  __device__ __forceinline__ void int8(int64_t x_row, float (&sum)[kColumns]) const {
    const QuantizedRows& q = p.quantized;
    const int8_t* x = q.codes + x_row * p.k;
    const int lane = threadIdx.x & 31;
    int dot[kColumns] = {};
    constexpr int step = WIDE ? kPackValues : 1;
    for (int64_t i = lane * step; i < p.k; i += 32 * step) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int8_t* w = reinterpret_cast<const int8_t*>(table.weight[part[c]]) + row[c] * p.k + i;
        if constexpr (WIDE) {
          const int4 a = *reinterpret_cast<const int4*>(w), b = *reinterpret_cast<const int4*>(x + i);
          dot[c] = __dp4a(a.x, b.x, __dp4a(a.y, b.y, __dp4a(a.z, b.z, __dp4a(a.w, b.w, dot[c]))));
        } else {
          dot[c] += w[0] * x[i];
        }
      }
    }
    const int outliers = q.slices ? q.outlier_starts[x_row * (q.slices + 1) + q.slices] : 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float scale = static_cast<const float*>(table.absmax[part[c]])[row[c]];
      const int8_t* w = reinterpret_cast<const int8_t*>(table.weight[part[c]]) + row[c] * p.k;
      for (int i = lane; i < outliers; i += 32) {
        const int64_t at = x_row * p.k + i;
        const float dequantized = to_float(from_float<T>(w[q.outlier_columns[at]] * (scale * (1.f / 127.f))));
        sum[c] = fmaf(dequantized, q.outlier_values[at], sum[c]);
      }
      for (int o = 16; o > 0; o >>= 1) dot[c] += __shfl_xor_sync(0xffffffffu, dot[c], o);
      if (lane == 0) sum[c] += static_cast<float>(dot[c]) * (q.scales[x_row] * scale * (1.f / (127.f * 127.f)));
    }
  }

  /// The products with bias, in every lane.
  template <bool WIDE>
  __device__ __forceinline__ void multiply(int64_t x_row, float (&y)[kColumns]) const {
    const T* x = static_cast<const T*>(p.x) + x_row * p.k;
    float sum[kColumns] = {};
    if (p.kind == WeightKind::int8)
      int8<WIDE>(x_row, sum);
    else if (!WIDE)
      narrow(x, sum);
    else if (p.kind == WeightKind::bnb4)
      wide_codes(x, sum);
    else
      wide_floats(x, sum);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) y[c] = table.with_bias(part[c], row[c], warp_reduce<Sum>(sum[c]));
  }
};

__device__ __forceinline__ void check_choice(const ExpertProblem& p, int64_t choice) {
  const int expert = p.chosen[choice];
  if (expert < -1 || expert >= p.experts) report_error(p.error, Command::expertLinear, expert, p.experts);
}

/// A row of out for each choice.
template <class T, bool WIDE, int N>
__global__ void __launch_bounds__(kWarps * 32)
    expert_products(const __grid_constant__ ExpertProblem p, const __grid_constant__ ExpertTable<N> table) {
  __shared__ float book[16];
  if (threadIdx.x < 16) book[threadIdx.x] = kBooks[static_cast<int>(p.quant_type)][threadIdx.x];
  __syncthreads();
  pdl_begin();
  const int64_t choice = blockIdx.x;
  const int outputs = p.gated ? kColumns / 2 : kColumns, lane = threadIdx.x & 31;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kWarps + (threadIdx.x >> 5)) * outputs;
  const int expert = expert_of(p, choice);
  if (expert < 0 && blockIdx.y == 0 && threadIdx.x == 0) check_choice(p, choice);
  if (first >= p.width) return;
  T* out = static_cast<T*>(p.out) + choice * p.width;
  if (expert < 0) {
    if (lane < outputs && first + lane < p.width) out[first + lane] = from_float<T>(NAN);
    return;
  }
  Columns<T, N> columns{p, table, book, {}, {}};
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int64_t column = min(first + (p.gated ? c >> 1 : c), p.width - 1);
    columns.part[c] = expert * p.per_expert + (p.gated ? c & 1 : static_cast<int>(column / p.n));
    columns.row[c] = p.gated ? column : column % p.n;
  }
  float y[kColumns];
  columns.template multiply<WIDE>(choice / p.choices, y);
  if (lane != 0) return;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    if (p.gated && (c & 1)) continue;
    const int64_t column = first + (p.gated ? c >> 1 : c);
    if (column >= p.width) continue;
    out[column] = from_float<T>(p.gated ? gate_and_up(p, y[c], y[c | 1]) : activate(p.activation, y[c]));
  }
}

/// The sum over the choices of a row.
template <class T, bool WIDE, int N>
__global__ void __launch_bounds__(kWarps * 32)
    expert_sums(const __grid_constant__ ExpertProblem p, const __grid_constant__ ExpertTable<N> table) {
  __shared__ float book[16];
  __shared__ float parts[kMaxChoices][kColumns];
  if (threadIdx.x < 16) book[threadIdx.x] = kBooks[static_cast<int>(p.quant_type)][threadIdx.x];
  __syncthreads();
  pdl_begin();
  const int64_t row = blockIdx.x, first = static_cast<int64_t>(blockIdx.y) * kColumns;
  const int lane = threadIdx.x & 31;
  for (int j = threadIdx.x >> 5; j < p.choices; j += kWarps) {
    const int64_t choice = row * p.choices + j;
    const int expert = expert_of(p, choice);
    float y[kColumns] = {NAN, NAN, NAN, NAN};
    if (expert >= 0) {
      Columns<T, N> columns{p, table, book, {}, {}};
#pragma unroll
      for (int c = 0; c < kColumns; ++c) columns.part[c] = expert, columns.row[c] = min(first + c, p.n - 1);
      columns.template multiply<WIDE>(choice, y);
    } else if (blockIdx.y == 0 && lane == 0) {
      check_choice(p, choice);
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      if (lane == c) parts[j][c] = p.scores[choice] * y[c];
  }
  __syncthreads();
  if (threadIdx.x >= kColumns || first + threadIdx.x >= p.n) return;
  float sum = 0.f;
  for (int j = 0; j < p.choices; ++j) sum += parts[j][threadIdx.x];
  const int64_t at = row * p.n + first + threadIdx.x;
  if (p.residual) sum += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.out)[at] = from_float<T>(sum);
}

}  // namespace

template <class T, int N>
void launch_expert_rows(const ExpertProblem& p, const ExpertTable<N>& table, bool wide, Context& context) {
  if (p.scores) {
    const dim3 grid(static_cast<unsigned>(p.rows), blocks_for(p.n, kColumns));
    return launch(context, "experts", wide ? expert_sums<T, true, N> : expert_sums<T, false, N>, grid, kWarps * 32, 0,
                  p, table);
  }
  const int outputs = kWarps * (p.gated ? kColumns / 2 : kColumns);
  const dim3 grid(static_cast<unsigned>(p.rows * p.choices), blocks_for(p.width, outputs));
  launch(context, "experts", wide ? expert_products<T, true, N> : expert_products<T, false, N>, grid, kWarps * 32, 0, p,
         table);
}

#define Q_INSTANCE(T, N) \
  template void launch_expert_rows<T, N>(const ExpertProblem&, const ExpertTable<N>&, bool, Context&);
Q_INSTANCE(float, kFewParts)
Q_INSTANCE(float, kMostParts)
Q_INSTANCE(half_t, kFewParts)
Q_INSTANCE(half_t, kMostParts)
Q_INSTANCE(bfloat_t, kFewParts)
Q_INSTANCE(bfloat_t, kMostParts)
#undef Q_INSTANCE

}  // namespace q::cuda
