// expertLinear  the products of rows with the experts that they chose
// maths   the rows of an expert lie together for the linear command, which computes each group; with scores the results
//         of a row's choices are added in their order
// layout  choices sorted by expert; a group of one row is read, and without scores written, where it lies
// floor   the bytes of the experts that any row chose            exact  as linear: no bit depends on the other rows
// mixChoices    out = sum of scores * x over the choices of a row
// ref     tensor/src/reference/experts.ts
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>
#include "../common/checks.h"
#include "../common/float_types.h"

namespace q::cpu {

void run(const LinearArgs& args, Context& context);

namespace {

/// Choices (row K + j) in the order of their experts, those of an expert in order.
struct Groups {
  std::vector<int64_t> first;  // [experts + 1]
  std::vector<int64_t> choice;
};

Groups group(const ExpertLinearArgs& a) {
  const int32_t* chosen = a.chosen.as<int32_t>();
  const int64_t count = a.rows * a.choices;
  Groups groups{std::vector<int64_t>(size_t(a.experts + 1)), {}};
  for (int64_t i = 0; i < count; ++i) {
    if (chosen[i] < -1 || chosen[i] >= a.experts)
      refuse("expert " + std::to_string(chosen[i]) + " at " + std::to_string(i) + " is not one of the " +
             std::to_string(a.experts) + " experts");
    if (chosen[i] >= 0) ++groups.first[size_t(chosen[i] + 1)];
  }
  for (int64_t e = 0; e < a.experts; ++e) groups.first[size_t(e + 1)] += groups.first[size_t(e)];
  groups.choice.resize(size_t(groups.first.back()));
  std::vector<int64_t> at(groups.first.begin(), groups.first.end() - 1);
  for (int64_t i = 0; i < count; ++i)
    if (chosen[i] >= 0) groups.choice[size_t(at[size_t(chosen[i])]++)] = i;
  return groups;
}

LinearArgsItem part_of(const ExpertLinearArgs& a, int64_t index) {
  const auto& own = a.parts[size_t(index)];
  LinearArgsItem item{};
  item.kind = a.kind;
  item.n = a.n;
  item.weight = own.weight;
  item.bias = own.bias;
  item.absmax = own.absmax;
  if (a.nested) {
    item.nested_absmax = own.nested_absmax;
    item.nested_code = own.nested_code;
    item.offset = own.offset;
  }
  item.block_size = a.block_size;
  item.nested_block_size = a.nested_block_size;
  item.quant_type = a.quant_type;
  item.compute_dtype = a.compute_dtype;
  item.threshold = a.threshold;
  return item;
}

Tensor floats(float* data, int64_t count) { return {data, DType::f32, count * 4}; }

struct Products {
  const ExpertLinearArgs& a;
  int64_t width;  // of the results
  float* out;     // [rows K, width]

  const float* x(int64_t choice) const { return a.x.as<float>() + (a.scores ? choice : choice / a.choices) * a.k; }

  /// The rows of one expert.
  void run_group(int64_t expert, const int64_t* choices, int64_t rows, Context& context) const {
    LinearArgs args{};
    const bool alone = rows == 1;
    float* in = alone ? const_cast<float*>(x(choices[0])) : context.scratch.take_array<float>(size_t(rows * a.k));
    float* y = alone ? out + choices[0] * width : context.scratch.take_array<float>(size_t(rows * width));
    args.x = floats(in, rows * a.k);
    args.out = floats(y, rows * width);
    args.rows = rows;
    args.k = a.k;
    args.activation = a.activation;
    args.gated = a.gated;
    args.limit = a.limit;
    args.up_offset = a.up_offset;
    args.parts_count = a.parts_count / a.experts;
    for (int64_t i = 0; i < args.parts_count; ++i) args.parts[i] = part_of(a, expert * args.parts_count + i);
    if (alone) return run(args, context);
    copy(context, rows, a.k, [&](int64_t r) { return x(choices[r]); }, [&](int64_t r) { return in + r * a.k; });
    run(args, context);
    copy(
        context, rows, width, [&](int64_t r) { return y + r * width; },
        [&](int64_t r) { return out + choices[r] * width; });
  }

  template <class From, class To>
  static void copy(Context& context, int64_t rows, int64_t width, const From& from, const To& to) {
    context.workers.parallel(rows, rows_grain(width), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) std::memcpy(to(r), from(r), size_t(width) * 4);
    });
  }

  void run_all(Context& context) const {
    const Groups groups = group(a);
    const int32_t* chosen = a.chosen.as<int32_t>();
    for (int64_t i = 0; i < a.rows * a.choices; ++i)
      if (chosen[i] < 0) std::fill(out + i * width, out + (i + 1) * width, std::numeric_limits<float>::quiet_NaN());
    const Scratch::Mark mark = context.scratch.mark();
    for (int64_t e = 0; e < a.experts; ++e) {
      const int64_t first = groups.first[size_t(e)], rows = groups.first[size_t(e + 1)] - first;
      if (rows > 0) run_group(e, groups.choice.data() + first, rows, context);
      context.scratch.rewind(mark);
    }
  }
};

/// out [rows, width] = sum over j of round(scores x) + residual.
template <class Round>
void mix(Context& context, const float* x, const float* scores, const float* residual, float* out, int64_t rows,
         int64_t choices, int64_t width, const Round& round) {
  context.workers.parallel(rows, rows_grain(width * choices), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* own = x + row * choices * width;
      for (int64_t i = 0; i < width; ++i) {
        float sum = 0;
        for (int64_t j = 0; j < choices; ++j) sum += round(scores[row * choices + j] * own[j * width + i]);
        out[row * width + i] = residual ? sum + residual[row * width + i] : sum;
      }
    }
  });
}

}  // namespace

void run(const ExpertLinearArgs& a, Context& context) {
  if (a.rows == 0) return;
  const int64_t width = a.gated ? a.n : a.n * (a.parts_count / a.experts);
  if (!a.scores) return Products{a, width, a.out.as<float>()}.run_all(context);
  float* y = context.scratch.take_array<float>(size_t(a.rows * a.choices * width));
  Products{a, width, y}.run_all(context);
  mix(context, y, a.scores.as<float>(), a.residual.as<float>(), a.out.as<float>(), a.rows, a.choices, width,
      [](float value) { return value; });
}

void run(const MixChoicesArgs& a, Context& context) {
  const auto with = [&](const auto& round) {
    mix(context, a.x.as<float>(), a.scores.as<float>(), nullptr, a.out.as<float>(), a.rows, a.choices, a.width, round);
  };
  const DType dtype = DType(a.dtype);
  if (dtype == DType::f16) return with([](float value) { return to_float(to_f16(value)); });
  if (dtype == DType::bf16) return with([](float value) { return to_float(to_bf16(value)); });
  with([](float value) { return value; });
}

}  // namespace q::cpu
