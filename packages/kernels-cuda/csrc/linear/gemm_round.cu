// round_weight: W[i] = round_T(w[i]), and a note where that is infinite though w[i] is not
// layout  8 values a thread and step where both ends are aligned to 16 bytes, else one
// floor   bytes read + written / 4.2e12 s (H200): 1024 x 65536 f32 to f16 402 MB = 96 us
// exact   one rounding, to nearest even
#include "gemm_round.h"
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

/// V consecutive values in accesses of at most 16 bytes.
template <int V, class In>
__device__ __forceinline__ void read(float (&v)[V], const In* from) {
  constexpr int kEach = V * sizeof(In) <= 16 ? V : 16 / static_cast<int>(sizeof(In));
#pragma unroll
  for (int i = 0; i < V; i += kEach) {
    float some[kEach];
    load<In, kEach>(some, from + i);
#pragma unroll
    for (int j = 0; j < kEach; ++j) v[i + j] = some[j];
  }
}

template <class In, class Out, int V>
__global__ void __launch_bounds__(256) round_weight_kernel(const In* from, Out* to, int64_t packs, int* beyond) {
  pdl_begin();
  bool any = false;
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < packs; i += gridDim.x * 256ll) {
    float v[V];
    read<V>(v, from + i * V);
#pragma unroll
    for (int j = 0; j < V; ++j) any = any || (isinf(to_float(from_float<Out>(v[j]))) && !isinf(v[j]));
    store<Out, V>(to + i * V, v);
  }
  if (any) *beyond = 1;
}

}  // namespace

void round_weight(Context& context, DType from, const void* weight, DType to, void* out, int64_t count, int* beyond) {
  const bool packed = count % 8 == 0 && aligned16(weight) && aligned16(out);
  const int64_t packs = packed ? count / 8 : count, most = context.multiprocessors * 16, wanted = (packs + 255) / 256;
  const auto blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  if (blocks == 0) return;
  with_float(from, "linear", [&](auto a) {
    const auto run = [&](auto b) {
      using In = decltype(a);
      using Out = decltype(b);
      launch(context, "linear (round weight)",
             packed ? round_weight_kernel<In, Out, 8> : round_weight_kernel<In, Out, 1>, dim3(blocks), dim3(256), 0,
             static_cast<const In*>(weight), static_cast<Out*>(out), packs, beyond);
    };
    to == DType::f16 ? run(half_t{}) : run(bfloat_t{});
  });
}

}  // namespace q::cuda
