// headNorm and eagerHeadNorm: the norms of norm.isa.cpp over heads of packed rows, in place.
// floor   8 bytes per element of the heads        ref  tensor/src/reference/head-norm.ts
#include "../common/checks.h"
#include "../eager/eager.h"
#include "../memory/cells.h"
#include "norm.h"

namespace q::cpu {
namespace {

/// The weights of a part as f32, their offset added: one row, or one for each head.
template <class Part>
const float* weights_of(const Part& part, double offset, Context& context) {
  const int64_t count = part.weight_stride == 0 ? part.width : (part.count - 1) * part.weight_stride + part.width;
  float* weights = context.scratch.take_array<float>(size_t(count));
  cell_kernels(context.features.isa).cast(part.weight.data, part.weight.dtype, weights, DType::f32, count);
  for (int64_t i = 0; i < count; ++i) weights[i] += float(offset);
  return weights;
}

/// Calls body(head, weight, width) for every head of every row.
template <class Args, class Body>
void each_head(const Args& a, Context& context, const Body& body) {
  for (int64_t p = 0; p < a.parts_count; ++p) {
    const auto& part = a.parts[p];
    if (a.rows == 0 || part.count == 0) continue;
    const float* weights = weights_of(part, a.weight_offset, context);
    context.workers.parallel(a.rows, rows_grain(part.count * part.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        float* x = a.x.template as<float>() + row * a.row_stride + part.offset;
        for (int64_t h = 0; h < part.count; ++h)
          body(x + h / part.group * part.group_stride + h % part.group * part.width, weights + h * part.weight_stride,
               part.width);
      }
    });
  }
}

template <class Args>
void normalise(const Args& a, const NormKernels& kernels, float* head, const float* weight, int64_t width) {
  const NormRow row{head, nullptr, nullptr, head, width, float(a.eps)};
  if (a.centred)
    kernels.layer(row, weight, nullptr);
  else
    kernels.rms(row, weight);
}

}  // namespace

void run(const HeadNormArgs& a, Context& context) {
  const NormKernels& kernels = norm_kernels(context.features.isa);
  each_head(a, context,
            [&](float* head, const float* weight, int64_t width) { normalise(a, kernels, head, weight, width); });
}

void run(const EagerHeadNormArgs& a, Context& context) {
  const NormKernels& kernels = norm_kernels(context.features.isa);
  const EagerKernels& steps = eager_kernels(context.features.isa);
  const DType dtype = DType(a.dtype);
  int64_t widest = 0;
  for (int64_t p = 0; p < a.parts_count; ++p) widest = std::max(widest, a.parts[p].width);
  float* ones = context.scratch.take_array<float>(size_t(widest));
  std::fill(ones, ones + widest, 1.f);
  each_head(a, context, [&](float* head, const float* weight, int64_t width) {
    normalise(a, kernels, head, a.round_first ? ones : weight, width);
    steps.round(head, width, dtype);
    if (!a.round_first) return;
    steps.multiply(head, weight, head, width);
    steps.round(head, width, dtype);
  });
}

}  // namespace q::cpu
