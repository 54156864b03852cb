// sample   one token per row: repetition penalty, then temperature, top-k, top-p, min-p, softmax, and the first index
//          in vocabulary order whose cumulative probability exceeds u; or argmax. u is Philox4x32-10 at counter (tokens
//          generated, 0, 0, 0), key (seed)
// advance  the inputs of the next decode step, from the sampled tokens
// layout   logits f32 [B, V]; a row is copied to scratch first; floor 4 V bytes per row (argmax), about five passes
//          when sampling
// exact    probabilities in f32 by the vector exp, sums in f64 in vocabulary order
// ref      tensor/src/reference/sampling.ts
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include "../common/checks.h"
#include "../common/philox.h"
#include "../elementwise/elementwise.h"

namespace q::cpu {
namespace {

constexpr int32_t kNoToken = -1;  // of a row whose logits were broken

struct RowOptions {
  float temperature, top_p, min_p, penalty;
};

/// Smallest of the k largest values. Reorders `work`.
float kth_largest(float* work, int64_t n, int64_t k) {
  std::nth_element(work, work + (k - 1), work + n, std::greater<float>());
  return work[k - 1];
}

/// The smallest probability that top-p keeps: the most likely ones are added until they reach p. Reorders `work`.
float nucleus_edge(float* work, int64_t n, double total, double p) {
  double sum = 0;
  int64_t done = 0;
  for (int64_t part = 64; done < n; part *= 8) {  // most of the mass is in few tokens: sort only as far as needed
    const int64_t end = std::min(done + part, n);
    if (end < n) std::nth_element(work + done, work + end, work + n, std::greater<float>());
    std::sort(work + done, work + end, std::greater<float>());
    for (; done < end; ++done) {
      sum += double(work[done]) / total;
      if (sum >= p) return work[done];
    }
  }
  return work[n - 1];
}

double sum_of(const float* p, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p[i];
  return sum;
}

void keep_from(float* p, int64_t n, float least) {
  for (int64_t i = 0; i < n; ++i) p[i] = p[i] < least ? 0.f : p[i];
}

/// Draws from scores [n], which become probabilities; `best` is the index of the largest. `work` is of the same size.
int64_t draw(float* scores, float* work, int64_t n, int64_t best, const RowOptions& options, int64_t top_k, double u,
             const ElementwiseKernels& kernels) {
  const float sharpness = 1.f / options.temperature;
  // So small a temperature that scores leave f32: all the mass is at the largest.
  if (!(sharpness > 0) || !(std::fabs(scores[best] * sharpness) < INFINITY) || sharpness == INFINITY) return best;
  kernels.scale(scores, scores, n, sharpness, 0.f);
  if (top_k > 0 && top_k < n) {
    std::memcpy(work, scores, size_t(n) * 4);
    const float least = kth_largest(work, n, top_k);
    for (int64_t i = 0; i < n; ++i) scores[i] = scores[i] < least ? -INFINITY : scores[i];
  }
  kernels.softmax(scores, scores, n);
  if (options.top_p < 1.f) {
    std::memcpy(work, scores, size_t(n) * 4);
    keep_from(scores, n, nucleus_edge(work, n, sum_of(scores, n), options.top_p));
  }
  if (options.min_p > 0.f) keep_from(scores, n, options.min_p * *std::max_element(scores, scores + n));
  const double target = u * sum_of(scores, n);
  double cumulative = 0;
  int64_t last = 0;  // rounding may leave the sum just below the target: then the last possible token
  for (int64_t i = 0; i < n; ++i) {
    if (scores[i] <= 0) continue;
    last = i;
    cumulative += scores[i];
    if (cumulative > target) return i;
  }
  return last;
}

void penalise(const SampleArgs& a, int64_t row, const float* logits, float* scores, float penalty) {
  const int64_t length = std::min<int64_t>(a.history_lengths.as<int32_t>()[row], a.history_capacity);
  const int32_t* history = a.history.as<int32_t>() + row * a.history_capacity;
  for (int64_t i = 0; i < length; ++i) {
    const int32_t id = history[i];
    if (id == kNoToken) continue;
    if (id < 0 || id >= a.width)
      refuse("token " + std::to_string(id) + " in the history of row " + std::to_string(row) +
             " is outside the vocabulary of " + std::to_string(a.width));
    scores[id] = logits[id] < 0 ? logits[id] * penalty
                                : logits[id] / penalty;  // from the logits: a token that comes twice is penalised once
  }
}

}  // namespace

void run(const SampleArgs& a, Context& context) {
  if (a.rows == 0) return;
  const ElementwiseKernels& kernels = elementwise_kernels(context.features.isa);
  float* scratch = context.scratch.take_array<float>(size_t(2 * a.width * context.workers.threads()));
  context.workers.parallel(a.rows, 1, [&](int64_t begin, int64_t end, int thread) {
    float* scores = scratch + 2 * a.width * thread;
    for (int64_t row = begin; row < end; ++row) {
      const float *logits = a.logits.as<float>() + row * a.width, *floats = a.floats.as<float>() + row * 4;
      const int32_t* ints = a.ints.as<int32_t>() + row * 4;
      const RowOptions options{floats[0], floats[1], floats[2], floats[3]};
      std::memcpy(scores, logits, size_t(a.width) * 4);
      if (a.history && options.penalty != 1.f) penalise(a, row, logits, scores, options.penalty);
      const int64_t best = kernels.argmax(scores, a.width);
      if (ints[0] == 0 || best < 0) {
        a.out.as<int32_t>()[row] = int32_t(best);
        continue;
      }
      const double u =
          unit(philox({{uint32_t(a.counters.as<int32_t>()[row]), 0, 0, 0}}, uint32_t(ints[2]), uint32_t(ints[3])).w[0]);
      a.out.as<int32_t>()[row] = int32_t(draw(scores, scores + a.width, a.width, best, options, ints[1], u, kernels));
    }
  });
}

void run(const AdvanceArgs& a, Context&) {
  const auto next = [](const Tensor& t, int64_t row) {  // wraps, as on a GPU
    int32_t& value = t.as<int32_t>()[row];
    const int32_t before = value;
    value = int32_t(uint32_t(before) + 1);
    return before;
  };
  for (int64_t row = 0; row < a.rows; ++row) {
    const int32_t token = a.sampled.as<int32_t>()[row];
    a.token_ids.as<int32_t>()[row] = token;
    for (const Tensor* t : {&a.positions, &a.context_lengths, &a.counters}) next(*t, row);
    if (!a.history_lengths) continue;
    const int64_t at = next(a.history_lengths, row);
    if (a.history && at >= 0 && at < a.history_capacity) a.history.as<int32_t>()[row * a.history_capacity + at] = token;
  }
}

}  // namespace q::cpu
