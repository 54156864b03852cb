// Stand-alone tests of the kernels: device buffers from host values, comparison with float64 loops, timing by graph
// replays.
#pragma once
#include <cuda_runtime.h>
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>
#include "commands.h"
#include "device.cuh"

namespace q::test {
using namespace q::cuda;

#define CUDA_OK(call) ::q::test::must((call), #call)
inline void must(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("FAILED %s: %s\n", what, cudaGetErrorString(status));
  std::exit(2);
}

class BumpWorkspace final : public Workspace {
 public:
  explicit BumpWorkspace(size_t bytes) : bytes_(bytes) {
    CUDA_OK(cudaMalloc(&data_, bytes));
    CUDA_OK(cudaMemset(data_, 0xff, bytes));
  }
  void* take(size_t bytes) override {
    void* p = data_ + used_;
    used_ += (bytes + 255) & ~size_t(255);
    if (used_ > bytes_) {
      std::printf("FAILED workspace of %zu bytes is too small\n", bytes_);
      std::exit(2);
    }
    return p;
  }
  void reset() { used_ = 0; }

 private:
  char* data_ = nullptr;
  size_t bytes_, used_ = 0;
};

struct Bench {
  BumpWorkspace workspace{size_t(1) << 30};
  cudaStream_t stream;
  DeviceError* error;
  unsigned* counters;
  Context context;

  Bench() : context{nullptr, 0, 0, 0, 0, workspace, nullptr, false} {
    CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA_OK(cudaHostAlloc(reinterpret_cast<void**>(&error), sizeof(DeviceError), cudaHostAllocMapped));
    *error = {};
    CUDA_OK(cudaMalloc(&counters, kCounters * sizeof(unsigned)));
    CUDA_OK(cudaMemset(counters, 0, kCounters * sizeof(unsigned)));
    cudaDeviceProp p;
    CUDA_OK(cudaGetDeviceProperties(&p, 0));
    context.stream = stream;
    context.compute_capability = p.major * 10 + p.minor;
    context.multiprocessors = p.multiProcessorCount;
    context.shared_bytes_per_block = p.sharedMemPerBlockOptin;
    context.device_error = error;
    context.counters = counters;
  }
  template <class Args>
  void operator()(const Args& args) {
    workspace.reset();
    run(args, context);
  }
  void sync() {
    CUDA_OK(cudaStreamSynchronize(stream));
    CUDA_OK(cudaGetLastError());
  }

  /// Median microseconds of one call of `body(i)`, from graphs of `count` calls replayed.
  double time(int count, const std::function<void(int)>& body) {
    body(0);
    sync();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    for (int i = 0; i < count; ++i) body(i);
    CUDA_OK(cudaStreamEndCapture(stream, &graph));
    CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t from, to;
    CUDA_OK(cudaEventCreate(&from));
    CUDA_OK(cudaEventCreate(&to));
    std::vector<float> ms;
    for (int r = 0; r < 8; ++r) {
      CUDA_OK(cudaEventRecord(from, stream));
      CUDA_OK(cudaGraphLaunch(exec, stream));
      CUDA_OK(cudaEventRecord(to, stream));
      sync();
      float t;
      CUDA_OK(cudaEventElapsedTime(&t, from, to));
      if (r >= 3) ms.push_back(t);
    }
    std::sort(ms.begin(), ms.end());
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return ms[ms.size() / 2] * 1000.0 / count;
  }
};

inline std::mt19937_64& random_engine() {
  static std::mt19937_64 engine(12345);
  return engine;
}
inline double normal() { return std::normal_distribution<double>()(random_engine()); }
inline int below(int n) { return static_cast<int>(random_engine()() % static_cast<uint64_t>(n)); }

inline float rounded(float x, DType t) {
  if (t == DType::f16) return __half2float(__float2half_rn(x));
  if (t == DType::bf16) return __bfloat162float(__float2bfloat16_rn(x));
  return x;
}

/// A device tensor with its host values in double (already rounded to the dtype).
struct Array {
  std::vector<double> host;
  Tensor tensor;

  Array(DType dtype, size_t count, const std::function<double(size_t)>& value) : host(count) {
    for (size_t i = 0; i < count; ++i)
      host[i] = is_float(dtype) ? rounded(static_cast<float>(value(i)), dtype) : value(i);
    allocate(dtype, count);
    upload();
  }
  /// Poisoned: every byte 0xff, NaN as a float.
  Array(DType dtype, size_t count) : host(count, NAN) {
    allocate(dtype, count);
    CUDA_OK(cudaMemset(tensor.data, 0xff, tensor.bytes));
  }
  Array(const Array&) = delete;
  ~Array() { cudaFree(tensor.data); }

  void allocate(DType dtype, size_t count) {
    tensor.dtype = dtype;
    tensor.bytes = static_cast<int64_t>(count) * dtype_bytes(dtype);
    CUDA_OK(cudaMalloc(&tensor.data, tensor.bytes ? tensor.bytes : 16));
  }
  template <class E>
  void upload_as() {
    std::vector<E> raw(host.size());
    for (size_t i = 0; i < raw.size(); ++i) {
      if constexpr (std::is_same_v<E, half_t>)
        raw[i] = __double2half(host[i]);
      else if constexpr (std::is_same_v<E, bfloat_t>)
        raw[i] = __float2bfloat16_rn(static_cast<float>(host[i]));
      else
        raw[i] = static_cast<E>(host[i]);
    }
    CUDA_OK(cudaMemcpy(tensor.data, raw.data(), tensor.bytes, cudaMemcpyHostToDevice));
  }
  void upload() {
    switch (tensor.dtype) {
      case DType::f32:
        return upload_as<float>();
      case DType::f16:
        return upload_as<half_t>();
      case DType::bf16:
        return upload_as<bfloat_t>();
      case DType::i32:
        return upload_as<int32_t>();
      case DType::i64:
        return upload_as<int64_t>();
      default:
        return upload_as<uint8_t>();
    }
  }
  template <class E>
  std::vector<double> download_as() const {
    std::vector<E> raw(host.size());
    CUDA_OK(cudaMemcpy(raw.data(), tensor.data, tensor.bytes, cudaMemcpyDeviceToHost));
    std::vector<double> out(raw.size());
    for (size_t i = 0; i < raw.size(); ++i) {
      if constexpr (std::is_same_v<E, half_t>)
        out[i] = __half2float(raw[i]);
      else if constexpr (std::is_same_v<E, bfloat_t>)
        out[i] = __bfloat162float(raw[i]);
      else
        out[i] = static_cast<double>(raw[i]);
    }
    return out;
  }
  std::vector<double> download() const {
    switch (tensor.dtype) {
      case DType::f32:
        return download_as<float>();
      case DType::f16:
        return download_as<half_t>();
      case DType::bf16:
        return download_as<bfloat_t>();
      case DType::i32:
        return download_as<int32_t>();
      case DType::i64:
        return download_as<int64_t>();
      default:
        return download_as<uint8_t>();
    }
  }
};

inline int& failures() {
  static int count = 0;
  return count;
}
inline int& checks() {
  static int count = 0;
  return count;
}

inline const char* name_of(DType t) {
  return t == DType::f32 ? "f32" : t == DType::f16 ? "f16" : t == DType::bf16 ? "bf16" : "int";
}
/// Relative error (norms) allowed for one rounding to the dtype plus f32 arithmetic.
inline double bound(DType t) { return t == DType::f32 ? 2e-6 : t == DType::f16 ? 6e-4 : 5e-3; }

inline bool expect(bool ok, const char* format, ...) {
  ++checks();
  if (ok) return true;
  ++failures();
  va_list list;
  va_start(list, format);
  std::printf("FAILED ");
  std::vprintf(format, list);
  std::printf("\n");
  va_end(list);
  return false;
}

/// |out - want| / |want| <= limit, everything finite.
inline double compare(const std::vector<double>& out, const std::vector<double>& want, double limit, const char* what) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (out[i] - want[i]) * (out[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double relative = std::sqrt(difference) / (std::sqrt(norm) + 1e-30);
  expect(relative <= limit, "%s: relative error %.3g, allowed %.3g", what, relative, limit);
  return relative;
}

inline int report(const char* name) {
  std::printf("%s: %d checks, %d failed\n", name, checks(), failures());
  return failures() ? 1 : 0;
}

}  // namespace q::test
