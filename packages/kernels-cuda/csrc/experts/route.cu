// route   the experts of each row, and their scores
// maths   see the command; f32, sums over the experts by a butterfly over the lanes
// layout  a warp a row; lane l holds experts l, l + 32, ...: at most 8
// floor   4 rows experts bytes; launch latency            launch  grid rows / 4, block 128; all architectures
// exact   fixed order: same bits each run, whatever the other rows hold; the lowest index wins ties
// ref     tensor/src/reference/experts.ts
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kWarps = 4, kSlots = 8;

struct RouteProblem {
  const void* logits;
  DType dtype;
  const float* bias;
  int32_t* chosen;
  float* scores;
  int64_t rows;
  int experts, choices;
  RouteKind kind;
  bool normalize;
  int groups, top_groups;
  float scale;
};

/// The largest value over the warp and its index, the lowest on ties; index -1 takes no part.
__device__ __forceinline__ void warp_best(float& value, int& index) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const float other = __shfl_xor_sync(0xffffffffu, value, o);
    const int at = __shfl_xor_sync(0xffffffffu, index, o);
    const bool take = at >= 0 && (index < 0 || other > value || (other == value && at < index));
    value = take ? other : value;
    index = take ? at : index;
  }
}

/// The best of what the lanes hold, but for those taken and those outside [begin, end).
__device__ int best_of(const float (&values)[kSlots], unsigned taken, int experts, int begin, int end, float& value) {
  int index = -1;
  value = -INFINITY;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int at = s * 32 + (threadIdx.x & 31);
    if (at >= experts || at < begin || at >= end || (taken >> s & 1)) continue;
    if (index < 0 || values[s] > value) value = values[s], index = at;
  }
  warp_best(value, index);
  return index;
}

/// Marks the slots outside the best groups in `taken`.
__device__ unsigned outside_groups(const RouteProblem& p, const float (&values)[kSlots]) {
  const int size = p.experts / p.groups, lane = threadIdx.x & 31;
  float sums[kSlots];  // group g in lane g % 32
#pragma unroll
  for (int s = 0; s < kSlots; ++s) sums[s] = -INFINITY;
  for (int g = 0; g < p.groups; ++g) {
    float first, second;
    const int best = best_of(values, 0, p.experts, g * size, (g + 1) * size, first);
    const unsigned without = (best & 31) == lane ? 1u << (best >> 5) : 0;
    best_of(values, without, p.experts, g * size, (g + 1) * size, second);
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      if (g == s * 32 + lane) sums[s] = first + second;
  }
  unsigned taken = 0xff, chosen = 0;
  for (int i = 0; i < p.top_groups; ++i) {
    float value;
    const int group = best_of(sums, chosen, p.groups, 0, p.groups, value);
    if ((group & 31) == lane) chosen |= 1u << (group >> 5);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int at = s * 32 + lane;
      if (at < p.experts && at / size == group) taken &= ~(1u << s);
    }
  }
  return taken;
}

__global__ void __launch_bounds__(kWarps * 32) route_kernel(const RouteProblem p) {
  pdl_begin();
  const int lane = threadIdx.x & 31;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + (threadIdx.x >> 5);
  if (row >= p.rows) return;
  float logits[kSlots], wanted[kSlots];
  bool bad = false, finite = false;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int at = s * 32 + lane;
    logits[s] = at < p.experts ? load_any(p.logits, p.dtype, row * p.experts + at) : -INFINITY;
    bad = bad || !(logits[s] < INFINITY);
    finite = finite || logits[s] > -INFINITY;
    wanted[s] = logits[s];
    if (p.kind == RouteKind::sigmoid) {
      logits[s] = 1.f / (1.f + expf(-logits[s]));
      wanted[s] = logits[s] + (p.bias && at < p.experts ? p.bias[at] : 0.f);
    }
  }
  const bool broken = __any_sync(0xffffffffu, bad) || !__any_sync(0xffffffffu, finite);
  unsigned taken = !broken && p.groups > 1 ? outside_groups(p, wanted) : 0;
  float score = 0.f, most = 0.f;  // of choice `lane`
  int own = -1;
  for (int j = 0; j < p.choices && !broken; ++j) {
    float value;
    const int expert = best_of(wanted, taken, p.experts, 0, p.experts, value);
    if ((expert & 31) == lane) taken |= 1u << (expert >> 5);
    if (p.kind == RouteKind::sigmoid) {
      float plain = 0.f;
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        if (s == expert >> 5) plain = logits[s];
      value = __shfl_sync(0xffffffffu, plain, expert & 31);
    }
    if (j == 0) most = value;
    if (lane == j) own = expert, score = p.kind == RouteKind::sigmoid ? value : expf(value - most);
  }
  if (p.kind != RouteKind::sigmoid) {
    float sum = lane < p.choices ? score : 0.f;
    if (p.kind == RouteKind::softmax) {
      sum = 0.f;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) sum += s * 32 + lane < p.experts ? expf(logits[s] - most) : 0.f;
    }
    score /= warp_reduce<Sum>(sum);
  }
  if (p.normalize) {
    const float sum = warp_reduce<Sum>(lane < p.choices ? score : 0.f);
    score /= sum + (p.kind == RouteKind::sigmoid ? 1e-20f : 0.f);
  }
  if (lane >= p.choices) return;
  p.chosen[row * p.choices + lane] = own;
  p.scores[row * p.choices + lane] = broken ? NAN : score * p.scale;
}

}  // namespace

void run(const RouteArgs& a, Context& context) {
  if (a.rows == 0) return;
  const RouteProblem p{a.logits.data,
                       a.logits.dtype,
                       a.bias.as<float>(),
                       a.chosen.as<int32_t>(),
                       a.scores.as<float>(),
                       a.rows,
                       static_cast<int>(a.experts),
                       static_cast<int>(a.choices),
                       static_cast<RouteKind>(a.kind),
                       a.normalize != 0,
                       static_cast<int>(a.groups),
                       static_cast<int>(a.top_groups),
                       static_cast<float>(a.scale)};
  launch(context, "route", route_kernel, blocks_for(a.rows, kWarps), kWarps * 32, 0, p);
}

}  // namespace q::cuda
