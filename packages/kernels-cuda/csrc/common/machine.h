// What a kernel is chosen by besides the arguments of its command: facts of the device and of the build. Choices
// (<family>/choice.h) are functions of values; neither this header nor they need CUDA, so that they are tested
// anywhere.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define Q_HOST_DEVICE __host__ __device__
#else
#define Q_HOST_DEVICE
#endif

namespace q::cuda {

struct Machine {
  int compute_capability;  // 90 for sm_90
  int multiprocessors;
  int64_t shared_bytes_per_block;  // opt-in limit
  bool wgmma;                      // compute capability 9.0, and the build holds sm_90a code
  bool cublaslt;                   // the library is there
  bool counters;                   // Context::counters are
};

/// A kernel, and why it is this one.
template <class Kernel>
struct Choice {
  Kernel kernel;
  const char* reason;
};

inline bool aligned_to(const void* p, int bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }
inline bool aligned16(const void* p) { return aligned_to(p, 16); }

}  // namespace q::cuda
