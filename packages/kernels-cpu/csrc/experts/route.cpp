// route   which experts a row goes through, and with which scores
// maths   see the command; sums over the experts in f32, in their order
// layout  logits f32 [T, E], E <= 256: a row is handled by one thread
// floor   4 T E bytes               ref  tensor/src/reference/experts.ts
#include <algorithm>
#include <cmath>
#include <limits>
#include "../common/checks.h"

namespace q::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool is_broken(const float* row, int64_t n) {
  bool all_low = true;
  for (int64_t i = 0; i < n; ++i) {
    if (!(row[i] < kInfinity)) return true;
    all_low = all_low && row[i] == -kInfinity;
  }
  return all_low;
}

/// The `count` largest of n values, the largest first, the lowest index on ties.
void largest(const float* values, int64_t n, int64_t count, int32_t* indices) {
  bool taken[256] = {};
  for (int64_t j = 0; j < count; ++j) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i)
      if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
    taken[best] = true;
    indices[j] = int32_t(best);
  }
}

/// Minus infinity for the experts outside the best groups.
void keep_groups(float* values, int64_t experts, int64_t groups, int64_t top) {
  if (groups == 1) return;
  const int64_t size = experts / groups;
  float sums[256];
  int32_t best[2], kept[256];
  for (int64_t g = 0; g < groups; ++g) {
    largest(values + g * size, size, 2, best);
    sums[g] = values[g * size + best[0]] + values[g * size + best[1]];
  }
  largest(sums, groups, top, kept);
  for (int64_t g = 0; g < groups; ++g)
    if (std::find(kept, kept + top, int32_t(g)) == kept + top)
      std::fill(values + g * size, values + (g + 1) * size, -kInfinity);
}

void sigmoid_scores(const RouteArgs& a, const float* logits, int32_t* chosen, float* scores) {
  float sigmoids[256], wanted[256];
  const float* bias = a.bias.as<float>();
  for (int64_t i = 0; i < a.experts; ++i) {
    sigmoids[i] = 1.f / (1.f + std::exp(-logits[i]));
    wanted[i] = sigmoids[i] + (bias ? bias[i] : 0.f);
  }
  keep_groups(wanted, a.experts, a.groups, a.top_groups);
  largest(wanted, a.experts, a.choices, chosen);
  for (int64_t j = 0; j < a.choices; ++j) scores[j] = sigmoids[chosen[j]];
}

void softmax_scores(const RouteArgs& a, const float* logits, int32_t* chosen, float* scores) {
  largest(logits, a.experts, a.choices, chosen);
  const float most = logits[chosen[0]];
  float sum = 0;
  if (RouteKind(a.kind) == RouteKind::softmax)
    for (int64_t i = 0; i < a.experts; ++i) sum += std::exp(logits[i] - most);
  else
    for (int64_t j = 0; j < a.choices; ++j) sum += std::exp(logits[chosen[j]] - most);
  for (int64_t j = 0; j < a.choices; ++j) scores[j] = std::exp(logits[chosen[j]] - most) / sum;
}

void route_row(const RouteArgs& a, int64_t row) {
  const float* logits = a.logits.as<float>() + row * a.experts;
  int32_t* chosen = a.chosen.as<int32_t>() + row * a.choices;
  float* scores = a.scores.as<float>() + row * a.choices;
  if (is_broken(logits, a.experts)) {
    std::fill(chosen, chosen + a.choices, -1);
    std::fill(scores, scores + a.choices, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const bool sigmoid = RouteKind(a.kind) == RouteKind::sigmoid;
  sigmoid ? sigmoid_scores(a, logits, chosen, scores) : softmax_scores(a, logits, chosen, scores);
  float sum = sigmoid ? 1e-20f : 0.f;
  for (int64_t j = 0; j < a.choices; ++j) sum += scores[j];
  for (int64_t j = 0; j < a.choices; ++j) scores[j] = (a.normalize ? scores[j] / sum : scores[j]) * float(a.scale);
}

}  // namespace

void run(const RouteArgs& a, Context& context) {
  context.workers.parallel(a.rows, rows_grain(a.experts * a.choices), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) route_row(a, row);
  });
}

}  // namespace q::cpu
