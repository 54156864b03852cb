// Test of the linear with many rows: every path against float64 over odd sizes, kinds and finishes (poisoned outputs,
// two runs compared bit by bit, a row alone against the row in company), then bitsandbytes' own results.; q_test_gemm
// [golden.bin [random cases]]
#include <algorithm>
#include <functional>
#include <tuple>
#include "gemm_machine.cuh"

using namespace q;
using namespace q::cuda;
using namespace q::reference;

namespace {

const char* path_name(GemmPath p) {
  const char* names[] = {"auto", "bnb4", "tma", "cublas", "mma", "plain"};
  return names[static_cast<int>(p)];
}

struct Random {
  uint32_t state;
  int operator()(int n) { return static_cast<int>(hash(++state, 77) % static_cast<uint32_t>(n)); }
  template <class T, size_t N>
  T pick(const T (&from)[N]) {
    return from[(*this)(N)];
  }
};

int failures = 0, checks = 0;
double worst[3][3] = {};  // by weight kind and act dtype

double limit(WeightKind kind, DType dtype) {
  if (dtype == DType::f32) return kind == WeightKind::int8 ? 1e-5 : 1e-5;
  return dtype == DType::f16 ? 1e-3 : 8e-3;
}

void check_case(GemmMachine& m, const LinearArgs& a, const Tensor& out, int64_t columns, const std::string& what,
                bool forced_fallback, bool only_fused = false) {
  const size_t bytes = a.rows * columns * size_of(out.dtype);
  Memory memory;
  Tensor residual{};
  if (a.residual) {
    residual = memory.empty(out.dtype, a.rows * columns);
    REQUIRE(cudaMemcpy(residual.data, a.residual.data, bytes, cudaMemcpyDeviceToDevice));
  }
  const bool alias = a.residual.data == out.data;
  const std::vector<double> expected = linear(a, residual);
  std::vector<char> first(bytes), second(bytes);
  for (GemmPath path :
       {GemmPath::automatic, GemmPath::bnb4, GemmPath::tma, GemmPath::cublas, GemmPath::mma, GemmPath::plain}) {
    if (forced_fallback && path != GemmPath::automatic) continue;
    if (only_fused && path != GemmPath::bnb4) continue;
    if (path == GemmPath::mma && out.dtype == DType::f32 && a.parts[0].kind != 2) continue;
    if (path == GemmPath::plain && (a.rows > 200 || a.parts[0].kind == 2)) continue;
    bool ran = true;
    for (int run = 0; run < 2 && ran; ++run) {
      REQUIRE(cudaMemset(out.data, 0xff, bytes + 16));
      if (alias) REQUIRE(cudaMemcpy(out.data, residual.data, bytes, cudaMemcpyDeviceToDevice));
      REQUIRE(cudaDeviceSynchronize());  // the command's stream does not wait for the default one
      m.workspace.reset();
      try {
        gemm_by(path, a, m.context);
      } catch (const CommandError& e) {
        if (path == GemmPath::automatic || !std::strstr(e.what(), "the path asked for")) {
          std::printf("FAIL %s %s: %s\n", what.c_str(), path_name(path), e.what());
          ++failures;
        }
        ran = false;
        break;
      }
      REQUIRE(cudaStreamSynchronize(m.context.stream));
      REQUIRE(cudaMemcpy((run ? second : first).data(), out.data, bytes, cudaMemcpyDeviceToHost));
      char tail[16];
      REQUIRE(cudaMemcpy(tail, static_cast<char*>(out.data) + bytes, 16, cudaMemcpyDeviceToHost));
      for (char c : tail) {
        if (c != char(0xff)) {
          std::printf("FAIL %s %s: wrote past the end\n", what.c_str(), path_name(path));
          ++failures;
          break;
        }
      }
    }
    if (!ran) continue;
    const double error = relative_error(out.dtype, first, expected);
    ++checks;
    DType coarsest = out.dtype;  // a compute dtype of fewer bits than act's decides
    for (int i = 0; i < a.parts_count; ++i) {
      if (a.parts[i].kind == 1)
        coarsest = static_cast<DType>(std::max(static_cast<int>(coarsest), static_cast<int>(a.parts[i].compute_dtype)));
    }
    double& w = worst[a.parts[0].kind][static_cast<int>(coarsest)];
    w = std::max(w, error);
    const bool wrong = !(error <= limit(static_cast<WeightKind>(a.parts[0].kind), coarsest)), moves = first != second;
    if (wrong || moves) {
      ++failures;
      if (failures < 60)
        std::printf("FAIL %s %s: error %.3g%s\n", what.c_str(), path_name(path), error, moves ? ", runs differ" : "");
    }
  }
}

void check_random(GemmMachine& hopper, GemmMachine& older, int cases) {
  Random random{12345};
  for (int i = 0; i < cases; ++i) {
    Memory memory;
    LinearArgs a{};
    const DType dtype = random.pick({DType::f16, DType::f16, DType::bf16, DType::f32});
    const auto kind = static_cast<WeightKind>(random(3));
    const bool odd = random(4) == 0;
    a.rows = random.pick({1, 17, 33, 63, 64, 65, 80, 96, 97, 100, 127, 128, 129, 200, 257, 300, 513});
    a.k = odd ? 1 + random(400) : random.pick({64, 128, 256, 512, 576, 1024, 1088, 2048});
    a.gated = random(4) == 0;
    a.parts_count = a.gated ? 2 : random.pick({1, 1, 1, 2, 3, 4});
    a.activation = random(2) ? random(8) : 0;
    const int shared_n = odd || random(4) == 0 ? 1 + random(300) : random.pick({64, 128, 136, 192, 256, 384, 520});
    const bool same_n = a.gated || random(2), nested = random(2), mixed = random(12) == 0, biased = random(2);
    const int64_t block = random.pick({64, 64, 128, 256, 32});
    const DType compute = random(8) == 0 ? random.pick({DType::f16, DType::bf16, DType::f32}) : dtype;
    const double threshold = random.pick({0.0, 2.5, 2.5, 1.0, 0.1});
    const int64_t quant_type = random(2);
    const DType dense = random(10) == 0 ? DType::f32 : dtype;
    int64_t width = 0;
    for (int j = 0; j < a.parts_count; ++j) {
      LinearArgsItem& p = a.parts[j];
      p.kind = mixed ? random(3) : static_cast<int64_t>(kind);
      p.n = same_n ? shared_n : shared_n + 8 * j;
      p.block_size = block;
      p.nested_block_size = 256;
      p.quant_type = quant_type;
      p.compute_dtype = static_cast<int64_t>(compute);
      p.threshold = threshold;
      draw_weight(memory, p, a.k, dense, nested, 1000 * i + 10 * j);
      if (biased) p.bias = memory.make(random(3) ? dtype : DType::f32, p.n, Draw::normal, 0.5f, 5 * i + j);
      width += p.n;
    }
    const int64_t columns = a.gated ? a.parts[0].n : width;
    a.x = memory.make(dtype, a.rows * a.k, Draw::normal, 1.f, i);
    a.out = memory.empty(dtype, a.rows * columns);
    if (random(3) == 0) a.residual = random(2) ? a.out : memory.make(dtype, a.rows * columns, Draw::normal, 1.f, i + 7);
    if (a.residual.data == a.out.data && a.residual) {
      const Tensor r = memory.make(dtype, a.rows * columns, Draw::normal, 1.f, i + 9);
      REQUIRE(cudaMemcpy(a.out.data, r.data, a.out.bytes, cudaMemcpyDeviceToDevice));
    }
    char what[200];
    std::snprintf(what, sizeof what,
                  "case %d: kind %d%s dtype %d rows %d k %d n %dx%d gated %d act %d nested %d block %d thr %g bias %d "
                  "residual %d compute %d",
                  i, static_cast<int>(kind), mixed ? " mixed" : "", static_cast<int>(dtype), static_cast<int>(a.rows),
                  static_cast<int>(a.k), static_cast<int>(a.parts_count), shared_n, static_cast<int>(a.gated),
                  static_cast<int>(a.activation), nested, static_cast<int>(block), threshold, biased,
                  a.residual ? (a.residual.data == a.out.data ? 2 : 1) : 0, static_cast<int>(compute));
    check_case(hopper, a, a.out, columns, what, false);
    check_case(older, a, a.out, columns, std::string("sm_80 rules, ") + what, true);
  }
}

/// The fused 4-bit product at sizes that fill the machine: every tile of x, odd rows, outputs that end within a tile,
/// parts and gating.
void check_fused(GemmMachine& m) {
  struct Case {
    int64_t n, k;
    int parts, gated;
  };
  int i = 0;
  for (const Case& s :
       {Case{11008, 4096, 1, 0}, {4096, 4096, 3, 0}, {5500, 2048, 2, 1}, {1001, 11008, 1, 0}, {6666, 320, 2, 0}}) {
    for (int64_t rows : {17, 32, 33, 48, 63, 64, 65, 96, 100, 127, 128, 129, 200, 256, 385}) {
      ++i;
      if (rows > 130 && s.n > 10000) continue;
      Memory memory;
      LinearArgs a{};
      const DType dtype = i % 3 == 0 ? DType::bf16 : DType::f16;
      a.rows = rows;
      a.k = s.k;
      a.gated = s.gated;
      a.activation = s.gated;
      a.parts_count = s.parts;
      for (int j = 0; j < s.parts; ++j) {
        LinearArgsItem& p = a.parts[j];
        p.kind = static_cast<int64_t>(WeightKind::bnb4);
        p.n = s.n;
        p.block_size = s.k % 128 == 0 && i % 4 == 0 ? 128 : 64;
        p.nested_block_size = 256;
        p.quant_type = i % 5 == 0;
        p.compute_dtype = static_cast<int64_t>(dtype);
        draw_weight(memory, p, a.k, dtype, i % 2, 1000 * i + 10 * j);
        if (i % 2) p.bias = memory.make(dtype, p.n, Draw::normal, 0.5f, 5 * i + j);
      }
      const int64_t columns = s.gated ? s.n : s.n * s.parts;
      a.x = memory.make(dtype, a.rows * a.k, Draw::normal, 1.f, i);
      a.out = memory.empty(dtype, a.rows * columns);
      if (i % 3 == 1) a.residual = memory.make(dtype, a.rows * columns, Draw::normal, 1.f, i + 7);
      char what[120];
      std::snprintf(what, sizeof what, "fused: dtype %d rows %d k %d n %dx%d gated %d nested %d",
                    static_cast<int>(dtype), static_cast<int>(rows), static_cast<int>(s.k), s.parts,
                    static_cast<int>(s.n), s.gated, i % 2);
      check_case(m, a, a.out, columns, what, false, true);
    }
  }
}

/// A row's bits must not depend on the other rows.
void check_neighbours(GemmMachine& m) {
  for (int kind = 0; kind < 3; ++kind) {
    for (int64_t rows : {100, 700}) {
      Memory memory;
      LinearArgs a{};
      a.rows = rows;
      a.k = 1024;
      a.parts_count = 1;
      LinearArgsItem& p = a.parts[0];
      p = {};
      p.kind = kind;
      p.n = 512;
      p.block_size = 64;
      p.compute_dtype = static_cast<int64_t>(DType::f16);
      p.threshold = 3.0;
      draw_weight(memory, p, a.k, DType::f16, false, 3);
      a.x = memory.make(DType::f16, rows * a.k, Draw::normal, 1.f, 1);
      a.out = memory.empty(DType::f16, rows * p.n);
      std::vector<char> one(p.n * 2), two(p.n * 2);
      m.workspace.reset();
      REQUIRE(cudaDeviceSynchronize());
      gemm_by(GemmPath::automatic, a, m.context);
      REQUIRE(cudaStreamSynchronize(m.context.stream));
      REQUIRE(cudaMemcpy(one.data(), a.out.as<char>() + 7 * p.n * 2, one.size(), cudaMemcpyDeviceToHost));
      Tensor other = memory.make(DType::f16, rows * a.k, Draw::normal, 2.f, 2);
      REQUIRE(
          cudaMemcpy(other.as<char>() + 7 * a.k * 2, a.x.as<char>() + 7 * a.k * 2, a.k * 2, cudaMemcpyDeviceToDevice));
      a.x = other;
      m.workspace.reset();
      REQUIRE(cudaDeviceSynchronize());
      gemm_by(GemmPath::automatic, a, m.context);
      REQUIRE(cudaStreamSynchronize(m.context.stream));
      REQUIRE(cudaMemcpy(two.data(), a.out.as<char>() + 7 * p.n * 2, two.size(), cudaMemcpyDeviceToHost));
      ++checks;
      int differ = 0;
      for (size_t i = 0; i < one.size(); ++i) differ += one[i] != two[i];
      if (differ) {
        ++failures;
        std::printf("FAIL neighbours: kind %d rows %d: %d bytes differ\n", kind, static_cast<int>(rows), differ);
      }
    }
  }
}

/// Records written from bitsandbytes' results: 16 int64 of header, then the tensors' bytes, each prefixed by its
/// length.
void check_golden(GemmMachine& m, const char* file) {
  FILE* f = std::fopen(file, "rb");
  if (!f) {
    std::printf("FAIL no golden file %s\n", file);
    ++failures;
    return;
  }
  int64_t h[16];
  int count = 0;
  while (std::fread(h, sizeof h, 1, f) ==
         1) {  // kind quant dtype rows n k blockSize nestedBlockSize threshold*1000 tolerance*1e9
    Memory memory;
    auto read = [&](DType dtype) {
      int64_t bytes;
      if (std::fread(&bytes, 8, 1, f) != 1) std::exit(2);
      if (bytes == 0) return Tensor{};
      std::vector<char> v(bytes);
      if (std::fread(v.data(), 1, bytes, f) != static_cast<size_t>(bytes)) std::exit(2);
      Tensor t = memory.empty(dtype, bytes / size_of(dtype));
      REQUIRE(cudaMemcpy(t.data, v.data(), bytes, cudaMemcpyHostToDevice));
      return t;
    };
    const DType dtype = static_cast<DType>(h[2]);
    LinearArgs a{};
    a.rows = h[3];
    a.k = h[5];
    a.parts_count = 1;
    LinearArgsItem& p = a.parts[0];
    p.kind = h[0];
    p.n = h[4];
    p.block_size = h[6];
    p.nested_block_size = h[7];
    p.quant_type = h[1];
    p.compute_dtype = h[2];
    p.threshold = h[8] / 1000.0;
    a.x = read(dtype);
    p.weight = read(h[0] == 2 ? DType::i8 : DType::u8);
    p.absmax = read(h[0] == 2 ? DType::f32 : DType::u8);
    p.nested_absmax = read(DType::f32);
    p.nested_code = read(DType::f32);
    p.offset = read(DType::f32);
    p.bias = read(dtype);
    const Tensor y = read(DType::f32);
    std::vector<float> yf(a.rows * p.n);
    REQUIRE(cudaMemcpy(yf.data(), y.data, yf.size() * 4, cudaMemcpyDeviceToHost));
    const std::vector<double> expected(yf.begin(), yf.end());
    a.out = memory.empty(dtype, a.rows * p.n);
    std::vector<char> out(a.rows * p.n * size_of(dtype));
    for (GemmPath path : {GemmPath::automatic, GemmPath::tma, GemmPath::mma}) {
      if (path != GemmPath::automatic && dtype == DType::f32) continue;
      REQUIRE(cudaMemset(a.out.data, 0xff, out.size()));
      REQUIRE(cudaDeviceSynchronize());
      m.workspace.reset();
      gemm_by(path, a, m.context);
      REQUIRE(cudaStreamSynchronize(m.context.stream));
      REQUIRE(cudaMemcpy(out.data(), a.out.data, out.size(), cudaMemcpyDeviceToHost));
      const double error = relative_error(dtype, out, expected);
      std::printf("golden kind %d quant %d dtype %d rows %d threshold %g %s: %.3g (at most %g)\n",
                  static_cast<int>(h[0]), static_cast<int>(h[1]), static_cast<int>(h[2]), static_cast<int>(h[3]),
                  p.threshold, path_name(path), error, h[9] * 1e-9);
      ++count;
      if (!(error <= h[9] * 1e-9)) ++failures;
    }
  }
  std::fclose(f);
  std::printf("golden: %d results\n", count);
}

}  // namespace

int main(int argc, char** argv) {
  CublasLt* lt = open_cublaslt(0);
  std::printf("cuBLASLt: %s\n", lt ? "yes" : "no");
  {
    GemmMachine machine(lt), older(nullptr);
    const bool hopper = machine.context.compute_capability == 90;
    older.context.compute_capability = hopper ? 80 : machine.context.compute_capability;
    if (hopper) check_fused(machine);
    check_random(machine, older, argc > 2 ? std::atoi(argv[2]) : 250);
    check_neighbours(machine);
    if (argc > 1) check_golden(machine, argv[1]);
    for (int k = 0; k < 3; ++k)
      std::printf("worst relative error, kind %d: f32 %.3g, f16 %.3g, bf16 %.3g\n", k, worst[k][0], worst[k][1],
                  worst[k][2]);
    std::printf("%d checks, %d failures\n", checks, failures);
  }
  close_cublaslt(lt);
  return failures ? 1 : 0;
}
