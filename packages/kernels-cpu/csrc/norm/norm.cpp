// rmsNorm and layerNorm over rows; kernels and maths in norm.isa.cpp.
#include "../common/checks.h"
#include "../memory/cells.h"
#include "norm.h"

namespace q::cpu {
namespace {

/// A parameter [width] of any float dtype as f32.
const float* as_floats(const Tensor& t, int64_t width, Context& context) {
  if (!t) return nullptr;
  if (t.dtype == DType::f32) return t.as<float>();
  float* floats = context.scratch.take_array<float>(size_t(width));
  cell_kernels(context.features.isa).cast(t.data, t.dtype, floats, DType::f32, width);
  return floats;
}

template <class Args, class Row>
void each_row(const Args& a, Context& context, const Row& row) {
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * a.width;
      row(NormRow{a.x.template as<float>() + at, a.residual ? a.residual.template as<float>() + at : nullptr,
                  a.sum ? a.sum.template as<float>() + at : nullptr, a.out.template as<float>() + at, a.width,
                  float(a.eps)});
    }
  });
}

}  // namespace

void run(const RmsNormArgs& a, Context& context) {
  const float* weight = as_floats(a.weight, a.width, context);
  if (a.weight_offset != 0) {
    float* shifted = context.scratch.take_array<float>(size_t(a.width));
    for (int64_t i = 0; i < a.width; ++i) shifted[i] = weight[i] + float(a.weight_offset);
    weight = shifted;
  }
  const auto rms = norm_kernels(context.features.isa).rms;
  each_row(a, context, [&](const NormRow& row) { rms(row, weight); });
}

void run(const LayerNormArgs& a, Context& context) {
  const float* weight = as_floats(a.weight, a.width, context);
  const float* bias = as_floats(a.bias, a.width, context);
  const auto layer = norm_kernels(context.features.isa).layer;
  each_row(a, context, [&](const NormRow& row) { layer(row, weight, bias); });
}

}  // namespace q::cpu
