// activation, gatedActivation, add, scale: f32 inside, act in and out.
// floor   bytes read + written at ~4.3 TB/s; launch a 16-byte pack a thread (grid-stride above 2^31 packs is not
//         needed: grid x holds 2^31 blocks)
// exact   elementwise: a value depends on its inputs alone (__expf: 2 ulp + 2^-21 relative); ref
//         tensor/src/driver/schema.ts
#include "elementwise/bounded_gate.h"
#include "activation.cuh"
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 256;

/// out[i] = f(i) for all i; F has load<N>(i, v), which gives N values at element i.
template <class T, class F>
__global__ void map_kernel(F f, T* out, int64_t count, bool wide) {
  pdl_begin();
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  constexpr int N = kPack<T>;
  if (wide) {
    if ((i + 1) * N <= count) {
      float v[N];
      f.template load<N>(i * N, v);
      store(out + i * N, v);
      return;
    }
    for (int64_t j = i * N; j < count; ++j) {
      float v[1];
      f.template load<1>(j, v);
      out[j] = from_float<T>(v[0]);
    }
  } else if (i < count) {
    float v[1];
    f.template load<1>(i, v);
    out[i] = from_float<T>(v[0]);
  }
}

template <class T, class F>
void map(Context& c, const char* what, F f, T* out, int64_t count, bool wide) {
  if (count == 0) return;
  launch(c, what, map_kernel<T, F>, blocks_for(wide ? (count + kPack<T> - 1) / kPack<T> : count, kThreads), kThreads, 0,
         f, out, count, wide);
}

template <class T, ActivationKind K>
struct Activate {
  const T* x;
  template <int N>
  __device__ void load(int64_t i, float (&v)[N]) const {
    q::cuda::load(v, x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = activate<K>(v[j]);
  }
};

/// Rows of gate | up. A pack stays within a row, since `wide` asks for width % N == 0.
template <class T, ActivationKind K>
struct Gate {
  const T* x;
  int64_t width;
  template <int N>
  __device__ void load(int64_t i, float (&v)[N]) const {
    const int64_t row =
        width < (int64_t(1) << 31) && i < (int64_t(1) << 31) ? int64_t(uint32_t(i) / uint32_t(width)) : i / width;
    const T* gate = x + row * 2 * width + (i - row * width);
    float up[N];
    q::cuda::load(v, gate);
    q::cuda::load(up, gate + width);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = activate<K>(v[j]) * up[j];
  }
};

/// The same with limits, rounded steps and a residual.
template <class T>
struct BoundedGate {
  const T* x;
  const T* residual;  // may be null
  int64_t width;
  ActivationKind kind;
  float limit, up_offset;
  DType dtype;
  template <int N>
  __device__ void load(int64_t i, float (&v)[N]) const {
    const T* gate = x + i + i / width * width;
    float up[N], add[N] = {};
    q::cuda::load(v, gate);
    q::cuda::load(up, gate + width);
    if (residual) q::cuda::load(add, residual + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {  // NaN stays
      const float g = v[j] > limit ? limit : v[j], u = up[j] > limit ? limit : up[j] < -limit ? -limit : up[j];
      v[j] = rounded(activate(kind, g), dtype) * rounded(u + up_offset, dtype) + add[j];
    }
  }
};

template <class T>
struct Add {
  const T *a, *b;
  template <int N>
  __device__ void load(int64_t i, float (&v)[N]) const {
    float w[N];
    q::cuda::load(v, a + i);
    q::cuda::load(w, b + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += w[j];
  }
};

template <class T>
struct Scale {
  const T* x;
  float factor, softcap;
  template <int N>
  __device__ void load(int64_t i, float (&v)[N]) const {
    q::cuda::load(v, x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      v[j] *= factor;
      if (softcap > 0.f) v[j] = softcap * tanhf(v[j] / softcap);
    }
  }
};

template <class F>
void with_kind(int64_t kind, F&& f) {
  using K = ActivationKind;
  switch (static_cast<K>(kind)) {
    case K::none:
      return f(std::integral_constant<K, K::none>{});
    case K::silu:
      return f(std::integral_constant<K, K::silu>{});
    case K::gelu:
      return f(std::integral_constant<K, K::gelu>{});
    case K::gelu_tanh:
      return f(std::integral_constant<K, K::gelu_tanh>{});
    case K::relu:
      return f(std::integral_constant<K, K::relu>{});
    case K::quick_gelu:
      return f(std::integral_constant<K, K::quick_gelu>{});
    case K::sigmoid:
      return f(std::integral_constant<K, K::sigmoid>{});
    case K::tanh:
      return f(std::integral_constant<K, K::tanh>{});
  }
  throw CommandError("unknown activation kind " + std::to_string(kind));
}

}  // namespace

void run(const ActivationArgs& a, Context& c) {
  with_float(a.x.dtype, "activation", [&](auto zero) {
    using T = decltype(zero);
    with_kind(a.kind, [&](auto kind) {
      map(c, "activation", Activate<T, decltype(kind)::value>{a.x.as<const T>()}, a.out.as<T>(), a.count,
          aligned16(a.x.data) && aligned16(a.out.data));
    });
  });
}

void bounded_gate(const GatedActivationArgs& a, const void* residual, Context& c) {
  with_float(a.x.dtype, "gatedActivation", [&](auto zero) {
    using T = decltype(zero);
    const bool wide = a.width % kPack<T> == 0 && aligned16(a.x.data) && aligned16(a.out.data) && aligned16(residual);
    const BoundedGate<T> gate{a.x.as<const T>(),
                              static_cast<const T*>(residual),
                              a.width,
                              static_cast<ActivationKind>(a.kind),
                              a.limit > 0 ? static_cast<float>(a.limit) : INFINITY,
                              static_cast<float>(a.up_offset),
                              static_cast<DType>(a.dtype)};
    map(c, "gatedActivation", gate, a.out.as<T>(), a.rows * a.width, wide);
  });
}

void run(const GatedActivationArgs& a, Context& c) {
  if (a.limit > 0 || a.up_offset != 0 || static_cast<DType>(a.dtype) != DType::f32) return bounded_gate(a, nullptr, c);
  with_float(a.x.dtype, "gatedActivation", [&](auto zero) {
    using T = decltype(zero);
    const bool wide = a.width % kPack<T> == 0 && aligned16(a.x.data) && aligned16(a.out.data);
    with_kind(a.kind, [&](auto kind) {
      map(c, "gatedActivation", Gate<T, decltype(kind)::value>{a.x.as<const T>(), a.width}, a.out.as<T>(),
          a.rows * a.width, wide);
    });
  });
}

void run(const AddArgs& a, Context& c) {
  with_float(a.out.dtype, "add", [&](auto zero) {
    using T = decltype(zero);
    map(c, "add", Add<T>{a.a.as<const T>(), a.b.as<const T>()}, a.out.as<T>(), a.count,
        aligned16(a.a.data) && aligned16(a.b.data) && aligned16(a.out.data));
  });
}

void run(const ScaleArgs& a, Context& c) {
  with_float(a.out.dtype, "scale", [&](auto zero) {
    using T = decltype(zero);
    map(c, "scale", Scale<T>{a.x.as<const T>(), static_cast<float>(a.factor), static_cast<float>(a.softcap)},
        a.out.as<T>(), a.count, aligned16(a.x.data) && aligned16(a.out.data));
  });
}

}  // namespace q::cuda
