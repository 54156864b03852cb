// argmax and advance.
// floor   argmax reads a row once; a row of 32000 f16 by one block is latency, about 3 us
// launch  argmax one block of 1024 threads a row; advance one thread a row; exact bit-defined; ref
//         tensor/src/driver/schema.ts
#include "argmax.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(1024) argmax_kernel(const T* x, int32_t* out, int64_t width, bool wide) {
  pdl_begin();
  __shared__ unsigned long long shared[32];
  const int32_t best = block_argmax(x + int64_t(blockIdx.x) * width, width, wide, shared);
  if (threadIdx.x == 0) out[blockIdx.x] = best;
}

__global__ void advance_kernel(const int32_t* sampled, int32_t* ids, int32_t* positions, int32_t* contexts,
                               int32_t* counters, int32_t* history, int32_t* lengths, int rows, int64_t capacity) {
  pdl_begin();
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const int32_t token = sampled[row];
  ids[row] = token;
  positions[row] += 1;
  contexts[row] += 1;
  counters[row] += 1;
  if (!lengths) return;
  const int32_t length = lengths[row];
  if (history && length >= 0 && length < capacity) history[row * capacity + length] = token;
  lengths[row] = length + 1;
}

}  // namespace

void run(const ArgmaxArgs& a, Context& c) {
  if (a.rows == 0) return;
  with_float(a.x.dtype, "argmax", [&](auto zero) {
    using T = decltype(zero);
    launch(c, "argmax", argmax_kernel<T>, dim3(static_cast<unsigned>(a.rows)), 1024, 0, a.x.as<const T>(),
           a.out.as<int32_t>(), a.width, aligned16(a.x.data) && a.width % kPack<T> == 0);
  });
}

void run(const AdvanceArgs& a, Context& c) {
  if (a.rows == 0) return;
  launch(c, "advance", advance_kernel, blocks_for(a.rows, 128), 128, 0, a.sampled.as<const int32_t>(),
         a.token_ids.as<int32_t>(), a.positions.as<int32_t>(), a.context_lengths.as<int32_t>(),
         a.counters.as<int32_t>(), a.history.as<int32_t>(), a.history_lengths.as<int32_t>(), static_cast<int>(a.rows),
         a.history_capacity);
}

}  // namespace q::cuda
