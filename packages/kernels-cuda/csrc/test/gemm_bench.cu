// Bench of the linear with many rows: times by CUDA graph of launches over copies of the weights beyond the L2, random
// values, median of replays.
//   q_test_gemm_bench (all)      q_test_gemm_bench rows (4 bits only)      q_test_gemm_bench profile (under ncu)
#include <algorithm>
#include <functional>
#include <tuple>
#include "gemm_machine.cuh"

namespace q::cuda {
int bnb4_clusters(int size);
}

using namespace q;
using namespace q::cuda;
using namespace q::reference;

namespace {

/// Microseconds of one launch; `call(i)` uses the i-th copy of the weights.
double time_us(GemmMachine& m, int copies, const std::function<void(int)>& call) {
  const int launches = std::max(copies, 6);
  m.workspace.reset();
  call(0);
  REQUIRE(cudaStreamSynchronize(m.context.stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  REQUIRE(cudaStreamBeginCapture(m.context.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) {
    m.workspace.reset();
    call(i % copies);
  }
  REQUIRE(cudaStreamEndCapture(m.context.stream, &graph));
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t a, b;
  cudaEventCreate(&a);
  cudaEventCreate(&b);
  std::vector<float> times;
  for (int i = 0; i < 12; ++i) {
    REQUIRE(cudaEventRecord(a, m.context.stream));
    REQUIRE(cudaGraphLaunch(exec, m.context.stream));
    REQUIRE(cudaEventRecord(b, m.context.stream));
    REQUIRE(cudaEventSynchronize(b));
    float ms;
    cudaEventElapsedTime(&ms, a, b);
    if (i >= 3) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return times[times.size() / 2] * 1000.0 / launches;
}

struct Shape {
  const char* name;
  int parts;
  int64_t n, k;
  int gated;
};

struct Variant {
  const char* name;
  WeightKind kind;
  GemmPath path;
  bool nested;
  double threshold;
  int64_t most_rows;
};

double bench_one(GemmMachine& m, const Shape& s, const Variant& v, int64_t rows, bool residual) {
  Memory memory;
  const int64_t weight_bytes = s.parts * s.n * s.k *
                               (v.kind == WeightKind::dense  ? 4
                                : v.kind == WeightKind::int8 ? 2
                                                             : 1) /
                               2;
  const int copies = static_cast<int>(std::min<int64_t>(12, 1 + 300000000 / weight_bytes));
  std::vector<LinearArgs> args(copies);
  for (int c = 0; c < copies; ++c) {
    LinearArgs& a = args[c];
    a = {};
    a.rows = rows;
    a.k = s.k;
    a.gated = s.gated;
    a.activation = s.gated ? 1 : 0;
    a.parts_count = s.parts;
    for (int i = 0; i < s.parts; ++i) {
      LinearArgsItem& p = a.parts[i];
      p.kind = static_cast<int64_t>(v.kind);
      p.n = s.n;
      p.block_size = 64;
      p.nested_block_size = 256;
      p.compute_dtype = static_cast<int64_t>(DType::f16);
      p.threshold = v.threshold;
      draw_weight(memory, p, s.k, DType::f16, v.nested, 100 * c + 10 * i);
    }
    if (c == 0) {
      a.x = memory.make(DType::f16, rows * s.k, Draw::normal, 1.f, 1);
      a.out = memory.empty(DType::f16, rows * s.n * (s.gated ? 1 : s.parts));
      if (residual) a.residual = memory.make(DType::f16, rows * s.n * (s.gated ? 1 : s.parts), Draw::normal, 1.f, 2);
    } else {
      a.x = args[0].x;
      a.out = args[0].out;
      a.residual = args[0].residual;
    }
  }
  REQUIRE(cudaDeviceSynchronize());
  try {
    return time_us(m, copies, [&](int i) { gemm_by(v.path, args[i], m.context); });
  } catch (const CommandError& e) {
    std::printf("(%s)\n", e.what());
    return -1;
  }
}

void bench(GemmMachine& m) {
  const Variant variants[] = {
      {"f16 cublas", WeightKind::dense, GemmPath::cublas, false, 0, 1 << 20},
      {"f16 tma", WeightKind::dense, GemmPath::tma, false, 0, 1 << 20},
      {"nf4 fused", WeightKind::bnb4, GemmPath::bnb4, false, 0, 4096},
      {"nf4 nested fused", WeightKind::bnb4, GemmPath::bnb4, true, 0, 512},
      {"nf4 + tma", WeightKind::bnb4, GemmPath::tma, false, 0, 1 << 20},
      {"nf4 + cublas", WeightKind::bnb4, GemmPath::cublas, false, 0, 1 << 20},
      {"nf4 as chosen", WeightKind::bnb4, GemmPath::automatic, false, 0, 1 << 20},
      {"nf4 nested, chosen", WeightKind::bnb4, GemmPath::automatic, true, 0, 1 << 20},
      {"f16 as chosen", WeightKind::dense, GemmPath::automatic, false, 0, 1 << 20},
      {"int8", WeightKind::int8, GemmPath::tma, false, 0, 1 << 20},
      {"int8 thr 5", WeightKind::int8, GemmPath::tma, false, 5.0, 1 << 20},
  };
  {
    Memory memory;
    LinearArgsItem p{};
    p.kind = 1;
    p.n = 11008;
    p.block_size = 64;
    draw_weight(memory, p, 4096, DType::f16, false, 1);
    const Tensor out = memory.empty(DType::f16, p.n * 4096);
    std::printf("dequantization of 11008x4096 to f16: %.1f us\n",
                time_us(m, 1, [&](int) { dequantize_weight(m.context, p, p.n * 4096, DType::f16, out.data); }));
  }
  std::printf("clusters at a time:");
  for (int i = 1; i <= 8; ++i) std::printf(" %d of %d,", bnb4_clusters(i), i);
  const Shape wide{"11008x4096", 1, 11008, 4096, 0};
  std::printf("\n%s, f16, us (TFLOP/s, ratio to cuBLAS f16)\n%-18s", wide.name, "rows");
  const int64_t all_rows[] = {65, 128, 192, 256, 512, 1024, 2048};
  for (int64_t rows : all_rows) std::printf("%20lld", static_cast<long long>(rows));
  std::printf("\n");
  for (const Variant& v : variants) {
    std::printf("%-18s", v.name);
    for (int i = 0; i < 7; ++i) {
      if (all_rows[i] > v.most_rows) continue;
      const double before = bench_one(m, wide, variants[0], all_rows[i], false),
                   us = bench_one(m, wide, v, all_rows[i], false),
                   after = bench_one(m, wide, variants[0], all_rows[i], false);
      std::printf("%8.1f (%4.0f, %4.2f)", us, 2.0 * all_rows[i] * wide.n * wide.k / us * 1e-6,
                  2 * us / (before + after));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  const Shape layer[] = {{"qkv 3x4096x4096", 3, 4096, 4096, 0},
                         {"o 4096x4096", 1, 4096, 4096, 0},
                         {"gate+up 2x11008x4096", 2, 11008, 4096, 1},
                         {"down 4096x11008", 1, 4096, 11008, 0}};
  for (int64_t rows : {128, 2048}) {
    std::printf("\nLlama-2-7B layer, %lld rows, us\n%-18s", static_cast<long long>(rows), "");
    for (const Shape& s : layer) std::printf("%22s", s.name);
    std::printf("%12s%18s\n", "layer", "products tok/s");
    for (const Variant& v : variants) {
      if (rows > v.most_rows) continue;
      double sum = 0;
      std::printf("%-18s", v.name);
      for (const Shape& s : layer) {
        const double us = bench_one(m, s, v, rows, s.parts == 1);
        sum += us;
        std::printf("%22.1f", us);
      }
      std::printf("%12.1f%18.0f\n", sum, rows / (32 * sum * 1e-6));
      std::fflush(stdout);
    }
  }
}

/// The 4-bit product beside cuBLAS f16 over the rows, one line each: what decides kFusedRows and the streaming kernel's
/// limit.
void bench_rows(GemmMachine& m) {
  const Shape wide{"11008x4096", 1, 11008, 4096, 0};
  const Variant dense{"f16 cublas", WeightKind::dense, GemmPath::cublas, false, 0, 1 << 20};
  const Variant variants[] = {{"nf4", WeightKind::bnb4, GemmPath::automatic, false, 0, 1 << 20},
                              {"nested", WeightKind::bnb4, GemmPath::automatic, true, 0, 1 << 20},
                              {"nf4 fused", WeightKind::bnb4, GemmPath::bnb4, false, 0, 1024},
                              {"nested fused", WeightKind::bnb4, GemmPath::bnb4, true, 0, 1024}};
  std::printf("clusters at a time:");
  for (int i = 1; i <= 8; ++i) std::printf(" %d of %d,", bnb4_clusters(i), i);
  std::printf("\n%s, us (ratio to the floor, to cuBLAS f16)\n%6s%12s", wide.name, "rows", dense.name);
  for (const Variant& v : variants) std::printf("%24s", v.name);
  std::printf("%10s\n", "nested +");
  for (int64_t rows : {17, 32, 33, 48, 64, 65, 96, 128, 192, 256, 384, 512, 1024, 2048}) {
    double cublas = bench_one(m, wide, dense, rows, false);
    const double floor = std::max(wide.n * wide.k / 2 / 4.3e6, 2.0 * rows * wide.n * wide.k / 785e6);
    double us[4] = {}, ratio[4] = {};  // beside cuBLAS just before and just after: clocks fall under load
    for (int i = 0; i < 4; ++i) {
      if (rows > variants[i].most_rows) continue;
      us[i] = bench_one(m, wide, variants[i], rows, false);
      const double after = bench_one(m, wide, dense, rows, false);
      ratio[i] = 2 * us[i] / (cublas + after);
      cublas = after;
    }
    std::printf("%6lld%12.1f", static_cast<long long>(rows), cublas);
    for (int i = 0; i < 4 && us[i] > 0; ++i) std::printf("%10.1f (%5.2f, %5.2f)", us[i], us[i] / floor, ratio[i]);
    std::printf("%*.1f %%\n", us[2] > 0 ? 8 : 56, 100 * (ratio[1] / ratio[0] - 1));
    std::fflush(stdout);
  }
  for (bool nested : {false, true}) {
    Memory memory;
    LinearArgsItem p{};
    p.kind = static_cast<int64_t>(WeightKind::bnb4);
    p.n = wide.n;
    p.block_size = 64;
    p.nested_block_size = 256;
    draw_weight(memory, p, wide.k, DType::f16, nested, 1);
    const Tensor out = memory.empty(DType::f16, p.n * wide.k);
    std::printf("dequantization alone%s: %.1f us\n", nested ? ", nested" : "",
                time_us(m, 1, [&](int) { dequantize_weight(m.context, p, p.n * wide.k, DType::f16, out.data); }));
  }
  const Shape layer[] = {{"qkv 3x4096x4096", 3, 4096, 4096, 0},
                         {"o 4096x4096", 1, 4096, 4096, 0},
                         {"gate+up 2x11008x4096", 2, 11008, 4096, 1},
                         {"down 4096x11008", 1, 4096, 11008, 0}};
  for (const Shape& s : layer) {
    std::printf("%s, us (cuBLAS f16, nf4, nested):", s.name);
    for (int64_t rows : {48, 128})
      std::printf("  %d rows %.1f, %.1f, %.1f", static_cast<int>(rows), bench_one(m, s, dense, rows, s.parts == 1),
                  bench_one(m, s, variants[0], rows, s.parts == 1), bench_one(m, s, variants[1], rows, s.parts == 1));
    std::printf("\n");
  }
}

/// A few plain launches, for a profiler.
void profile(GemmMachine& m) {
  for (const auto& [kind, path, rows] : {std::tuple<int, GemmPath, int64_t>{1, GemmPath::bnb4, 128},
                                         {1, GemmPath::bnb4, 256},
                                         {0, GemmPath::tma, 2048},
                                         {1, GemmPath::cublas, 2048}}) {
    Memory memory;
    LinearArgs a{};
    a.rows = rows;
    a.k = 4096;
    a.parts_count = 1;
    LinearArgsItem& p = a.parts[0];
    p.kind = kind;
    p.n = 11008;
    p.block_size = 64;
    p.compute_dtype = static_cast<int64_t>(DType::f16);
    draw_weight(memory, p, a.k, DType::f16, false, 3);
    a.x = memory.make(DType::f16, rows * a.k, Draw::normal, 1.f, 1);
    a.out = memory.empty(DType::f16, rows * p.n);
    m.workspace.reset();
    gemm_by(path, a, m.context);
    REQUIRE(cudaStreamSynchronize(m.context.stream));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  CublasLt* lt = open_cublaslt(0);
  std::printf("cuBLASLt: %s\n", lt ? "yes" : "no");
  {
    GemmMachine machine(lt);
    if (mode == "rows") {
      bench_rows(machine);
    } else if (mode == "profile") {
      profile(machine);
    } else {
      bench(machine);
    }
  }
  close_cublaslt(lt);
  return 0;
}
