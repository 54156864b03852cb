// Compares the linear and quantization commands with bitsandbytes' own results and with plain double-precision loops.
//   check FOLDER     a folder with blockwise_4bit, matmul_4bit and llm_int8 .safetensors
// Prints one line per group and returns 1 when anything is off.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include "../driver/features.h"
#include "../driver/workers.h"
#include "support.h"

using namespace q;
using namespace q::cpu;
using bench::Arena;
using bench::Bytes;
using bench::Random;

namespace {

int failures = 0;
void expect(bool ok, const std::string& what) {
  std::printf("%s %s\n", ok ? "ok  " : "FAIL", what.c_str());
  failures += !ok;
}

ThreadPool workers(2);
Arena arena;
CpuFeatures features;

template <class Args>
void execute(const Args& args) {
  Context context{workers, arena, features};
  run(args, context);
  arena.reset();
}

/// Tensors of a safetensors file; enough of JSON for the files it is meant for.
std::map<std::string, Bytes> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  uint64_t length;
  file.read(reinterpret_cast<char*>(&length), 8);
  std::string header(length, ' '), rest;
  file.read(header.data(), long(length));
  rest.assign(std::istreambuf_iterator<char>(file), {});
  std::map<std::string, Bytes> out;
  const std::map<std::string, DType> dtypes = {{"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16},
                                               {"I8", DType::i8},   {"U8", DType::u8},   {"I64", DType::i64}};
  for (size_t at = 0; (at = header.find("\"dtype\":\"", at)) != std::string::npos; ++at) {
    const size_t name_end = header.rfind("\":{", at), name = header.rfind('"', name_end - 1) + 1, dtype = at + 9,
                 offsets = header.find("data_offsets\":[", at) + 15;
    size_t begin = std::stoull(header.substr(offsets, 20)),
           end = std::stoull(header.substr(header.find(',', offsets) + 1, 20));
    Bytes b;
    b.dtype = dtypes.at(header.substr(dtype, header.find('"', dtype) - dtype));
    b.data.assign(rest.begin() + long(begin), rest.begin() + long(end));
    out[header.substr(name, name_end - name)] = b;
  }
  return out;
}

int64_t count_of(const Bytes& b) {
  return int64_t(b.data.size()) / (b.dtype == DType::f32                             ? 4
                                   : b.dtype == DType::f16 || b.dtype == DType::bf16 ? 2
                                   : b.dtype == DType::i64                           ? 8
                                                                                     : 1);
}
float at(Bytes& b, int64_t i) {
  return b.dtype == DType::f32   ? b.as<float>()[i]
         : b.dtype == DType::f16 ? to_float(b.as<F16>()[i])
                                 : to_float(b.as<BF16>()[i]);
}
Bytes to_f32(Bytes& b) {
  Bytes out = Bytes::floats(size_t(count_of(b)));
  for (int64_t i = 0; i < count_of(b); ++i) out.as<float>()[i] = at(b, i);
  return out;
}
double error(const float* got, const std::function<double(int64_t)>& want, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) difference += std::pow(got[i] - want(i), 2), norm += std::pow(want(i), 2);
  return std::sqrt(difference / std::max(norm, 1e-300));
}
int64_t differing(const Bytes& a, const Bytes& b) {
  if (a.data.size() != b.data.size()) return 1 << 30;
  int64_t n = 0;
  for (size_t i = 0; i < a.data.size(); ++i) n += a.data[i] != b.data[i];
  return n;
}

void check_blockwise(const std::string& folder) {
  auto t = read(folder + "/blockwise_4bit.safetensors");
  std::map<std::string, int64_t> bad, total;
  for (auto& [key, packed] : t) {
    if (key.size() < 7 || key.substr(key.size() - 7) != ".packed") continue;
    const std::string name = key.substr(0, key.size() - 7);
    const bool nested = name.find("nested") != std::string::npos, nf4 = name.find(".nf4.") != std::string::npos;
    Bytes& weight = t[name.substr(0, name.find('.', name.find('.') + 1)) + ".weight"];
    const int64_t count = count_of(weight),
                  block = std::stoll(name.substr(
                      name.find(".b", name.find("fp4") != std::string::npos ? name.find("fp4") : name.find("nf4")) +
                      2));
    const int64_t blocks = (count + block - 1) / block;
    const std::string group = std::string(weight.dtype == DType::f32   ? "f32 "
                                          : weight.dtype == DType::f16 ? "f16 "
                                                                       : "bf16 ") +
                              (nf4 ? "nf4" : "fp4");
    Bytes codes = Bytes::of(DType::u8, packed.data.size()), absmax = Bytes::floats(size_t(blocks));
    const int64_t type = int64_t(nf4 ? QuantType::nf4 : QuantType::fp4);
    execute(Quantize4bitArgs{weight.tensor(), codes.tensor(), absmax.tensor(), count, block, type});
    bad[group + " codes"] += differing(codes, packed), total[group + " codes"] += int64_t(packed.data.size());
    Bytes absmax8 = Bytes::of(DType::u8, size_t(blocks)), nested_absmax = Bytes::floats(size_t((blocks + 255) / 256)),
          offset = Bytes::floats(1);
    if (nested) {
      execute(QuantizeAbsmaxArgs{absmax.tensor(), absmax8.tensor(), nested_absmax.tensor(), t["nested_code"].tensor(),
                                 offset.tensor(), blocks, 256});
      bad["nested absmax"] += differing(absmax8, t[name + ".absmax"]) +
                              differing(nested_absmax, t[name + ".nested_absmax"]) +
                              differing(offset, t[name + ".offset"]);
      total["nested absmax"] += blocks;
    } else {
      bad["plain absmax"] += differing(absmax, t[name + ".absmax"]), total["plain absmax"] += blocks;
    }
    Bytes& expected = t[name + ".dequant"];
    Bytes out = Bytes::of(expected.dtype, expected.data.size());
    execute(Dequantize4bitArgs{packed.tensor(), nested ? absmax8.tensor() : absmax.tensor(),
                               nested ? nested_absmax.tensor() : Tensor{},
                               nested ? t["nested_code"].tensor() : Tensor{}, nested ? offset.tensor() : Tensor{},
                               out.tensor(), count, block, 256, type});
    bad[group + " dequantized"] += differing(out, expected), total[group + " dequantized"] += count;
  }
  for (auto& [group, n] : total) {
    const int64_t allowed = group == "f16 fp4 codes"    ? 4
                            : group == "bf16 fp4 codes" ? 16
                                                        : 0;  // exact ties, see quant.isa.cpp
    expect(bad[group] <= allowed,
           "bitsandbytes " + group + ": " + std::to_string(bad[group]) + " of " + std::to_string(n) + " differ");
  }
}

void check_matmul(const std::string& folder) {
  auto t = read(folder + "/matmul_4bit.safetensors");
  Bytes nested_code = read(folder + "/blockwise_4bit.safetensors")["nested_code"];
  std::map<std::string, double> worst;
  const int64_t n = count_of(t["bias"]), k = count_of(t["weight"]) / n, blocks = n * k / 64;
  for (auto& [key, y] : t) {
    if (key.size() < 2 || key.substr(key.size() - 2) != ".y") continue;
    const std::string name = key.substr(0, key.size() - 2), dtype = key.substr(4, key.find('.', 4) - 4);
    const bool nf4 = key[0] == 'n';
    Bytes weight = t["weight"], bias = t["bias"], x = to_f32(t[name + ".x"]);
    const DType d = dtype == "float16" ? DType::f16 : dtype == "bfloat16" ? DType::bf16 : DType::f32;
    const auto round = [&](float f) {
      return d == DType::f16 ? to_float(to_f16(f)) : d == DType::bf16 ? to_float(to_bf16(f)) : f;
    };
    for (int64_t i = 0; i < n * k; ++i) weight.as<float>()[i] = round(weight.as<float>()[i]);
    for (int64_t i = 0; i < n; ++i) bias.as<float>()[i] = round(bias.as<float>()[i]);
    Bytes codes = Bytes::of(DType::u8, size_t(n * k / 2)), absmax = Bytes::floats(size_t(blocks)),
          absmax8 = Bytes::of(DType::u8, size_t(blocks));
    Bytes nested = Bytes::floats(size_t((blocks + 255) / 256)), offset = Bytes::floats(1);
    const int64_t type = int64_t(nf4 ? QuantType::nf4 : QuantType::fp4), rows = count_of(x) / k;
    execute(Quantize4bitArgs{weight.tensor(), codes.tensor(), absmax.tensor(), n * k, 64, type});
    execute(QuantizeAbsmaxArgs{absmax.tensor(), absmax8.tensor(), nested.tensor(), nested_code.tensor(),
                               offset.tensor(), blocks, 256});
    Bytes out = Bytes::floats(size_t(rows * n));
    LinearArgs a{};
    a.x = x.tensor(), a.out = out.tensor(), a.rows = rows, a.k = k, a.parts_count = 1;
    a.parts[0] = {int64_t(WeightKind::bnb4),
                  n,
                  codes.tensor(),
                  bias.tensor(),
                  absmax8.tensor(),
                  nested.tensor(),
                  nested_code.tensor(),
                  offset.tensor(),
                  64,
                  256,
                  type,
                  0,
                  0};
    execute(a);
    double& e = worst[dtype];
    e = std::max(e, error(out.as<float>(), [&](int64_t i) { return at(y, i); }, rows * n));
  }
  for (auto& [dtype, e] : worst) {
    const double allowed = dtype == "float32" ? 1e-6 : dtype == "float16" ? 2e-3 : 1e-2;
    char text[160];
    std::snprintf(text, sizeof text, "bitsandbytes matmul_4bit %s: relative error %.2e, allowed %.0e", dtype.c_str(), e,
                  allowed);
    expect(e <= allowed, text);
  }
}

void check_int8(const std::string& folder) {
  auto t = read(folder + "/llm_int8.safetensors");
  const int64_t n = count_of(t["bias"]), k = count_of(t["weight"]) / n, rows = count_of(t["x"]) / k;
  Bytes cb = Bytes::of(DType::i8, size_t(n * k)), scb = Bytes::floats(size_t(n)), x = to_f32(t["x"]);
  execute(QuantizeInt8Args{t["weight"].tensor(), cb.tensor(), scb.tensor(), n, k});
  const int64_t bad = differing(cb, t["weight.CB"]);
  expect(bad <= 1, "bitsandbytes int8 CB: " + std::to_string(bad) + " of " + std::to_string(n * k) + " differ (1 tie)");
  expect(differing(scb, t["weight.SCB"]) == 0, "bitsandbytes int8 SCB");
  for (double threshold : {0.0, 3.0, 6.0, 10.0}) {
    Bytes out = Bytes::floats(size_t(rows * n)), alone = out, &y = t["t" + std::to_string(int(threshold)) + ".y"];
    LinearArgs a{};
    a.x = x.tensor(), a.out = out.tensor(), a.rows = rows, a.k = k, a.parts_count = 1;
    a.parts[0] = {int64_t(WeightKind::int8),
                  n,
                  t["weight.CB"].tensor(),
                  t["bias"].tensor(),
                  t["weight.SCB"].tensor(),
                  {},
                  {},
                  {},
                  0,
                  0,
                  0,
                  0,
                  threshold};
    execute(a);
    for (int64_t r = 0; r < rows; ++r) {
      LinearArgs one = a;
      one.rows = 1;
      one.x = {x.as<float>() + r * k, DType::f32, k * 4};
      one.out = {alone.as<float>() + r * n, DType::f32, n * 4};
      execute(one);
    }
    const double e = error(out.as<float>(), [&](int64_t i) { return at(y, i); }, rows * n);
    char text[160];
    std::snprintf(text, sizeof text,
                  "bitsandbytes LLM.int8 threshold %g: relative error %.2e, allowed 2e-3; rows alone the same bits",
                  threshold, e);
    expect(e <= 2e-3 && differing(out, alone) == 0, text);
  }
}

/// One random weight in every form, with its exact values.
struct Weight {
  Bytes data, absmax, absmax8, nested, offset, bias;
  std::vector<double> exact;
  LinearArgsItem item{};
};

const char* kinds[] = {"f32", "f16", "bf16", "nf4", "nf4 nested", "fp4 b128", "int8", "int8 outliers"};

void make(Weight& w, int kind, int64_t n, int64_t k, Bytes& nested_code, Random& random) {
  const int64_t count = n * k, block = kind == 5 ? 128 : 64, blocks = (count + block - 1) / block;
  Bytes values = Bytes::floats(size_t(count));
  for (int64_t i = 0; i < count; ++i) values.as<float>()[i] = random.normal();
  w.bias = Bytes::floats(size_t(n));
  for (int64_t i = 0; i < n; ++i) w.bias.as<float>()[i] = random.normal();
  Bytes dequantized = values;
  w.item = {};
  if (kind == 0) w.data = values;
  if (kind == 1 || kind == 2) {
    w.data = Bytes::of(kind == 1 ? DType::f16 : DType::bf16, size_t(count * 2));
    for (int64_t i = 0; i < count; ++i) {
      const float v = values.as<float>()[i];
      if (kind == 1)
        w.data.as<F16>()[i] = to_f16(v);
      else
        w.data.as<BF16>()[i] = to_bf16(v);
      dequantized.as<float>()[i] = at(w.data, i);
    }
  }
  if (kind >= 3 && kind <= 5) {
    w.item.kind = int64_t(WeightKind::bnb4), w.item.block_size = block, w.item.quant_type = kind == 5;
    w.data = Bytes::of(DType::u8, size_t((count + 1) / 2)), w.absmax = Bytes::floats(size_t(blocks));
    execute(Quantize4bitArgs{values.tensor(), w.data.tensor(), w.absmax.tensor(), count, block, kind == 5});
    if (kind == 4) {
      w.absmax8 = Bytes::of(DType::u8, size_t(blocks)), w.nested = Bytes::floats(size_t((blocks + 255) / 256)),
      w.offset = Bytes::floats(1), w.item.nested_block_size = 256;
      execute(QuantizeAbsmaxArgs{w.absmax.tensor(), w.absmax8.tensor(), w.nested.tensor(), nested_code.tensor(),
                                 w.offset.tensor(), blocks, 256});
      w.absmax = w.absmax8;
      w.item.nested_absmax = w.nested.tensor(), w.item.nested_code = nested_code.tensor(),
      w.item.offset = w.offset.tensor();
    }
    execute(Dequantize4bitArgs{w.data.tensor(), w.absmax.tensor(), w.item.nested_absmax, w.item.nested_code,
                               w.item.offset, dequantized.tensor(), count, block, 256, kind == 5});
  }
  if (kind >= 6) {
    w.item.kind = int64_t(WeightKind::int8), w.item.threshold = kind == 7 ? 2.0 : 0.0;
    w.data = Bytes::of(DType::i8, size_t(count)), w.absmax = Bytes::floats(size_t(n));
    execute(QuantizeInt8Args{values.tensor(), w.data.tensor(), w.absmax.tensor(), n, k});
    execute(DequantizeInt8Args{w.data.tensor(), w.absmax.tensor(), dequantized.tensor(), n, k});
  }
  w.exact.assign(dequantized.as<float>(), dequantized.as<float>() + count);
  w.item.n = n, w.item.weight = w.data.tensor(), w.item.absmax = w.absmax.tensor(), w.item.bias = w.bias.tensor();
}

/// The values that meet the weights: x itself, or what int8 makes of it.
std::vector<double> effective(const Bytes& x, int64_t rows, int64_t k, int kind) {
  const float* v = reinterpret_cast<const float*>(x.data.data());
  std::vector<double> out(v, v + rows * k);
  if (kind < 6) return out;
  for (int64_t r = 0; r < rows; ++r) {
    float most = 0;
    const auto outlier = [&](int64_t i) { return kind == 7 && std::fabs(v[r * k + i]) >= 2.0f; };
    for (int64_t i = 0; i < k; ++i)
      if (!outlier(i)) most = std::max(most, std::fabs(v[r * k + i]));
    for (int64_t i = 0; i < k; ++i) {
      if (!outlier(i))
        out[size_t(r * k + i)] =
            most > 0 ? std::nearbyint(v[r * k + i] * (127.0f * (1.0f / most))) * double(most) / 127 : 0;
    }
  }
  return out;
}

double activated(int64_t kind, double x) {
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  switch (ActivationKind(kind)) {
    case ActivationKind::silu:
      return x * sigmoid(x);
    case ActivationKind::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case ActivationKind::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::relu:
      return std::max(0.0, x);
    case ActivationKind::quick_gelu:
      return x * sigmoid(1.702 * x);
    case ActivationKind::sigmoid:
      return sigmoid(x);
    case ActivationKind::tanh:
      return std::tanh(x);
    default:
      return x;
  }
}

/// Every kind of weight, odd sizes, bias, activation, gate, residual; and a row's bits for any number of rows.
void check_shapes(Bytes& nested_code, const char* isa) {
  Random random{7};
  double worst = 0;
  int64_t cases = 0, changed = 0;
  const int64_t ks[] = {64, 2048, 1024 + 64, 33, 127, 1100, 1, 200}, ns[] = {1, 5, 16, 33, 100, 130},
                all_rows[] = {1, 2, 5, 7, 17, 40};
  for (int kind = 0; kind < 8; ++kind) {
    for (int64_t k : ks) {
      const int64_t n = ns[random.bits() % 6], n2 = ns[random.bits() % 6], most = all_rows[random.bits() % 6];
      const bool gated = random.bits() % 3 == 0;
      const int64_t columns = gated ? n : n + n2;
      Weight w[2];
      make(w[0], kind, n, k, nested_code, random);
      make(w[1], random.bits() % 2 ? kind : int(random.bits() % 8), gated ? n : n2, k, nested_code, random);
      const int kind2 = w[1].item.kind == int64_t(WeightKind::int8) ? (w[1].item.threshold > 0 ? 7 : 6) : 0;
      Bytes x = Bytes::floats(size_t(most * k)), out = Bytes::floats(size_t(most * columns)), residual = out, one = out;
      for (int64_t i = 0; i < most * k; ++i) x.as<float>()[i] = random.normal();
      for (int64_t i = 0; i < most * columns; ++i) residual.as<float>()[i] = random.normal();
      LinearArgs a{};
      a.x = x.tensor(), a.out = out.tensor(), a.residual = residual.tensor(), a.rows = most, a.k = k,
      a.activation = int64_t(random.bits() % 8), a.gated = gated, a.parts_count = 2;
      a.parts[0] = w[0].item, a.parts[1] = w[1].item;
      execute(a);
      for (int64_t r = 0; r < most; ++r) {
        LinearArgs b = a;
        b.rows = 1, b.x = {x.as<float>() + r * k, DType::f32, k * 4},
        b.out = {one.as<float>() + r * columns, DType::f32, columns * 4};
        b.residual = {residual.as<float>() + r * columns, DType::f32, columns * 4};
        execute(b);
      }
      changed += differing(out, one) != 0;
      const std::vector<double> x1 = effective(x, most, k, kind < 6 ? 0 : kind), x2 = effective(x, most, k, kind2);
      const auto dot = [&](const Weight& v, const std::vector<double>& xs, int64_t r, int64_t c) {
        double sum = reinterpret_cast<const float*>(v.bias.data.data())[c];
        for (int64_t i = 0; i < k; ++i) sum += xs[size_t(r * k + i)] * v.exact[size_t(c * k + i)];
        return sum;
      };
      const double e = error(
          out.as<float>(),
          [&](int64_t i) {
            const int64_t r = i / columns, c = i % columns;
            const double y = c < n ? dot(w[0], x1, r, c) : dot(w[1], x2, r, c - n);
            return residual.as<float>()[i] +
                   (gated ? activated(a.activation, y) * dot(w[1], x2, r, c) : activated(a.activation, y));
          },
          most * columns);
      if (e > 2e-6)
        std::printf("     %s k %lld n %lld+%lld rows %lld gated %d activation %lld: %.2e\n", kinds[kind], (long long)k,
                    (long long)n, (long long)n2, (long long)most, gated, (long long)a.activation, e);
      worst = std::max(worst, e);
      ++cases;
    }
  }
  char text[160];
  std::snprintf(text, sizeof text,
                "%s: %lld shapes against double precision, worst relative error %.2e, allowed 2e-6; rows alone the "
                "same bits in %lld",
                isa, (long long)cases, worst, (long long)(cases - changed));
  expect(worst < 2e-6 && changed == 0, text);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "check FOLDER\n");
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const CpuFeatures all = detect_features();
  Bytes nested_code = read(std::string(argv[1]) + "/blockwise_4bit.safetensors")["nested_code"];
  const char* names[] = {"scalar", "avx2", "avx512", "avx512 vnni", "avx512 vnni amx"};
  for (int level = 0; level < 5; ++level) {
    features = {};
    features.isa = Isa(std::min(level, 2));
    if (features.isa > all.isa || (level == 3 && !all.avx512_vnni) || (level == 4 && !all.amx_int8)) continue;
    features.avx512_vnni = level >= 3;
    if (level == 4) features = all;
    std::printf("---- %s\n", names[level]);
    check_blockwise(argv[1]);
    check_matmul(argv[1]);
    check_int8(argv[1]);
    check_shapes(nested_code, names[level]);
  }
  return failures ? 1 : 0;
}
