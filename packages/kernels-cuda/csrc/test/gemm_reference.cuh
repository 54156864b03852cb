// Test support for the linear with many rows: random weights of every kind, and the linear in float64 by plain loops.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "context.h"
#include "device.cuh"
#include "linear/gemm_quantize.cuh"

namespace q::reference {
using namespace q::cuda;

#define REQUIRE(call)                                                                    \
  do {                                                                                   \
    cudaError_t e_ = (call);                                                             \
    if (e_ != cudaSuccess) {                                                             \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_)); \
      std::exit(1);                                                                      \
    }                                                                                    \
  } while (0)

inline size_t size_of(DType d) {
  return d == DType::f32 || d == DType::i32 ? 4 : d == DType::i8 || d == DType::u8 ? 1 : 2;
}

/// A bump allocator over one block, as the driver's arena: reset before every command.
class TestWorkspace : public Workspace {
 public:
  explicit TestWorkspace(size_t bytes) : bytes_(bytes) { REQUIRE(cudaMalloc(&base_, bytes)); }
  ~TestWorkspace() override { cudaFree(base_); }
  void reset() { used_ = 0; }
  void* take(size_t bytes) override {
    used_ = (used_ + 255) / 256 * 256;
    if (used_ + bytes > bytes_) throw CommandError("test workspace is full");
    void* p = base_ + used_;
    used_ += bytes;
    return p;
  }

 private:
  char* base_ = nullptr;
  size_t bytes_, used_ = 0;
};

__host__ __device__ inline uint32_t hash(uint64_t i, uint32_t seed) {
  uint64_t z = i * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull + 0x632BE59BD9B4E019ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<uint32_t>(z >> 32);
}

enum class Draw { normal, positive, bytes, signed_bytes };
template <class T>
__global__ void draw_kernel(T* out, int64_t count, Draw kind, float scale, uint32_t seed) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    if constexpr (sizeof(T) == 1) {
      const uint32_t h = hash(i, seed);
      out[i] = static_cast<T>(kind == Draw::signed_bytes ? static_cast<int>(h % 255) - 127 : static_cast<int>(h & 255));
    } else if (kind == Draw::normal) {
      const float u = (hash(2 * i, seed) + 0.5f) / 4294967296.f, v = (hash(2 * i + 1, seed) + 0.5f) / 4294967296.f;
      out[i] = from_float<T>(sqrtf(-2.f * logf(u)) * cospif(2.f * v) * scale);
    } else {
      out[i] = from_float<T>(scale * (0.5f + (hash(i, seed) & 0xffff) / 65536.f));
    }
  }
}

/// Owns the device memory of a case.
class Memory {
 public:
  ~Memory() {
    for (void* p : blocks_) cudaFree(p);
  }
  Tensor empty(DType dtype, int64_t count) {
    Tensor t{nullptr, dtype, static_cast<int64_t>(count * size_of(dtype))};
    REQUIRE(cudaMalloc(&t.data, t.bytes + 16));
    blocks_.push_back(t.data);
    return t;
  }
  Tensor make(DType dtype, int64_t count, Draw kind, float scale, uint32_t seed) {
    const Tensor t = empty(dtype, count);
    switch (dtype) {
      case DType::f32:
        draw_kernel<<<1024, 256>>>(t.as<float>(), count, kind, scale, seed);
        break;
      case DType::f16:
        draw_kernel<<<1024, 256>>>(t.as<half_t>(), count, kind, scale, seed);
        break;
      case DType::bf16:
        draw_kernel<<<1024, 256>>>(t.as<bfloat_t>(), count, kind, scale, seed);
        break;
      case DType::i8:
        draw_kernel<<<1024, 256>>>(t.as<int8_t>(), count, kind, scale, seed);
        break;
      default:
        draw_kernel<<<1024, 256>>>(t.as<uint8_t>(), count, kind, scale, seed);
    }
    REQUIRE(cudaGetLastError());
    return t;
  }

 private:
  std::vector<void*> blocks_;
};

/// Fills `part` (kind, n, block sizes, compute dtype and threshold are set) with random values.
inline void draw_weight(Memory& m, LinearArgsItem& part, int64_t k, DType dense_dtype, bool nested, uint32_t seed) {
  const auto kind = static_cast<WeightKind>(part.kind);
  if (kind == WeightKind::dense) {
    part.weight = m.make(dense_dtype, part.n * k, Draw::normal, 0.05f, seed);
  } else if (kind == WeightKind::int8) {
    part.weight = m.make(DType::i8, part.n * k, Draw::signed_bytes, 0, seed);
    part.absmax = m.make(DType::f32, part.n, Draw::positive, 0.1f, seed + 1);
  } else {
    const int64_t blocks = (part.n * k + part.block_size - 1) / part.block_size;
    part.weight = m.make(DType::u8, (part.n * k + 1) / 2, Draw::bytes, 0, seed);
    if (nested) {
      part.absmax = m.make(DType::u8, blocks, Draw::bytes, 0, seed + 1);
      part.nested_absmax = m.make(DType::f32, (blocks + part.nested_block_size - 1) / part.nested_block_size,
                                  Draw::positive, 0.02f, seed + 2);
      part.nested_code = m.make(DType::f32, 256, Draw::positive, 1.f, seed + 3);
      part.offset = m.make(DType::f32, 1, Draw::positive, 0.05f, seed + 4);
    } else {
      part.absmax = m.make(DType::f32, blocks, Draw::positive, 0.05f, seed + 1);
    }
  }
}

struct Weights {
  LinearArgsItem part;
  float table[16];
};

__device__ inline float round_to(DType d, float x) {
  return d == DType::f16    ? __half2float(__float2half_rn(x))
         : d == DType::bf16 ? __bfloat162float(__float2bfloat16_rn(x))
                            : x;
}
template <class T>
__device__ inline const T* data(const Tensor& t) {
  return static_cast<const T*>(t.data);
}
__device__ inline float at(const Tensor& t, int64_t i) {
  return t.dtype == DType::f32   ? data<float>(t)[i]
         : t.dtype == DType::f16 ? to_float(data<half_t>(t)[i])
                                 : to_float(data<bfloat_t>(t)[i]);
}

/// One product value with its bias, before the activation.
__global__ void product_kernel(Tensor x, Weights w, int64_t rows, int64_t k, int64_t column, int64_t width,
                               double* out) {
  const int64_t i = blockIdx.x * 256ll + threadIdx.x;
  const LinearArgsItem& p = w.part;
  if (i >= rows * p.n) return;
  const int64_t row = i / p.n, n = i % p.n;
  double sum = 0;
  if (p.kind == 0) {
    for (int64_t j = 0; j < k; ++j) sum += static_cast<double>(at(x, row * k + j)) * at(p.weight, n * k + j);
  } else if (p.kind == 1) {
    const DType compute = static_cast<DType>(p.compute_dtype);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t f = n * k + j, b = f / p.block_size;
      const float absmax = p.nested_absmax.data ? data<float>(p.nested_code)[data<uint8_t>(p.absmax)[b]] *
                                                          data<float>(p.nested_absmax)[b / p.nested_block_size] +
                                                      *data<float>(p.offset)
                                                : data<float>(p.absmax)[b];
      const int code = (data<uint8_t>(p.weight)[f / 2] >> ((f & 1) ? 0 : 4)) & 15;
      sum += static_cast<double>(round_to(compute, at(x, row * k + j))) * round_to(compute, w.table[code] * absmax);
    }
  } else {
    const float threshold = static_cast<float>(p.threshold), scb = data<float>(p.absmax)[n];
    float sca = 0;
    for (int64_t j = 0; j < k; ++j) {
      const float a = fabsf(at(x, row * k + j));
      if (!(threshold > 0 && a >= threshold)) sca = fmaxf(sca, a);
    }
    long long codes = 0;
    double extra = 0;
    for (int64_t j = 0; j < k; ++j) {
      const float v = at(x, row * k + j);
      const int8_t c = data<int8_t>(p.weight)[n * k + j];
      if (threshold > 0 && fabsf(v) >= threshold)
        extra += static_cast<double>(v) * round_to(x.dtype, c * (scb / 127.f));
      else
        codes += static_cast<long long>(sca > 0 ? __float2int_rn(v * (127.f / sca)) : 0) * c;
    }
    sum = static_cast<double>(codes) * sca * scb / 16129.0 + extra;
  }
  out[row * width + column + n] = sum + (p.bias.data ? static_cast<double>(at(p.bias, n)) : 0.0);
}

__device__ inline double activate64(int64_t kind, double x) {
  switch (kind) {
    case 1:
      return x / (1 + exp(-x));
    case 2:
      return 0.5 * x * (1 + erf(x * 0.70710678118654752));
    case 3:
      return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case 4:
      return fmax(x, 0.0);
    case 5:
      return x / (1 + exp(-1.702 * x));
    case 6:
      return 1 / (1 + exp(-x));
    case 7:
      return tanh(x);
    default:
      return x;
  }
}
__global__ void finish_kernel(const double* product, int64_t rows, int64_t width, int64_t columns, int64_t activation,
                              int gated, Tensor residual, double* out) {
  const int64_t i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= rows * columns) return;
  const int64_t row = i / columns, c = i % columns;
  double v = activate64(activation, product[row * width + c]);
  if (gated) v *= product[row * width + columns + c];
  out[i] = v + (residual.data ? static_cast<double>(at(residual, i)) : 0.0);
}

/// The whole linear; `residual` as it was before out was written.
inline std::vector<double> linear(const LinearArgs& a, const Tensor& residual) {
  int64_t width = 0;
  for (int i = 0; i < a.parts_count; ++i) width += a.parts[i].n;
  const int64_t columns = a.gated ? a.parts[0].n : width;
  Memory m;
  double* product = m.empty(DType::f32, a.rows * width * 2).as<double>();
  double* out = m.empty(DType::f32, a.rows * columns * 2).as<double>();
  int64_t column = 0;
  for (int i = 0; i < a.parts_count; ++i) {
    Weights w{a.parts[i], {}};
    code_table(a.parts[i].quant_type, w.table);
    product_kernel<<<static_cast<unsigned>((a.rows * a.parts[i].n + 255) / 256), 256>>>(a.x, w, a.rows, a.k, column,
                                                                                        width, product);
    column += a.parts[i].n;
  }
  finish_kernel<<<static_cast<unsigned>((a.rows * columns + 255) / 256), 256>>>(
      product, a.rows, width, columns, a.activation, static_cast<int>(a.gated), residual, out);
  std::vector<double> v(a.rows * columns);
  REQUIRE(cudaMemcpy(v.data(), out, v.size() * 8, cudaMemcpyDeviceToHost));
  return v;
}

inline float host_value(DType d, const void* p, size_t i) {
  if (d == DType::f32) return static_cast<const float*>(p)[i];
  return d == DType::f16 ? __half2float(static_cast<const half_t*>(p)[i])
                         : __bfloat162float(static_cast<const bfloat_t*>(p)[i]);
}

/// ||out - expected|| / ||expected||; infinity when anything is not finite.
inline double relative_error(DType d, const std::vector<char>& out, const std::vector<double>& expected) {
  double num = 0, den = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double v = host_value(d, out.data(), i);
    if (!std::isfinite(v)) return INFINITY;
    num += (v - expected[i]) * (v - expected[i]);
    den += expected[i] * expected[i];
  }
  return std::sqrt(num / (den > 0 ? den : 1));
}

}  // namespace q::reference
