// activation, gatedActivation, add, scale, softmax, crossEntropy, argmax: checks and splitting over threads; maths in
// elementwise.isa.cpp.
#include "../common/checks.h"
#include "elementwise.h"

namespace q::cpu {
namespace {

constexpr int64_t kGrain = 8192;

const ElementwiseKernels& kernels(Context& context) { return elementwise_kernels(context.features.isa); }

ActivationKind activation_kind(int64_t kind) {
  check(kind >= 0 && kind <= int64_t(ActivationKind::tanh), "unknown activation");
  return ActivationKind(kind);
}

}  // namespace

void run(const ActivationArgs& a, Context& context) {
  check_tensor(a.x, DType::f32, a.count, "x");
  check_tensor(a.out, DType::f32, a.count, "out");
  const ActivationKind kind = activation_kind(a.kind);
  const float* x = a.x.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).activation(kind, x + begin, out + begin, end - begin);
  });
}

void run(const GatedActivationArgs& a, Context& context) {
  const int64_t count = area(a.rows, a.width);
  check_tensor(a.x, DType::f32, area(count, 2), "x");
  check_tensor(a.out, DType::f32, count, "out");
  const ActivationKind kind = activation_kind(a.kind);
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = a.x.as<float>() + row * 2 * a.width;
      kernels(context).gated(kind, x, x + a.width, a.out.as<float>() + row * a.width, a.width);
    }
  });
}

void run(const AddArgs& a, Context& context) {
  for (const Tensor* t : {&a.a, &a.b, &a.out}) check_tensor(*t, DType::f32, a.count, "an operand");
  const float *x = a.a.as<float>(), *y = a.b.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).add(x + begin, y + begin, out + begin, end - begin);
  });
}

void run(const ScaleArgs& a, Context& context) {
  check_tensor(a.x, DType::f32, a.count, "x");
  check_tensor(a.out, DType::f32, a.count, "out");
  const float* x = a.x.as<float>();
  float* out = a.out.as<float>();
  context.workers.parallel(a.count, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels(context).scale(x + begin, out + begin, end - begin, float(a.factor), float(a.softcap));
  });
}

void run(const SoftmaxArgs& a, Context& context) {
  check_tensor(a.x, DType::f32, area(a.rows, a.width), "x");
  check_tensor(a.out, DType::f32, area(a.rows, a.width), "out");
  context.workers.parallel(a.width ? a.rows : 0, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      kernels(context).softmax(a.x.as<float>() + row * a.width, a.out.as<float>() + row * a.width, a.width);
  });
}

void run(const CrossEntropyArgs& a, Context& context) {
  check_tensor(a.logits, DType::f32, area(a.rows, a.width), "logits");
  check_tensor(a.targets, DType::i32, a.rows, "targets");
  check_tensor(a.out, DType::f32, a.rows, "out");
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
  check_tensor(a.x, DType::f32, area(a.rows, a.width), "x");
  check_tensor(a.out, DType::i32, a.rows, "out");
  check(a.width > 0 || a.rows == 0, "argmax of an empty row");
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      a.out.as<int32_t>()[row] = int32_t(kernels(context).argmax(a.x.as<float>() + row * a.width, a.width));
  });
}

}  // namespace q::cpu
