// A linear's arguments as the kernels take them.
#pragma once
#include <cstring>
#include "../quant/codebook.h"
#include "problem.h"

namespace q::cuda {

/// log2 of a power of two, else -1.
inline int log2_exact(int64_t x) {
  int shift = 0;
  while ((int64_t{1} << shift) < x) ++shift;
  return (int64_t{1} << shift) == x ? shift : -1;
}

/// LinearProblem::codes.
template <class T>
void scale_codes(uint32_t (&to)[8], QuantType type) {
  const float* book = type == QuantType::nf4 ? kNf4 : kFp4;
  for (int i = 0; i < 8; ++i) {
    const T two[2] = {T(book[i * 2] * code_scale<T>(type)), T(book[i * 2 + 1] * code_scale<T>(type))};
    std::memcpy(&to[i], two, 4);
  }
}

inline LinearProblem problem_of(const LinearArgs& a) {
  LinearProblem p{};
  p.x = a.x.data;
  p.out = a.out.data;
  p.residual = a.residual.data;
  p.rows = static_cast<int>(a.rows);
  p.k = a.k;
  p.gated = a.gated != 0;
  p.activation = static_cast<ActivationKind>(a.activation);
  p.quant_type = static_cast<QuantType>(a.parts[0].quant_type);
  if (a.x.dtype == DType::f16) scale_codes<half_t>(p.codes, p.quant_type);
  if (a.x.dtype == DType::bf16) scale_codes<bfloat_t>(p.codes, p.quant_type);
  p.parts = static_cast<int>(a.parts_count);
  for (int i = 0; i < p.parts; ++i) {
    const LinearArgsItem& s = a.parts[i];
    LinearPartView& w = p.part[i];
    w.weight = s.weight.as<const uint8_t>();
    w.weight_dtype = s.weight.dtype;
    w.bias = s.bias.data;
    w.bias_dtype = s.bias.dtype;
    w.absmax = s.absmax.data;
    w.nested_absmax = s.nested_absmax.as<const float>();
    w.nested_code = s.nested_code.as<const float>();
    w.offset = s.offset.as<const float>();
    w.n = static_cast<int>(s.n);
    w.first = p.gated ? 0 : static_cast<int>(p.columns);
    w.block_shift = static_cast<WeightKind>(s.kind) == WeightKind::bnb4 ? log2_exact(s.block_size) : 6;
    w.nested_shift = s.nested_absmax ? log2_exact(s.nested_block_size) : 0;
    if (!p.gated || i == 0) p.columns += s.n;
  }
  return p;
}

}  // namespace q::cuda
