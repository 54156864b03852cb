// q_test_linear_bench [kind n k rows...]: times of linear() on this GPU: graph replays, weights rotated beyond the L2,
// random data, medians. Floor: bytes of the weight (codes and absmax) at 4.3 TB/s, what a read of memory reaches on an
// H200.
#include <algorithm>
#include <string>
#include "linear/choice.h"
#include "linear_harness.cuh"

using namespace q;
using namespace q::cuda;
using namespace q::cuda::test;

namespace {

__global__ void fill_random(uint32_t* out, int64_t words, uint64_t seed, int mode) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < words;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint64_t z = seed + i * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const float u = (z >> 40) * 0x1p-24f, v = (z & 0xffffff) * 0x1p-24f;
    if (mode == 0) {
      out[i] = static_cast<uint32_t>(z);
    } else if (mode == 1) {
      const half_t pair[2] = {__float2half_rn(2 * u - 1), __float2half_rn(2 * v - 1)};
      out[i] = *reinterpret_cast<const uint32_t*>(pair);
    } else {
      out[i] = __float_as_uint(0.02f + 0.1f * u);
    }
  }
}

__global__ void fill_columns(half_t* x, int64_t rows, int64_t k, int columns) {
  for (int64_t i = threadIdx.x; i < rows * columns; i += blockDim.x)
    x[i / columns * k + (i % columns * 2654435761ll + 17) % k] = __float2half_rn(20.f + i % 7);
}

struct Shape {
  std::string
      kind;  // f16, f32, nf4, nested, int8, int8cN: N columns of x are outliers in all rows, int8tX: threshold X; x lies in [-1, 1]: int8t0.995 has one outlier in 200 values
  int64_t n, k;
  int rows;
  int parts = 1;
  bool gated = false;
};

struct Timing {
  double us, spread;
};

struct Weights {
  std::unique_ptr<Buffer> weight, absmax, nested, code, offset;
};

void randomize(Buffer& b, uint64_t seed, int mode, cudaStream_t stream) {
  fill_random<<<1024, 256, 0, stream>>>(static_cast<uint32_t*>(b.data), static_cast<int64_t>(b.bytes / 4), seed, mode);
  CUDA_CHECK(cudaGetLastError());
}

double weight_bytes(const Shape& s) {
  const double count = static_cast<double>(s.n) * s.k * s.parts;
  if (s.kind == "f16") return 2 * count;
  if (s.kind == "f32") return 4 * count;
  if (s.kind == "nf4") return count / 2 + count / 16;
  if (s.kind == "nested") return count / 2 + count / 64 + count / 4096;
  return count + 4. * s.n * s.parts;
}

Timing measure(Device& device, const Shape& s) {
  const int64_t count = s.n * s.k;
  const int copies = static_cast<int>(std::max(2., std::min(64., 300e6 / weight_bytes(s) + 1)));
  std::vector<Weights> weights(copies * s.parts);
  const bool f32 = s.kind == "f32", dense = f32 || s.kind == "f16", int8 = s.kind.compare(0, 4, "int8") == 0,
             nested = s.kind == "nested";
  uint64_t seed = 1;
  for (Weights& w : weights) {
    w.weight = std::make_unique<Buffer>(static_cast<size_t>(f32     ? 4 * count
                                                            : dense ? 2 * count
                                                            : int8  ? count
                                                                    : count / 2));
    randomize(*w.weight, seed++ << 40, f32 ? 2 : dense, device.stream);
    if (dense) continue;
    w.absmax = std::make_unique<Buffer>(static_cast<size_t>(int8 ? 4 * s.n : nested ? count / 64 : count / 16));
    randomize(*w.absmax, seed++ << 40, nested ? 0 : 2, device.stream);
    if (!nested) continue;
    w.nested = std::make_unique<Buffer>(static_cast<size_t>((count / 64 + 255) / 256 * 4));
    w.code = std::make_unique<Buffer>(1024);
    w.offset = std::make_unique<Buffer>(4);
    for (Buffer* b : {w.nested.get(), w.code.get(), w.offset.get()}) randomize(*b, seed++ << 40, 2, device.stream);
  }
  const int64_t columns = s.gated ? s.n : s.n * s.parts;
  Buffer x(static_cast<size_t>(s.rows) * s.k * 2), out(static_cast<size_t>(s.rows) * columns * 2);
  randomize(x, 77ull << 40, 1, device.stream);
  if (s.kind.compare(0, 5, "int8c") == 0)
    fill_columns<<<1, 256, 0, device.stream>>>(static_cast<half_t*>(x.data), s.rows, s.k, std::stoi(s.kind.substr(5)));
  CUDA_CHECK(cudaGetLastError());
  device.wait();
  const auto once = [&](int copy) {
    LinearArgs a{};
    a.x = x.tensor(DType::f16), a.out = out.tensor(DType::f16), a.rows = s.rows, a.k = s.k, a.gated = s.gated,
    a.parts_count = s.parts;
    if (s.gated) a.activation = static_cast<int>(ActivationKind::silu);
    for (int i = 0; i < s.parts; ++i) {
      const Weights& w = weights[copy * s.parts + i];
      LinearArgsItem& p = a.parts[i];
      p.kind = static_cast<int>(dense ? WeightKind::dense : int8 ? WeightKind::int8 : WeightKind::bnb4);
      p.n = s.n;
      p.weight = w.weight->tensor(f32 ? DType::f32 : dense ? DType::f16 : int8 ? DType::i8 : DType::u8);
      if (w.absmax) p.absmax = w.absmax->tensor(nested ? DType::u8 : DType::f32);
      if (nested)
        p.nested_absmax = w.nested->tensor(DType::f32), p.nested_code = w.code->tensor(DType::f32),
        p.offset = w.offset->tensor(DType::f32);
      p.block_size = 64, p.nested_block_size = 256, p.compute_dtype = static_cast<int>(DType::f16),
      p.threshold = s.kind.compare(0, 5, "int8t") == 0 ? std::stof(s.kind.substr(5)) : 6;
    }
    device.run(a);
  };
  once(0);
  device.wait();
  const int launches = copies * std::max(1, 24 / copies);
  cudaGraph_t graph;
  cudaGraphExec_t program;
  CUDA_CHECK(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) once(i % copies);
  CUDA_CHECK(cudaStreamEndCapture(device.stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&program, graph, 0));
  cudaEvent_t begin, end;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < 13; ++i) {
    CUDA_CHECK(cudaEventRecord(begin, device.stream));
    CUDA_CHECK(cudaGraphLaunch(program, device.stream));
    CUDA_CHECK(cudaEventRecord(end, device.stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    float ms;
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) times.push_back(ms * 1000 / launches);
  }
  CUDA_CHECK(cudaGraphExecDestroy(program));
  CUDA_CHECK(cudaGraphDestroy(graph));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.back() - times.front()};
}

void line(Device& device, const Shape& s) {
  try {
    const Timing t = measure(device, s);
    const double floor = weight_bytes(s) / 4.3e6;
    std::printf("%-7s %6lld x %-6lld %s rows %3d  %8.2f us (+-%.2f)  %6.0f GB/s  floor %6.2f  x%.2f\n", s.kind.c_str(),
                static_cast<long long>(s.n), static_cast<long long>(s.k),
                s.gated       ? "gated"
                : s.parts > 1 ? "parts"
                              : "     ",
                s.rows, t.us, t.spread, weight_bytes(s) / t.us / 1e3, floor, t.us / floor);
  } catch (const std::exception& e) {
    std::printf("%s %lld x %lld rows %d: %s\n", s.kind.c_str(), static_cast<long long>(s.n),
                static_cast<long long>(s.k), s.rows, e.what());
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Device device;
  if (const char* capability = std::getenv("Q_BENCH_CAPABILITY"))
    device.context.compute_capability = std::atoi(capability);  // 80: without programmatic launch
  if (argc >= 5) {
    for (int i = 4; i < argc; ++i)
      line(device, {argv[1], std::atoll(argv[2]), std::atoll(argv[3]), std::atoi(argv[i])});
    return 0;
  }
  for (const char* kind : {"nf4", "nested", "int8", "int8c8", "int8t0.995", "f16"}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{4096, 4096},
                               {11008, 4096},
                               {4096, 11008},
                               {28672, 8192},
                               {1024, 4096},
                               {32000, 4096}}) {
      for (int rows : {1, 2, 4, 8, 16, 32, 64}) {
        const bool main_shape = n == 11008;
        if (!main_shape && rows != 1 && rows != 16) continue;
        if (!main_shape && std::string(kind).size() > 4 && std::string(kind).compare(0, 4, "int8") == 0) continue;
        line(device, {kind, n, k, rows});
      }
    }
    line(device, {kind, 4096, 4096, 1, 3});
    line(device, {kind, 11008, 4096, 1, 2, true});
    line(device, {kind, 11008, 4096, 8, 2, true});
  }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1024, 65536}, {2048, 5120}, {4096, 10240}})
    for (int rows : {1, 2, 4, 8, 16, 32, 512, 4096}) line(device, {"f32", n, k, rows});
  return 0;
}
