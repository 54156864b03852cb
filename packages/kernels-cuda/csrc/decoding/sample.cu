// sample: one token per row, -1 for one with NaN or plus infinity or of minus infinity alone. Penalty, temperature, topK, topP, minP and the draw as the command table orders them.
//
// A row's scores (after penalty and temperature) are written to the workspace in f32 and read from L2 by each step.
// topK and topP are the same search: keep x when W{y > x} < target, where W counts (target k) or adds up probability
// (target topP * total), so values that tie with the last kept one are kept. W is an integer (probability * 2^40), so
// atomics in any order give the same sum: same bits on every run. The search bins scores by their distance to the
// largest (2048 bins of 1/64); the scores of the bin that holds the threshold are then compared with each other, or
// gone through 8 bits at a time when they are too many.
// floor   one read of the row; here 1 pass for greedy (2 with a penalty), 8 for topK + topP, each about 1.5 us for
//         32000 scores
// launch  one block of 1024 threads a row; greedy without penalty is a plain argmax
// ref     tensor/src/driver/schema.ts
#include "argmax.cuh"
#include "launch.h"
#include "philox.cuh"

namespace q::cuda {
namespace {

using u64 = unsigned long long;
constexpr int kThreads = 1024;
constexpr int kBins = 2048;
constexpr float kBinsPerUnit = 64.f;

constexpr int kList = 2048;

struct Shared {
  uint32_t low[kBins], high[kBins];  // W of each bin in two halves: 64-bit atomics on shared memory are loops
  float list[kList];
  u64 weights[kList];
  int listed;
  u64 total;
  u64 best[32];
  u64 sums[32];
  float reduce[32];
  u64 above;
  int chosen;
  int32_t token;
};

__device__ __forceinline__ u64 mass(float x, float largest) {
  return static_cast<u64>(expf(x - largest) * 1099511627776.f);
}

__device__ __forceinline__ u64 warp_sum(u64 v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

__device__ __forceinline__ void add_to_bin(Shared& s, int bin, u64 weight) {
  const uint32_t low = static_cast<uint32_t>(weight), before = atomicAdd(&s.low[bin], low);
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before ? 1u : 0u);
  if (high) atomicAdd(&s.high[bin], high);
}

/// Going through bins 0, 1, ... finds the first whose running weight (on top of `above`) reaches `target` (times the
/// total of the bins when `fraction`); the last bin with weight if none does. Leaves it in s.chosen and the weight
/// before it in s.above, the absolute target's total in s.total. The first warp does the work; the whole block calls.
__device__ void choose_bin(Shared& s, int bins, u64 above, double target, bool fraction) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x, each = bins / 32;
    const auto bin = [&](int i) { return (static_cast<u64>(s.high[i]) << 32) + s.low[i]; };
    u64 own = 0;
    for (int i = 0; i < each; ++i) own += bin(lane * each + (i + lane) % each);
    u64 before = own;
#pragma unroll
    for (int o = 1; o < 32; o <<= 1) {
      const u64 other = __shfl_up_sync(0xffffffffu, before, o);
      if (lane >= o) before += other;
    }
    const u64 total = __shfl_sync(0xffffffffu, before, 31);
    if (fraction) target *= static_cast<double>(total);
    before += above - own;
    const unsigned reached = __ballot_sync(0xffffffffu, static_cast<double>(before + own) >= target && own > 0);
    const unsigned filled = __ballot_sync(0xffffffffu, own > 0);
    const int owner = reached ? __ffs(reached) - 1 : 31 - __clz(filled | 1u);
    if (lane == owner) {
      int chosen = lane * each;
      u64 sum = before, chosen_above = before;
      for (int i = 0; i < each; ++i) {
        const u64 w = bin(lane * each + i);
        if (w == 0) continue;
        chosen = lane * each + i;
        chosen_above = sum;
        sum += w;
        if (static_cast<double>(sum) >= target) break;
      }
      s.chosen = chosen;
      s.above = chosen_above;
      s.total = total;
    }
  }
  __syncthreads();
}

__device__ __forceinline__ int bin_of(float x, float largest) {
  const float distance = (largest - x) * kBinsPerUnit;
  return distance < float(kBins - 1) ? static_cast<int>(distance) : kBins - 1;
}

/// The smallest score x with W{y > x} < target (times the weight of all scores when `fraction`), among scores >= floor.
/// `weigh` gives W of one score.
template <class Weigh>
__device__ float threshold(const float* scores, int64_t width, float largest, float floor, double target, bool fraction,
                           Weigh weigh, Shared& s) {
  const auto clear = [&](int bins) {
    __syncthreads();
    for (int i = threadIdx.x; i < bins; i += kThreads) s.low[i] = s.high[i] = 0;
    if (threadIdx.x == 0) s.listed = 0;
    __syncthreads();
  };
  clear(kBins);
  each_value(scores, width, true, [&](float x, int64_t) {
    if (x >= floor && x != -INFINITY) add_to_bin(s, bin_of(x, largest), weigh(x));
  });
  choose_bin(s, kBins, 0, target, fraction);
  if (fraction) target *= static_cast<double>(s.total);
  const int bin = s.chosen;
  u64 above = s.above;
  each_value(scores, width, true, [&](float x, int64_t) {
    if (!(x >= floor) || x == -INFINITY || bin_of(x, largest) != bin) return;
    const int at = atomicAdd(&s.listed, 1);
    if (at < kList) s.list[at] = x, s.weights[at] = weigh(x);
  });
  __syncthreads();
  const int listed = s.listed;
  if (listed <= kList) {
    float least = INFINITY;
    for (int i = threadIdx.x; i < listed; i += kThreads) {
      const float x = s.list[i];
      u64 more = above;
      for (int j = 0; j < listed; ++j) more += s.list[j] > x ? s.weights[j] : 0;
      if (static_cast<double>(more) < target) least = fminf(least, x);
    }
    least = -block_reduce<Max>(-least, s.reduce);
    return least == INFINITY ? largest : least;
  }
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    clear(256);
    each_value(scores, width, true, [&](float x, int64_t) {
      if (!(x >= floor) || x == -INFINITY || bin_of(x, largest) != bin) return;
      const uint32_t key = ~ordered(x);  // larger scores first
      if (shift == 24 || (key >> (shift + 8)) == prefix) add_to_bin(s, (key >> shift) & 255, weigh(x));
    });
    choose_bin(s, 256, above, target, false);
    prefix = (prefix << 8) | static_cast<uint32_t>(s.chosen);
    above = s.above;
  }
  const uint32_t key = ~prefix;
  return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

/// The first index in vocabulary order whose cumulative mass exceeds u * total, among scores >= floor. `width` is a
/// multiple of 4.
__device__ int32_t draw(const float* scores, int64_t width, float largest, float floor, double u, Shared& s) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = kThreads / 32;
  const int64_t each = (width + warps * 128 - 1) / (warps * 128) * 128, from = warp * each,
                to = from + each < width ? from + each : width;
  const auto weigh4 = [&](const float4& v, u64(&w)[4]) {
    const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) w[j] = x[j] >= floor && x[j] != -INFINITY ? mass(x[j], largest) : 0;
    return w[0] + w[1] + w[2] + w[3];
  };
  const float4 none = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
  const auto at = [&](int64_t i) { return i < to ? *reinterpret_cast<const float4*>(scores + i) : none; };
  u64 own = 0, w[4];
#pragma unroll 8
  for (int64_t i = from + 4 * lane; i < to; i += 128) own += weigh4(at(i), w);
  own = warp_sum(own);
  __syncthreads();
  if (lane == 0) s.sums[warp] = own;
  if (threadIdx.x == 0) s.token = -1;
  __syncthreads();
  u64 total = 0, before = 0;
  for (int i = 0; i < warps; ++i) {
    if (i == warp) before = total;
    total += s.sums[i];
  }
  const u64 goal = static_cast<u64>(u * static_cast<double>(total));
  if (before <= goal && before + own > goal) {
    u64 sum = before;
    float4 ahead = at(from + 4 * lane);
    for (int64_t base = from; base < to; base += 128) {
      const u64 here = weigh4(ahead, w);
      ahead = at(base + 128 + 4 * lane);
      u64 upto = here;
#pragma unroll
      for (int o = 1; o < 32; o <<= 1) {
        const u64 other = __shfl_up_sync(0xffffffffu, upto, o);
        if (lane >= o) upto += other;
      }
      const unsigned over = __ballot_sync(0xffffffffu, sum + upto > goal);
      if (over) {
        if (lane == __ffs(over) - 1) {
          u64 running = sum + upto - here;
          int j = 0;
          while (j < 3 && (running += w[j]) <= goal) ++j;
          s.token = static_cast<int32_t>(base + 4 * lane + j);
        }
        break;
      }
      sum += __shfl_sync(0xffffffffu, upto, 31);
    }
  }
  __syncthreads();
  return s.token;
}

struct SampleParams {
  int32_t* out;
  const float* floats;
  const int32_t* ints;
  const int32_t* counters;
  const int32_t* history;  // may be null
  const int32_t* lengths;
  float* scores;          // workspace [rows, padded]
  int64_t width, padded;  // padded: width rounded up to a multiple of 4
  int64_t capacity;
  bool wide;
};

/// Scores of a row into the workspace: logits with the penalty on ids of the history (once an id), divided by the
/// temperature.
template <class T>
__device__ void write_scores(const T* __restrict__ x, float* __restrict__ scores, const SampleParams& p, int64_t row,
                             float penalty, float temperature) {
  const int64_t quads = p.wide ? p.width / 4 : 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < quads; i += kThreads) {
    float v[4];
    load(v, x + 4 * i);
    *reinterpret_cast<float4*>(scores + 4 * i) =
        make_float4(v[0] / temperature, v[1] / temperature, v[2] / temperature, v[3] / temperature);
  }
  for (int64_t i = 4 * quads + threadIdx.x; i < p.width; i += kThreads) scores[i] = to_float(x[i]) / temperature;
  for (int64_t i = p.width + threadIdx.x; i < p.padded; i += kThreads) scores[i] = -INFINITY;
  if (penalty == 1.f || !p.history || !p.lengths) return;
  __syncthreads();
  const int64_t length = p.lengths[row] < p.capacity ? p.lengths[row] : p.capacity;
  for (int64_t i = threadIdx.x; i < length; i += kThreads) {
    const int64_t id = p.history[row * p.capacity + i];
    if (id < 0 || id >= p.width) continue;
    const float logit = to_float(x[id]);  // from the logits, so that an id that comes twice is penalised once
    scores[id] = (logit < 0.f ? logit * penalty : logit / penalty) / temperature;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) sample_kernel(const T* logits, SampleParams p) {
  pdl_begin();
  __shared__ Shared s;
  const int64_t row = blockIdx.x;
  const T* x = logits + row * p.width;
  const float temperature = p.floats[4 * row], top_p = p.floats[4 * row + 1], min_p = p.floats[4 * row + 2],
              penalty = p.floats[4 * row + 3];
  // A temperature so small that scores leave f32 puts all the mass on the largest.
  bool sampling = p.ints[4 * row] != 0 && temperature > 0.f && 1.f / temperature < INFINITY;
  const int64_t top_k = p.ints[4 * row + 1];
  const bool penalised = penalty != 1.f && p.history && p.lengths;
  if (!sampling && !penalised) {
    const int32_t best = block_argmax(x, p.width, p.wide, s.best);
    if (threadIdx.x == 0) p.out[row] = best;
    return;
  }
  float* scores = p.scores + row * p.padded;
  write_scores(x, scores, p, row, penalty, sampling ? temperature : 1.f);
  __syncthreads();
  int32_t best = block_argmax(scores, p.padded, true, s.best);
  if (sampling && best < 0) {  // of the temperature, or of the logits
    __syncthreads();
    write_scores(x, scores, p, row, penalty, 1.f);
    __syncthreads();
    best = block_argmax(scores, p.padded, true, s.best);
    sampling = false;
  }
  if (!sampling) {
    if (threadIdx.x == 0) p.out[row] = best;
    return;
  }
  const float largest = scores[best];
  float floor = -INFINITY;
  if (top_k > 0 && top_k < p.width)
    floor = threshold(scores, p.padded, largest, floor, double(top_k), false, [](float) { return u64(1); }, s);
  if (top_p < 1.f)
    floor = threshold(
        scores, p.padded, largest, floor, double(top_p), true, [largest](float v) { return mass(v, largest); }, s);
  if (min_p > 0.f) floor = fmaxf(floor, largest + logf(min_p));
  const uint2 key = make_uint2(uint32_t(p.ints[4 * row + 2]), uint32_t(p.ints[4 * row + 3]));
  const uint4 random = philox(make_uint4(uint32_t(p.counters[row]), 0, 0, 0), key);
  const double u = (double(random.x) + 0.5) / 4294967296.0;
  const int32_t token = draw(scores, p.padded, largest, floor, u, s);
  if (threadIdx.x == 0) p.out[row] = token >= 0 ? token : best;
}

}  // namespace

void run(const SampleArgs& a, Context& c) {
  if (a.rows == 0) return;
  with_float(a.logits.dtype, "sample", [&](auto zero) {
    using T = decltype(zero);
    SampleParams p{};
    p.out = a.out.as<int32_t>();
    p.floats = a.floats.as<const float>();
    p.ints = a.ints.as<const int32_t>();
    p.counters = a.counters.as<const int32_t>();
    p.history = a.history.as<const int32_t>();
    p.lengths = a.history_lengths.as<const int32_t>();
    p.width = a.width;
    p.padded = (a.width + 3) / 4 * 4;
    p.scores = c.workspace.take_array<float>(static_cast<size_t>(a.rows * p.padded));
    p.capacity = a.history_capacity;
    p.wide = aligned16(a.logits.data) && a.width % kPack<T> == 0;
    launch(c, "sample", sample_kernel<T>, dim3(static_cast<unsigned>(a.rows)), kThreads, 0, a.logits.as<const T>(), p);
  });
}

}  // namespace q::cuda
