// Dequantization of 4-bit weights and LLM.int8 quantization of activations, for products with many rows.
//
// dequantize_weight   W[i] = round_T(code[nibble i] * absmax[i / blockSize])
//   floor   count / 2 + count * sizeof(T) bytes: 11008 x 4096 to f16 112 MB = 26 us at 4.3 TB/s (H200), less while it
//           stays in L2
//   launch  4 words of 8 values a thread step, 16-byte stores; f32 table in shared memory, one copy per bank
//   exact   bit-equal to bitsandbytes' dequantization
// quantize_rows; CA = rint(x * 127 / SCA), SCA = row absmax without outliers; one block a row, the row read twice
// (second time from L1)
//   floor   rows * k * 3 bytes (f16): 2048 x 4096 25 MB = 6 us
// gather_outliers; the groups of 16 columns that hold outliers, of x and of W, side by side for the product's last K
// steps; every block scans
//                     the flags itself
// ref     q::reference::linear in csrc/test/gemm_reference.cuh
#include "gemm_quantize.cuh"

namespace q::cuda {
namespace {

struct Quantized {
  const uint8_t* codes;
  const void* absmax;
  const float* nested_absmax;
  const float* nested_code;
  const float* offset;
  int64_t block_size;
  int64_t nested_block_size;
  int block_shift;  // log2 of the sizes, or -1
  int nested_shift;
  bool whole_warps;  // the 1024 values of a warp's step share one nested absmax
  float table[16];
};

__device__ __forceinline__ int64_t divide(int64_t a, int64_t b, int shift) { return shift >= 0 ? a >> shift : a / b; }

/// `code` and `offset`: q's nested code in shared memory, and its offset. Two roundings, as bitsandbytes does it.
template <bool Nested>
__device__ __forceinline__ float block_absmax(const Quantized& q, const float* code, float offset, int64_t block) {
  if constexpr (!Nested) return static_cast<const float*>(q.absmax)[block];
  return __fadd_rn(__fmul_rn(code[static_cast<const uint8_t*>(q.absmax)[block]],
                             q.nested_absmax[divide(block, q.nested_block_size, q.nested_shift)]),
                   offset);
}

template <class T, bool Nested>
__global__ void __launch_bounds__(256) dequantize_kernel(const __grid_constant__ Quantized q, int64_t count, T* out) {
  __shared__ float table[16][32], nested_code[Nested ? 256 : 1];
  for (int i = threadIdx.x; i < 512; i += 256) table[i / 32][i % 32] = q.table[i / 32];
  float offset = 0.f;
  if constexpr (Nested) {
    pdl_begin();
    nested_code[threadIdx.x] = q.nested_code[threadIdx.x];
    offset = *q.offset;
    __syncthreads();
  } else {
    __syncthreads();
    pdl_begin();
  }
  const int lane = threadIdx.x & 31;
  const bool words = (q.block_size & 31) == 0 && (reinterpret_cast<uintptr_t>(q.codes) & 15) == 0 &&
                     (reinterpret_cast<uintptr_t>(out) & 15) == 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * 256;
  const int64_t whole = words ? count / 32 : 0;
  // From the end to the start: the product begins at the start, which is then what the L2 still holds.
  // A warp takes 32 x 16 bytes of codes; a lane's four words are 128 words apart, so that loads and stores both run
  // along the lanes.
  const int64_t rounds = (whole + stride - 1) / stride;
  for (int64_t round = rounds - 1; round >= 0; --round) {
    const int64_t w0 = (round * stride + blockIdx.x * 256ll + threadIdx.x - lane) * 4;
    uint32_t word[4];
    float scale[4];
    if (Nested && q.whole_warps && w0 < whole * 4) {
      const float nested = q.nested_absmax[w0 * 8 >> (q.block_shift + q.nested_shift)];
      int code[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = w0 + i * 32 + lane;
        word[i] = at < whole * 4 ? reinterpret_cast<const uint32_t*>(q.codes)[at] : 0;
        code[i] = at < whole * 4 ? static_cast<const uint8_t*>(q.absmax)[at * 8 >> q.block_shift] : 0;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) scale[i] = __fadd_rn(__fmul_rn(nested_code[code[i]], nested), offset);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t at = w0 + i * 32 + lane;
        word[i] = at < whole * 4 ? reinterpret_cast<const uint32_t*>(q.codes)[at] : 0;
        scale[i] = at < whole * 4
                       ? block_absmax<Nested>(q, nested_code, offset, divide(at * 8, q.block_size, q.block_shift))
                       : 0.f;
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t at = w0 + i * 32 + lane;
      if (at >= whole * 4) continue;
      float v[8];
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        v[2 * b] = table[(word[i] >> (8 * b + 4)) & 15][lane] * scale[i];
        v[2 * b + 1] = table[(word[i] >> (8 * b)) & 15][lane] * scale[i];
      }
      if constexpr (sizeof(T) == 2) {
        store<T, 8>(out + at * 8, v);
      } else {
        store<T, 4>(out + at * 8, reinterpret_cast<float (&)[4]>(v[0]));
        store<T, 4>(out + at * 8 + 4, reinterpret_cast<float (&)[4]>(v[4]));
      }
    }
  }
  for (int64_t i = whole * 32 + blockIdx.x * 256ll + threadIdx.x; i < count; i += stride) {
    const int code = (q.codes[i / 2] >> ((i & 1) ? 0 : 4)) & 15;
    out[i] = from_float<T>(table[code][lane] * block_absmax<Nested>(q, nested_code, offset, i / q.block_size));
  }
}

template <class T>
__global__ void __launch_bounds__(256) quantize_rows_kernel(const T* x, int64_t k, float threshold, int8_t* codes,
                                                            int64_t pitch, float* scales, uint8_t* flags) {
  __shared__ float shared[32];
  pdl_begin();
  const int64_t row = blockIdx.x;
  const T* from = x + row * k;
  int8_t* to = codes + row * pitch;
  const bool vectors = sizeof(T) == 2 && k % 8 == 0 && (reinterpret_cast<uintptr_t>(x) & 15) == 0;
  float largest = 0.f;
  auto see = [&](float v) {
    const float a = fabsf(v);
    if (!(threshold > 0.f && a >= threshold)) largest = max_abs(largest, a);
  };
  if (vectors) {
    for (int64_t i = threadIdx.x * 8; i < k; i += 2048) {
      float v[8];
      load<T, 8>(v, from + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) see(v[j]);
    }
  } else {
    for (int64_t i = threadIdx.x; i < k; i += 256) see(to_float(from[i]));
  }
  largest = block_reduce<MaxAbs>(largest, shared);
  if (threadIdx.x == 0) scales[row] = largest;
  const float scale = largest > 0.f ? 127.f / largest : 0.f;
  auto quantize = [&](float v, int64_t i) -> int {
    if (threshold > 0.f && fabsf(v) >= threshold) {
      flags[i / 16] = 1;
      return 0;
    }
    return __float2int_rn(v * scale);
  };
  if (vectors) {
    for (int64_t i = threadIdx.x * 8; i < k; i += 2048) {
      float v[8];
      load<T, 8>(v, from + i);
      uint32_t packed[2] = {0, 0};
#pragma unroll
      for (int j = 0; j < 8; ++j)
        packed[j / 4] |= (static_cast<uint32_t>(quantize(v[j], i + j)) & 0xff) << (8 * (j % 4));
      *reinterpret_cast<uint2*>(to + i) = make_uint2(packed[0], packed[1]);
    }
  } else {
    for (int64_t i = threadIdx.x; i < k; i += 256) to[i] = static_cast<int8_t>(quantize(to_float(from[i]), i));
  }
  for (int64_t i = k + threadIdx.x; i < pitch; i += 256) to[i] = 0;
}

struct Gather {
  const uint8_t* flags;  // of each group of 16 columns
  int* groups;
  const void* x;
  void* x_extra;
  void* weight_extra;
  const int8_t* weight[kMaxRepeat];
  const float* scale[kMaxRepeat];
  int64_t first[kMaxRepeat + 1];  // rows of W before each part, then all
  int64_t rows, k, room;
  int parts, all_groups, gather;
  float threshold;
};

template <class T>
__global__ void __launch_bounds__(256) gather_outliers_kernel(const __grid_constant__ Gather p) {
  extern __shared__ int list[];  // all_groups
  __shared__ int counts[256];
  pdl_begin();
  const int share = (p.all_groups + 255) / 256, begin = threadIdx.x * share, end = min(begin + share, p.all_groups);
  int count = 0;
  for (int i = begin; i < end; ++i) count += p.flags[i];
  counts[threadIdx.x] = count;
  __syncthreads();
  for (int step = 1; step < 256; step *= 2) {
    const int add = threadIdx.x >= step ? counts[threadIdx.x - step] : 0;
    __syncthreads();
    counts[threadIdx.x] += add;
    __syncthreads();
  }
  const int total = counts[255];
  int at = counts[threadIdx.x] - count;
  for (int i = begin; count != 0 && i < end; ++i) {
    if (!p.flags[i]) continue;
    list[at] = i;
    if (blockIdx.x == 0) p.groups[1 + at] = i;
    ++at;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) p.groups[0] = total;
  __syncthreads();
  if (!p.gather || total == 0) return;
  const int padded = (total + 3) / 4 * 4, lane = threadIdx.x & 31;
  const int64_t weights = p.first[p.parts];
  for (int64_t r = blockIdx.x * 8 + threadIdx.x / 32; r < weights + p.rows; r += gridDim.x * 8) {
    const bool is_weight = r < weights;
    int part = 0;
    while (is_weight && r >= p.first[part + 1]) ++part;
    const int64_t n = is_weight ? r - p.first[part] : 0;
    const float scale = is_weight && total ? p.scale[part][n] / 127.f : 0.f;
    T* to =
        is_weight ? static_cast<T*>(p.weight_extra) + r * p.room : static_cast<T*>(p.x_extra) + (r - weights) * p.room;
    for (int o = lane; o < 2 * padded; o += 32) {  // half a group: 8 columns
      float v[8] = {};
      if (o < 2 * total) {
        const int64_t column = list[o / 2] * 16 + (o & 1) * 8;
        for (int i = 0; i < 8; ++i) {
          if (column + i >= p.k) continue;
          if (is_weight)
            v[i] = static_cast<float>(p.weight[part][n * p.k + column + i]) * scale;
          else
            v[i] = to_float(static_cast<const T*>(p.x)[(r - weights) * p.k + column + i]);
          if (!is_weight && !(fabsf(v[i]) >= p.threshold)) v[i] = 0.f;
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) to[o * 8 + i] = from_float<T>(v[i]);
    }
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(256) convert_kernel(const In* x, Out* out, int64_t count) {
  pdl_begin();
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll)
    out[i] = from_float<Out>(to_float(x[i]));
}

}  // namespace

constexpr float kNf4[16] = {-1.0f,
                            -0.6961928009986877f,
                            -0.5250730514526367f,
                            -0.39491748809814453f,
                            -0.28444138169288635f,
                            -0.18477343022823334f,
                            -0.09105003625154495f,
                            0.0f,
                            0.07958029955625534f,
                            0.16093020141124725f,
                            0.24611230194568634f,
                            0.33791524171829224f,
                            0.44070982933044434f,
                            0.5626170039176941f,
                            0.7229568362236023f,
                            1.0f};
constexpr float kFp4[16] = {0.0f,
                            0.0052083334885537624f,
                            0.6666666865348816f,
                            1.0f,
                            0.3333333432674408f,
                            0.5f,
                            0.1666666716337204f,
                            0.25f,
                            0.0f,
                            -0.0052083334885537624f,
                            -0.6666666865348816f,
                            -1.0f,
                            -0.3333333432674408f,
                            -0.5f,
                            -0.1666666716337204f,
                            -0.25f};

void code_table(int64_t quant_type, float (&table)[16]) {
  const float* from = quant_type == static_cast<int64_t>(QuantType::nf4) ? kNf4 : kFp4;
  for (int i = 0; i < 16; ++i) table[i] = from[i];
}

static int shift_of(int64_t size) {
  for (int s = 0; s < 40; ++s) {
    if (size == int64_t(1) << s) return s;
  }
  return -1;
}

void dequantize_weight(Context& context, const LinearArgsItem& part, int64_t count, DType to_dtype, void* to) {
  Quantized q{part.weight.as<uint8_t>(),
              part.absmax.data,
              part.nested_absmax.as<float>(),
              part.nested_code.as<float>(),
              part.offset.as<float>(),
              part.block_size,
              part.nested_block_size,
              shift_of(part.block_size),
              shift_of(part.nested_block_size),
              false,
              {}};
  q.whole_warps = q.nested_absmax && q.block_shift >= 0 && q.nested_shift >= 0 && q.block_shift + q.nested_shift >= 10;
  code_table(part.quant_type, q.table);
  const int64_t most = context.multiprocessors * 16, wanted = (count + 2047) / 2048;
  const unsigned blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  with_float(to_dtype, "linear", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "linear (dequantize)", q.nested_absmax ? dequantize_kernel<T, true> : dequantize_kernel<T, false>,
           dim3(blocks), dim3(256), 0, q, count, static_cast<T*>(to));
  });
}

Int8Activations quantize_activations(Context& context, const LinearArgs& args, bool gather) {
  const int64_t rows = args.rows, k = args.k;
  const float threshold = static_cast<float>(args.parts[0].threshold);
  const int64_t element = args.x.dtype == DType::f32 ? 4 : 2;
  Int8Activations a{};
  a.pitch = (k + 15) / 16 * 16;
  a.codes = context.workspace.take_array<int8_t>(rows * a.pitch);
  a.scale = context.workspace.take_array<float>(rows);
  const int64_t all_groups = (k + 15) / 16;
  uint8_t* flags = nullptr;
  if (threshold > 0.f) {
    flags = context.workspace.take_array<uint8_t>(all_groups);
    a.groups = context.workspace.take_array<int>(1 + all_groups);
    check(cudaMemsetAsync(flags, 0, all_groups, context.stream), "linear (int8)");
  }
  with_float(args.x.dtype, "linear", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "linear (quantize rows)", quantize_rows_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(256), 0,
           args.x.as<T>(), k, threshold, a.codes, a.pitch, a.scale, flags);
  });
  if (!flags) return a;
  a.room = (k + 63) / 64 * 64;
  Gather p{flags,
           a.groups,
           args.x.data,
           nullptr,
           nullptr,
           {},
           {},
           {},
           rows,
           k,
           a.room,
           static_cast<int>(args.parts_count),
           static_cast<int>(all_groups),
           gather ? 1 : 0,
           threshold};
  for (int i = 0; i < p.parts; ++i) {
    p.weight[i] = args.parts[i].weight.as<int8_t>();
    p.scale[i] = args.parts[i].absmax.as<float>();
    p.first[i + 1] = p.first[i] + args.parts[i].n;
  }
  if (gather) {
    a.x_extra = p.x_extra = context.workspace.take(rows * a.room * element);
    a.weight_extra = p.weight_extra = context.workspace.take(p.first[p.parts] * a.room * element);
  }
  with_float(args.x.dtype, "linear", [&](auto zero) {
    using T = decltype(zero);
    launch(context, "linear (outliers)", gather_outliers_kernel<T>, dim3(gather ? context.multiprocessors * 4 : 1),
           dim3(256), all_groups * 4, p);
  });
  return a;
}

void convert(Context& context, DType from, const void* x, DType to, void* out, int64_t count) {
  const int64_t most = context.multiprocessors * 16, wanted = (count + 255) / 256;
  const unsigned blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  with_float(from, "linear", [&](auto a) {
    with_float(to, "linear", [&](auto b) {
      using In = decltype(a);
      using Out = decltype(b);
      launch(context, "linear (convert)", convert_kernel<In, Out>, dim3(blocks), dim3(256), 0,
             static_cast<const In*>(x), static_cast<Out*>(out), count);
    });
  });
}

}  // namespace q::cuda
