// A product of routed experts as the kernels take it, and what experts.cu launches.
#pragma once
#include "choice.h"
#include "activation.cuh"
#include "linear/stream.h"

namespace q::cuda {

constexpr int kMaxChoices = 32;

/// What is particular to each weight, by its place in the command. Passed by value: up to 27 KB of kernel parameters.
template <int N>
struct ExpertTable {
  const uint8_t* weight[N];
  const void* absmax[N];
  const float* nested_absmax[N];  // null: absmax is plain
  const float* nested_code[N];
  const float* offset[N];
  const void* bias[N];
  DType bias_dtype[N];

  __device__ __forceinline__ float block_absmax(int part, int64_t block, int nested_shift) const {
    if (!nested_absmax[part]) return static_cast<const float*>(absmax[part])[block];
    const float code = nested_code[part][static_cast<const uint8_t*>(absmax[part])[block]];
    return __fadd_rn(__fmul_rn(code, nested_absmax[part][block >> nested_shift]), *offset[part]);
  }
  __device__ __forceinline__ float with_bias(int part, int64_t row, float sum) const {
    return bias[part] ? sum + load_any(bias[part], bias_dtype[part], row) : sum;
  }
};
/// Tables of this many parts are compiled: the smallest that holds a command's.
constexpr int kFewParts = 256, kMostParts = 512;

struct ExpertProblem {
  const void* x;
  const int32_t* chosen;  // [rows, choices]
  const float* scores;    // null: a row of out for each choice
  const void* residual;
  void* out;
  int64_t rows;
  int choices, experts, per_expert;  // per_expert: parts
  int64_t k, n, width;               // width: columns of out
  ActivationKind activation;
  bool gated;
  float limit, up_offset;
  WeightKind kind;
  DType weight_dtype;
  QuantType quant_type;
  int block_shift, nested_shift;
  float threshold;
  QuantizedRows quantized;  // int8: x
  DeviceError* error;
};

/// The expert of a choice; -1 where there is none.
__device__ __forceinline__ int expert_of(const ExpertProblem& p, int64_t choice) {
  const int expert = p.chosen[choice];
  return expert >= 0 && expert < p.experts ? expert : -1;
}

__device__ __forceinline__ float gate_and_up(const ExpertProblem& p, float gate, float up) {
  if (p.limit > 0.f) {  // comparisons that NaN passes through
    gate = gate > p.limit ? p.limit : gate;
    up = up > p.limit ? p.limit : up < -p.limit ? -p.limit : up;
  }
  return activate(p.activation, gate) * (up + p.up_offset);
}

template <class T, int N>
void launch_expert_rows(const ExpertProblem& problem, const ExpertTable<N>& table, bool wide, Context& context);
/// With scores the products go to `products`, f32 [rows choices, n].
template <class T, int N>
void launch_expert_grouped(const ExpertProblem& problem, const ExpertTable<N>& table, float* products,
                           Context& context);
/// out T [rows, width] = sum over j of round(scores x) + residual; x of dtype X [rows choices, width].
template <class X, class T>
void launch_mix(const X* x, const float* scores, const T* residual, T* out, int64_t rows, int choices, int64_t width,
                DType round, Context& context);

}  // namespace q::cuda
