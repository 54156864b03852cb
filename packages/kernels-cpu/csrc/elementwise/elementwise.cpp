// activation, gatedActivation, add, scale, softmax, crossEntropy, argmax: splitting over threads; maths in
// elementwise.isa.cpp.
#include "../common/checks.h"
#include <cmath>
#include "../eager/eager.h"
#include "elementwise.h"

namespace q::cpu {
namespace {

constexpr int64_t kGrain = 8192;

const ElementwiseKernels& kernels(Context& context) { return elementwise_kernels(context.features.isa); }

}  // namespace

void run(const ActivationArgs& a, Context& context) {
  const ActivationKind kind = ActivationKind(a.kind);
  const float* x = a.x.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).activation(kind, x + begin, out + begin, end - begin);
  });
}

namespace {

/// With limits, or with steps that are rounded: gate and up as rows of their own.
void run_bounded(const GatedActivationArgs& a, Context& context) {
  const EagerKernels& steps = eager_kernels(context.features.isa);
  const DType dtype = DType(a.dtype);
  const float limit = a.limit > 0 ? float(a.limit) : INFINITY;
  float* ups = context.scratch.take_array<float>(size_t(a.width * context.workers.threads()));
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int thread) {
    float* up = ups + thread * a.width;
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a.x.as<float>() + row * 2 * a.width;
      float* out = a.out.as<float>() + row * a.width;
      kernels(context).bounded(x, out, a.width, -INFINITY, limit, 0);
      kernels(context).activation(ActivationKind(a.kind), out, out, a.width);
      kernels(context).bounded(x + a.width, up, a.width, -limit, limit, float(a.up_offset));
      steps.round(out, a.width, dtype);
      steps.round(up, a.width, dtype);
      steps.multiply(out, up, out, a.width);
    }
  });
}

}  // namespace

void run(const GatedActivationArgs& a, Context& context) {
  const ActivationKind kind = ActivationKind(a.kind);
  if (a.limit > 0 || a.up_offset != 0 || DType(a.dtype) != DType::f32) return run_bounded(a, context);
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a.x.as<float>() + row * 2 * a.width;
      kernels(context).gated(kind, x, x + a.width, a.out.as<float>() + row * a.width, a.width);
    }
  });
}

void run(const AddArgs& a, Context& context) {
  const float *x = a.a.as<float>(), *y = a.b.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).add(x + begin, y + begin, out + begin, end - begin);
  });
}

void run(const ScaleArgs& a, Context& context) {
  const float* x = a.x.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).scale(x + begin, out + begin, end - begin, float(a.factor), float(a.softcap));
  });
}

void run(const SoftmaxArgs& a, Context& context) {
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      kernels(context).softmax(a.x.as<float>() + row * a.width, a.out.as<float>() + row * a.width, a.width);
  });
}

void run(const CrossEntropyArgs& a, Context& context) {
  const int32_t* targets = a.targets.as<int32_t>();
  for (int64_t row = 0; row < a.rows; ++row) {
    if (targets[row] >= a.width)
      refuse("target " + std::to_string(targets[row]) + " of row " + std::to_string(row) + " is outside " +
             std::to_string(a.width) + " classes");
  }
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = a.logits.as<float>() + row * a.width;
      a.out.as<float>()[row] =
          targets[row] < 0 ? 0.f : float(kernels(context).log_sum_exp(logits, a.width) - double(logits[targets[row]]));
    }
  });
}

void run(const ArgmaxArgs& a, Context& context) {
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      a.out.as<int32_t>()[row] = int32_t(kernels(context).argmax(a.x.as<float>() + row * a.width, a.width));
  });
}

}  // namespace q::cpu
