// What the stand-alone GPU programs share: buffers, an arena, random numbers that host and device agree on, float
// formats on the host.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>
#include "commands.h"
#include "device.cuh"

namespace q::cuda::test {

#define CUDA_CHECK(call) ::q::cuda::check((call), #call)

/// Device memory filled with 0xff (NaN in every float format) and guarded by 256 more bytes.
struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  explicit Buffer(size_t n) : bytes(n) {
    CUDA_CHECK(cudaMalloc(&data, n + 256));
    CUDA_CHECK(cudaMemset(data, 0xff, n + 256));
    CUDA_CHECK(cudaDeviceSynchronize());  // the device's stream does not wait for it
  }
  template <class T>
  explicit Buffer(const std::vector<T>& v) : Buffer(v.size() * sizeof(T)) {
    CUDA_CHECK(cudaMemcpy(data, v.data(), bytes, cudaMemcpyHostToDevice));
    CUDA_CHECK(
        cudaDeviceSynchronize());  // cudaMemcpy returns when the host's memory is free again, which may be before the copy has ended
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  bool guard_intact() const {
    std::vector<uint8_t> g(256);
    CUDA_CHECK(cudaMemcpy(g.data(), static_cast<uint8_t*>(data) + bytes, 256, cudaMemcpyDeviceToHost));
    for (uint8_t b : g)
      if (b != 0xff) return false;
    return true;
  }
  template <class T>
  std::vector<T> read() const {
    std::vector<T> v(bytes / sizeof(T));
    CUDA_CHECK(cudaMemcpy(v.data(), data, v.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
  Tensor tensor(DType dtype) const { return {data, dtype, static_cast<int64_t>(bytes)}; }
};

class Arena : public Workspace {
 public:
  explicit Arena(size_t bytes) : buffer_(bytes) {}
  void* take(size_t n) override {
    void* at = static_cast<uint8_t*>(buffer_.data) + used_;
    used_ += (n + 255) / 256 * 256;
    if (used_ > buffer_.bytes) throw CommandError("test arena is full");
    return at;
  }
  void reset() { used_ = 0; }

 private:
  Buffer buffer_;
  size_t used_ = 0;
};

struct Device {
  Arena arena{256 << 20};
  cudaStream_t stream;
  cudaDeviceProp properties;
  Buffer counters{std::vector<unsigned>(kCounters)};
  Context context;
  Device()
      : stream(make_stream()),
        properties(read_properties()),
        context{stream,
                0,
                properties.major * 10 + properties.minor,
                properties.multiProcessorCount,
                properties.sharedMemPerBlockOptin,
                arena,
                nullptr,
                false} {
    context.counters = static_cast<unsigned*>(counters.data);
  }
  template <class Args>
  void run(const Args& args) {
    arena.reset();
    q::cuda::run(args, context);
  }
  void wait() { CUDA_CHECK(cudaStreamSynchronize(stream)); }

 private:
  static cudaStream_t make_stream() {
    cudaStream_t s;
    CUDA_CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
  }
  static cudaDeviceProp read_properties() {
    cudaDeviceProp p;
    CUDA_CHECK(cudaGetDeviceProperties(&p, 0));
    return p;
  }
};

/// splitmix64
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  double uniform() { return (next() >> 11) * 0x1p-53; }
  double normal() {  // sum of 12 uniforms
    double s = -6;
    for (int i = 0; i < 12; ++i) s += uniform();
    return s;
  }
  int below(int n) { return static_cast<int>(next() % n); }
};

inline size_t size_of(DType t) { return t == DType::f32 ? 4 : t == DType::f16 || t == DType::bf16 ? 2 : 1; }

/// Rounds to a float format and back.
inline float rounded(DType t, float x) {
  if (t == DType::f16) return __half2float(__float2half_rn(x));
  if (t == DType::bf16) return __bfloat162float(__float2bfloat16_rn(x));
  return x;
}
inline std::vector<uint8_t> encode(DType t, const std::vector<float>& v) {
  std::vector<uint8_t> out(v.size() * size_of(t));
  for (size_t i = 0; i < v.size(); ++i) {
    if (t == DType::f32) {
      std::memcpy(&out[4 * i], &v[i], 4);
    } else if (t == DType::f16) {
      const __half h = __float2half_rn(v[i]);
      std::memcpy(&out[2 * i], &h, 2);
    } else {
      const __nv_bfloat16 h = __float2bfloat16_rn(v[i]);
      std::memcpy(&out[2 * i], &h, 2);
    }
  }
  return out;
}
inline std::vector<float> decode(DType t, const std::vector<uint8_t>& bytes) {
  std::vector<float> out(bytes.size() / size_of(t));
  for (size_t i = 0; i < out.size(); ++i) {
    if (t == DType::f32) {
      std::memcpy(&out[i], &bytes[4 * i], 4);
    } else if (t == DType::f16) {
      __half h;
      std::memcpy(&h, &bytes[2 * i], 2);
      out[i] = __half2float(h);
    } else {
      __nv_bfloat16 h;
      std::memcpy(&h, &bytes[2 * i], 2);
      out[i] = __bfloat162float(h);
    }
  }
  return out;
}

}  // namespace q::cuda::test
