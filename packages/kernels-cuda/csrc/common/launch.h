// The one way kernels are launched. On sm_90 and newer every launch allows programmatic dependent launch: a kernel may
// start while the one before it in the stream still runs, which hides launch latency and ramp-up (about 2-4 us a
// kernel in a decode step). That is correct only by this rule:
//
//   every kernel launched through launch() calls pdl_wait() in every thread before it touches global memory
//   (reads of what earlier kernels wrote AND all writes), and no thread returns before calling it.
//
// What may come before pdl_wait(): index arithmetic, shared-memory initialisation, barrier and descriptor set-up,
// prefetch_l2() (the L2 is coherent), and loads of what the command table marks `early` (driver/marks.ts of @q/tensor):
// the weights of a linear, positions, lengths and block tables of rope and attention. The driver knows which memory the
// kernels that may still run write (runtime/unsettled.h); where such memory is among it, Context::settled is false, the
// command is an ordinary launch, and nothing of it runs before they have ended. pdl_trigger() says that the next kernel
// may become resident; call it once, at the top (the next kernel still waits for this one to end in its own
// pdl_wait()). Without it the next kernel starts when this one's blocks exit. On older architectures both are nothing,
// and launch() is an ordinary launch.
#pragma once
#include <cuda_runtime.h>
#include <type_traits>
#include "context.h"

namespace q::cuda {

/// Blocks until all earlier work of the stream is done and visible.
__device__ __forceinline__ void pdl_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel of the stream become resident (once all blocks of this one called it or ended).
__device__ __forceinline__ void pdl_trigger() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Both at once: what a kernel without a prologue starts with.
__device__ __forceinline__ void pdl_begin() {
  pdl_trigger();
  pdl_wait();
}

__device__ __forceinline__ void prefetch_l2(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

/// Launches `kernel` (which keeps the rule above) and checks the launch status; `what` names it in errors.
/// Above 48 KiB of dynamic shared memory the kernel's limit is raised here.
template <class... Params, class... Values>
void launch(Context& context, const char* what, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            Values&&... values) {
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          what);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  config.attrs = &attribute;
  config.numAttrs = context.compute_capability >= 90 && context.settled ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<std::decay_t<Params>>(values)...), what);
}

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace q::cuda
