// ropeKvWrite: rotates the queries of qkv in place, and writes rotated keys and the values to the paged cache.
//   (a, b) -> (a cos - b sin, a sin + b cos), cos and sin of position * inverseFrequency in f32, times ropeScale;
//   queries then times 1 + scalingBeta ln(1 + floor(position / scalingLength))
// layout  as in tensor/src/driver/schema.ts: pairs (i, i + rotaryDim / 2), or (2i, 2i + 1) when interleaved
// floor   T * (2 H + 4 Hkv) * D * bytes (queries read and written, keys and values read and written)
// launch  8 warps a block; a warp has one head of a token, or every 8th when there are many tokens; exact f32 inside,
//         one rounding; ref tensor/src/driver/schema.ts
#include "attention/choice.h"
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

struct RopeParams {
  void* qkv;
  void *keys, *values;
  DType cache_dtype;
  const int32_t *positions, *sequences, *tables;
  const float* frequencies;  // may be null: no rotation
  int heads, kv_heads, head_dim, value_dim, rotary_dim, rotary_offset;
  bool interleaved, per_sequence;
  float scale, beta;
  int scaling_length;
  int64_t q_offset, q_group_stride, k_offset, v_offset, kv_stride, row_stride;
  int block_size, max_blocks;
};

template <int N>
__device__ __forceinline__ void store_cache(void* cache, DType dtype, int64_t i, const float (&v)[N]) {
  if (dtype == DType::f32)
    store(static_cast<float*>(cache) + i, v);
  else if (dtype == DType::f16)
    store(static_cast<half_t*>(cache) + i, v);
  else
    store(static_cast<bfloat_t*>(cache) + i, v);
}

/// Rotates `rotated` values of a head of `dim`, read from `head`; put(i, values) takes N values at element i of the
/// head.
template <int N, int PAIRS, class T, class Put>
__device__ __forceinline__ void rotate_head(const RopeParams& p, const T* head, int dim, int rotated,
                                            const float (&sines)[PAIRS], const float (&cosines)[PAIRS], Put put) {
  const int lane = threadIdx.x & 31, half = p.rotary_dim / 2, offset = p.rotary_offset;
  const T* from = head + offset;
#pragma unroll
  for (int k = 0; k < PAIRS / N; ++k) {
    const int i = (k * 32 + lane) * N;
    if (i >= rotated / 2) break;
    float a[N], b[N], both[2 * N];
    if (p.interleaved && N == 1) {  // heads may begin anywhere
      a[0] = to_float(from[2 * i]);
      b[0] = to_float(from[2 * i + 1]);
    } else if (p.interleaved) {
      load(both, from + 2 * i);
#pragma unroll
      for (int j = 0; j < N; ++j) a[j] = both[2 * j], b[j] = both[2 * j + 1];
    } else {
      load(a, from + i);
      load(b, from + i + half);
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float x = a[j], y = b[j], s = sines[k * N + j], c = cosines[k * N + j];
      a[j] = x * c - y * s;
      b[j] = x * s + y * c;
    }
    if (p.interleaved && N == 1) {
      put(offset + 2 * i, a);
      put(offset + 2 * i + 1, b);
    } else if (p.interleaved) {
#pragma unroll
      for (int j = 0; j < N; ++j) both[2 * j] = a[j], both[2 * j + 1] = b[j];
      put(offset + 2 * i, both);
    } else {
      put(offset + i, a);
      put(offset + i + half, b);
    }
  }
  for (int rest = rotated + lane * N; rest < dim; rest += 32 * N) {
    const int i = rest - rotated < offset ? rest - rotated : rest;
    float v[N];
    load(v, head + i);
    put(i, v);
  }
}

/// A warp has the heads first, first + step, ... of a token, and computes the token's sines and cosines once.
/// PAIRS: pairs of a lane, so rotaryDim is at most 64 * PAIRS.
template <class T, int N, int PAIRS>
__global__ void __launch_bounds__(256, N == 2 && PAIRS == 2 ? 6 : 1) rope_kernel(RopeParams p) {
  pdl_trigger();
  const int64_t token = blockIdx.x;
  const int lane = threadIdx.x & 31, heads = p.heads + 2 * p.kv_heads, group_size = p.heads / p.kv_heads;
  const int position = p.positions[token], sequence = p.sequences[token];
  T* row = static_cast<T*>(p.qkv) + token * p.row_stride;
  const int rotated = p.frequencies ? p.rotary_dim : 0;
  const float* frequencies = p.frequencies + (p.per_sequence ? int64_t(sequence) * (p.rotary_dim / 2) : 0);
  const int64_t block = p.tables[int64_t(sequence) * p.max_blocks + position / p.block_size];
  float sines[PAIRS] = {}, cosines[PAIRS] = {};
#pragma unroll
  for (int k = 0; k < PAIRS; ++k) {
    const int i = ((k / N) * 32 + lane) * N + k % N;
    if (i >= rotated / 2) continue;
    sincosf(static_cast<float>(position) * frequencies[i], &sines[k], &cosines[k]);
    sines[k] *= p.scale;
    cosines[k] *= p.scale;
  }
  const float scaling =
      p.beta == 0.f ? 1.f : 1.f + p.beta * logf(1.f + static_cast<float>(position / p.scaling_length));
  pdl_wait();  // positions, tables and frequencies are read early (launch.h)
  for (int head = blockIdx.y * 8 + (threadIdx.x >> 5); head < heads; head += gridDim.y * 8) {
    if (head < p.heads) {
      T* q = row + p.q_offset + (head / group_size) * p.q_group_stride + int64_t(head % group_size) * p.head_dim;
      // In place: a lane writes only what it alone has read; the part that is not rotated stays.
      if (p.beta != 0.f)
        rotate_head<N, PAIRS>(p, q, p.head_dim, rotated, sines, cosines, [&](int i, const auto& v) {
          float scaled[sizeof(v) / sizeof(float)];
#pragma unroll
          for (int j = 0; j < int(sizeof(v) / sizeof(float)); ++j) scaled[j] = v[j] * scaling;
          store(q + i, scaled);
        });
      else if (rotated)
        rotate_head<N, PAIRS>(p, q, p.head_dim, rotated, sines, cosines, [&](int i, const auto& v) {
          if (static_cast<unsigned>(i - p.rotary_offset) < static_cast<unsigned>(rotated)) store(q + i, v);
        });
      continue;
    }
    const bool key = head < p.heads + p.kv_heads;
    const int group = head - p.heads - (key ? 0 : p.kv_heads);
    const int64_t slot =
        ((block * p.kv_heads + group) * p.block_size + position % p.block_size) * (key ? p.head_dim : p.value_dim);
    const T* from = row + (key ? p.k_offset : p.v_offset) + group * p.kv_stride;
    void* cache = key ? p.keys : p.values;
    rotate_head<N, PAIRS>(p, from, key ? p.head_dim : p.value_dim, key ? rotated : 0, sines, cosines,
                          [&](int i, const auto& v) { store_cache(cache, p.cache_dtype, slot + i, v); });
  }
}

}  // namespace

void run(const RopeKvWriteArgs& a, Context& c) {
  require(a.rotary_dim <= 512, "ropeKvWrite: rotaryDim is at most 512");
  if (a.tokens == 0) return;
  RopeParams p{};
  p.qkv = a.qkv.data;
  p.keys = a.key_cache.data;
  p.values = a.value_cache.data;
  p.cache_dtype = a.key_cache.dtype;
  p.positions = a.positions.as<const int32_t>();
  p.sequences = a.sequence_of.as<const int32_t>();
  p.tables = a.block_tables.as<const int32_t>();
  p.frequencies = a.rotary_dim > 0 ? a.inverse_frequencies.as<const float>() : nullptr;
  p.heads = static_cast<int>(a.num_heads);
  p.kv_heads = static_cast<int>(a.num_kv_heads);
  p.head_dim = static_cast<int>(a.head_dim);
  p.value_dim = static_cast<int>(a.value_dim);
  p.rotary_dim = static_cast<int>(a.rotary_dim);
  p.rotary_offset = static_cast<int>(a.rotary_offset);
  p.beta = static_cast<float>(a.scaling_beta);
  p.scaling_length = static_cast<int>(a.scaling_length);
  p.interleaved = a.interleaved != 0;
  p.per_sequence = a.per_sequence != 0;
  p.scale = static_cast<float>(a.rope_scale);
  p.q_offset = a.q_offset;
  p.q_group_stride = a.q_group_stride;
  p.k_offset = a.k_offset;
  p.v_offset = a.v_offset;
  p.kv_stride = a.kv_stride;
  p.row_stride = a.row_stride;
  p.block_size = static_cast<int>(a.block_size);
  p.max_blocks = static_cast<int>(a.max_blocks);
  const RopeChoice choice = choose_rope(facts_of(a), machine_of(c));
  const bool pairs = choice.kernel == RopeKernel::pairs;
  const dim3 grid(static_cast<unsigned>(a.tokens), blocks_for(p.heads + 2 * p.kv_heads, 8 * choice.heads_a_warp));
  with_float(a.qkv.dtype, "ropeKvWrite", [&](auto zero) {
    using T = decltype(zero);
    const auto go = [&](auto kernel) { launch(c, "ropeKvWrite", kernel, grid, 256, 0, p); };
    if (choice.lane_values == 8) return pairs ? go(rope_kernel<T, 2, 8>) : go(rope_kernel<T, 1, 8>);
    pairs ? go(rope_kernel<T, 2, 2>) : go(rope_kernel<T, 1, 2>);
  });
}

}  // namespace q::cuda
