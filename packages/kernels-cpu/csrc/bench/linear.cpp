// Times the linear command on the shapes of tinyllama-1.1b against what the machine can do.
//   bench [--formats nf4,int8,bf16] [--rows 1,4,16,512] [--shapes qkv,o,gateup,down,head]
// Decode: weights rotate through more memory than any cache holds; GB/s of weight bytes, share of the read bandwidth
// measured around it. Many rows: GFLOP/s, share of the FMA peak (int8: also of VNNI and AMX). Each ratio is the median
// of its repeats and uses ceilings measured in the same process, just before.
#include <algorithm>
#include <ctime>
#include <cstdio>
#include <sstream>
#include "../driver/features.h"
#include "../driver/workers.h"
#include "../ceilings/ceilings.h"
#include "support.h"

using namespace q;
using namespace q::cpu;
using namespace q::cpu::bench;

namespace {

struct Shape {
  const char* name;
  int64_t k;
  std::vector<int64_t> n;
  bool gated;
};
const Shape shapes[] = {{"qkv", 2048, {2048, 256, 256}, false},
                        {"o", 2048, {2048}, false},
                        {"gateup", 2048, {5632, 5632}, true},
                        {"down", 5632, {2048}, false},
                        {"head", 2048, {32000}, false}};
const char* formats[] = {"f32", "f16", "bf16", "nf4", "nf4dq", "fp4", "int8", "int8t6"};

constexpr int64_t kMemory = int64_t(3) << 30;  // bytes
int64_t rotate = kMemory;                      // bytes of weights that follow one another before they repeat
uint8_t* memory;
ThreadPool* workers;
CpuFeatures features;
Arena arena;

/// Seconds; with one thread the processor time of that thread, which other programs on the machine do not lengthen.
double now() {
  timespec t;
  clock_gettime(workers->threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

int64_t weight_bytes(int format, int64_t count) {
  return format == 0 ? count * 4 : format <= 2 ? count * 2 : format <= 5 ? count / 2 : count;
}
int64_t absmax_bytes(int format, int64_t count, int64_t n) {
  return format < 3 ? 0 : format == 4 ? count / 64 : format <= 5 ? count / 16 : n * 4;
}

struct Case {
  LinearArgs args{};
  int64_t bytes = 0;
  std::vector<float> nested_code = std::vector<float>(256), nested_absmax = std::vector<float>(65536, 0.01f),
                     offset = {0.1f};
  Arena own;  // x and out, aligned as tensors are
  float *x = nullptr, *out = nullptr;
  std::vector<std::vector<uint8_t>> absmax;
  std::vector<int64_t> sizes;

  Case(const Shape& shape, int format, int64_t rows) {
    Random random{uint64_t(format + 1)};
    LinearArgs& a = args;
    a.rows = rows, a.k = shape.k, a.gated = shape.gated,
    a.activation = int64_t(shape.gated ? ActivationKind::silu : ActivationKind::none),
    a.parts_count = int64_t(shape.n.size());
    int64_t columns = 0;
    for (int i = 0; i < 256; ++i) nested_code[size_t(i)] = float(i) / 128 - 1;
    for (size_t i = 0; i < shape.n.size(); ++i) {
      const int64_t n = shape.n[i], count = n * shape.k, extra = absmax_bytes(format, count, n);
      LinearArgsItem& p = a.parts[i];
      p.n = n,
      p.kind = format < 3   ? 0
               : format < 6 ? 1
                            : 2,
      p.block_size = 64, p.nested_block_size = 256, p.quant_type = format == 5, p.threshold = format == 7 ? 6 : 0;
      sizes.push_back(weight_bytes(format, count));
      p.weight = {nullptr,
                  format == 0   ? DType::f32
                  : format == 1 ? DType::f16
                  : format == 2 ? DType::bf16
                  : format <= 5 ? DType::u8
                                : DType::i8,
                  sizes.back()};
      absmax.emplace_back(size_t(extra), uint8_t(1));
      if (format == 3 || format >= 5)
        for (int64_t j = 0; j < extra / 4; ++j)
          reinterpret_cast<float*>(absmax.back().data())[j] = 0.01f + 0.01f * random.uniform();
      if (format == 4) {
        for (uint8_t& b : absmax.back()) b = uint8_t(random.bits());
        p.nested_absmax = {nested_absmax.data(), DType::f32, int64_t(nested_absmax.size() * 4)},
        p.nested_code = {nested_code.data(), DType::f32, 1024}, p.offset = {offset.data(), DType::f32, 4};
      }
      if (format >= 3) p.absmax = {absmax.back().data(), format == 4 ? DType::u8 : DType::f32, extra};
      columns += shape.gated && i ? 0 : n;
      bytes += sizes.back() + extra;
    }
    x = own.take_array<float>(size_t(rows * shape.k)), out = own.take_array<float>(size_t(rows * columns));
    for (int64_t i = 0; i < rows * shape.k; ++i) x[i] = random.normal();
    if (format == 7)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < 6; ++j) x[r * shape.k + j * 300] = 20;  // six outlier columns
    a.x = {x, DType::f32, rows * shape.k * 4}, a.out = {out, DType::f32, rows * columns * 4};
  }

  /// Runs once with the weights at `at`, and moves on.
  double run_at(int64_t& at) {
    for (int64_t i = 0; i < args.parts_count; ++i) {
      if (at + sizes[size_t(i)] > rotate) at = 0;
      args.parts[i].weight.data = memory + at;
      at += (sizes[size_t(i)] + 4095) / 4096 * 4096;
    }
    Context context{*workers, arena, features};
    const double start = now();
    run(args, context);
    const double s = now() - start;
    arena.reset();
    return s;
  }
};

bool chosen(const std::string& list, const std::string& name) {
  std::stringstream s(list);
  for (std::string item; std::getline(s, item, ',');)
    if (item == name) return true;
  return list.empty();
}

/// Random bytes that are harmless as every type: f32, f16 and bf16 of moderate size.
void fill_memory(bool floats) {
  workers->parallel(64, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t piece = begin; piece < end; ++piece) {
      Random random{uint64_t(piece) * 77 + 1};
      uint32_t* p = reinterpret_cast<uint32_t*>(memory + piece * (kMemory / 64));
      for (int64_t i = 0; i < kMemory / 256; ++i)
        p[i] = floats ? (uint32_t(random.bits()) & 0x83ff83ff) | 0x3c003c00 : uint32_t(random.bits());
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  std::string only_formats, only_rows = "1,4,16,512", only_shapes;
  int threads = 2;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--formats")
      only_formats = argv[i + 1];
    else if (name == "--rows")
      only_rows = argv[i + 1];
    else if (name == "--shapes")
      only_shapes = argv[i + 1];
    else if (name == "--rotate")
      rotate = std::min(kMemory, int64_t(std::atoll(argv[i + 1])));
    else if (name == "--threads")
      threads = std::atoi(argv[i + 1]);
    else {
      std::fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    }
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  features = detect_features();
  ThreadPool pool(threads);
  workers = &pool;
  memory = static_cast<uint8_t*>(std::aligned_alloc(1 << 21, size_t(kMemory + 8192)));
  int filled = -1;
  std::printf("%-8s %-7s %5s %10s %9s %12s %8s\n", "shape", "format", "rows", "time us", "GB/s", "GFLOP/s", "share");
  std::stringstream rows_list(only_rows);
  for (std::string item; std::getline(rows_list, item, ',');) {
    const int64_t rows = std::stoll(item);
    for (int format = 0; format < 8; ++format) {
      if (!chosen(only_formats, formats[format])) continue;
      if (filled != (format < 3)) fill_memory(format < 3), filled = format < 3;
      const Ceilings top = measure_ceilings(pool, features);
      const double bandwidth = top.read_bytes / 1e9, peak = top.f32_flops / 1e9;
      double total = 0, total_bytes = 0, total_flops = 0;
      const auto report = [&](const char* name, double s, double bytes, double flops) {
        std::printf("%-8s %-7s %5lld %10.1f %9.2f %12.1f   %3.0f %% of %.1f GB/s, %3.0f %% of %.0f GFLOP/s f32", name,
                    formats[format], (long long)rows, s * 1e6, bytes / s / 1e9, flops / s / 1e9,
                    bytes / s / 1e7 / bandwidth, bandwidth, flops / s / 1e7 / peak, peak);
        if (format >= 6 && rows > 16)
          std::printf(", %3.0f %% of VNNI, %3.0f %% of AMX", 100 * flops / s / top.vnni_ops,
                      top.amx_ops > 0 ? 100 * flops / s / top.amx_ops : 0.0);
        std::printf("\n");
      };
      for (const Shape& shape : shapes) {
        if (!chosen(only_shapes, shape.name)) continue;
        Case c(shape, format, rows);
        double flops = 0;
        for (int64_t n : shape.n) flops += 2.0 * double(rows) * double(n) * double(shape.k);
        int64_t at = 0;
        std::vector<double> times;
        for (int repeat = 0; repeat < 3; ++repeat) {
          c.run_at(at);
          const double end = now() + 0.25;
          do times.push_back(c.run_at(at));
          while (now() < end);
        }
        const double s = median(times);
        report(shape.name, s, double(c.bytes), flops);
        const int layers = std::string(shape.name) == "head" ? 1 : 22;
        total += s * layers, total_bytes += double(c.bytes) * layers, total_flops += flops * layers;
      }
      if (only_shapes.empty()) report("model", total, total_bytes, total_flops);
    }
  }
}
