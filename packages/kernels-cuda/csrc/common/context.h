// What a CUDA command is given. Every command X of native/q_ops.h is implemented by
//   void run(const XArgs& args, Context& context);
// in csrc/<family>/: it launches on context.stream, checks the launch status and returns without waiting. It throws
// CommandError for arguments it cannot take. Inside a capture nothing may allocate with cudaMalloc or wait on the host.
#pragma once
#include <cuda_runtime_api.h>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include "machine.h"
#include "q_ops.h"

namespace q::cuda {

struct CommandError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Device memory that lives until the work of this command is done on the stream; reused by later commands.
class Workspace {
 public:
  virtual ~Workspace() = default;
  virtual void* take(size_t bytes) = 0;  // 256-byte aligned
  template <class T>
  T* take_array(size_t count) {
    return static_cast<T*>(take(count * sizeof(T)));
  }
};

/// What a kernel found wrong with its data. The driver looks at it when a read or flush completes.
struct DeviceError {
  int command;  // 1 + Command, 0: none
  int limit;
  int64_t value;
};

struct CublasLt;  // csrc/linear/cublaslt.h: opened with dlopen

constexpr int kCounters = 1 << 18;

struct Context {
  cudaStream_t stream;
  int device;
  int compute_capability;  // 90 for sm_90
  int multiprocessors;
  size_t shared_bytes_per_block;  // opt-in limit
  Workspace& workspace;
  CublasLt* cublaslt;  // null when the library is not there
  bool capturing;
  DeviceError* device_error = nullptr;  // pinned, device-visible; see report_error in device.cuh
  unsigned* counters =
      nullptr;          // kCounters zeros on the device, for "the last block does the rest": users leave them zero
  bool settled = true;  // no kernel that may still run writes what this command loads early (launch.h)
};

/// Whether the build holds code for sm_90a: kernels with wgmma. (Q_CUDA_ARCH_LIST: "80,90a".)
constexpr bool built_for_90a(const char* list = Q_CUDA_ARCH_LIST) {
  for (; *list; ++list) {
    if (list[0] == '9' && list[1] == '0' && list[2] == 'a') return true;
  }
  return false;
}

/// What kernels are chosen by.
inline Machine machine_of(const Context& c) {
  return {c.compute_capability,
          c.multiprocessors,
          static_cast<int64_t>(c.shared_bytes_per_block),
          c.compute_capability == 90 && built_for_90a(),
          c.cublaslt != nullptr,
          c.counters != nullptr};
}

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw CommandError(std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace q::cuda
