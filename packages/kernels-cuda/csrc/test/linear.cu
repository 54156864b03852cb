// q_test_linear [--goldens DIR]: every linear kernel against sums in f64 on the CPU over odd sizes, kinds, mixes and
// epilogues; outputs poisoned and guarded; same bits on a second run, and with other neighbours. With DIR (bitsandbytes
// goldens): matmul_4bit and llm_int8.
#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <utility>
#include "linear_harness.cuh"
#include "safetensors.h"

using namespace q;
using namespace q::cuda;
using namespace q::cuda::test;

namespace {

constexpr double kNf4Book[16] = {-1.,
                                 -0.6961928009986877,
                                 -0.5250730514526367,
                                 -0.39491748809814453,
                                 -0.28444138169288635,
                                 -0.18477343022823334,
                                 -0.09105003625154495,
                                 0.,
                                 0.07958029955625534,
                                 0.16093020141124725,
                                 0.24611230194568634,
                                 0.33791524171829224,
                                 0.44070982933044434,
                                 0.5626170039176941,
                                 0.7229568362236023,
                                 1.};
constexpr double kFp4Book[16] = {
    0., 0.0052083334885537624,  0.6666666865348816,  1.,  0.3333333432674408,  0.5,  0.1666666716337204,  0.25,
    0., -0.0052083334885537624, -0.6666666865348816, -1., -0.3333333432674408, -0.5, -0.1666666716337204, -0.25};

struct PartCase {
  WeightKind kind;
  int n;
  DType weight = DType::f16;
  QuantType type = QuantType::nf4;
  bool nested = false;
  int block = 64;
  float threshold = 6.f;
  bool bias = true;
  DType compute = DType::f16;
  float far = 0;  // dense: not 0: one weight of a row is it
};
struct Case {
  DType act;
  int rows, k;
  std::vector<PartCase> parts;
  ActivationKind activation = ActivationKind::none;
  bool gated = false, residual = true;
  float x_scale = 1;
  bool in_place = false;  // the residual is out
};

struct HostPart {
  std::vector<double> weight;  // dequantized, [n, k]
  std::vector<int> codes;      // int8
  std::vector<float> absmax, bias;
  std::unique_ptr<Buffer> d_weight, d_absmax, d_nested, d_code, d_offset, d_bias;
};

/// f(i) for every i below n, on all cores.
template <class F>
void parallel_for(int n, F f) {
  const int count = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t)
    threads.emplace_back([=] {
      for (int i = t; i < n; i += count) f(i);
    });
  for (std::thread& t : threads) t.join();
}

double reference_activation(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::silu:
      return x / (1 + std::exp(-x));
    case ActivationKind::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case ActivationKind::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::relu:
      return x > 0 ? x : 0;
    case ActivationKind::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case ActivationKind::sigmoid:
      return 1 / (1 + std::exp(-x));
    case ActivationKind::tanh:
      return std::tanh(x);
    default:
      return x;
  }
}

HostPart make_part(const PartCase& c, int k, DType act, Random& random) {
  HostPart h;
  const int64_t count = static_cast<int64_t>(c.n) * k;
  h.weight.resize(count);
  if (c.bias) {
    h.bias.resize(c.n);
    for (float& b : h.bias) b = rounded(act, random.normal());
    h.d_bias = std::make_unique<Buffer>(encode(act, h.bias));
  }
  if (c.kind == WeightKind::dense) {
    std::vector<float> w(count);
    for (int64_t i = 0; i < count; ++i) {
      const bool far = c.far != 0 && i % k == i / k % k;
      h.weight[i] = w[i] = rounded(c.weight, far ? c.far : random.normal() * 0.05);
    }
    h.d_weight = std::make_unique<Buffer>(encode(c.weight, w));
  } else if (c.kind == WeightKind::int8) {
    std::vector<int8_t> w(count);
    h.codes.resize(count);
    h.absmax.resize(c.n);
    for (float& a : h.absmax) a = 0.05 + 0.1 * random.uniform();
    for (int64_t i = 0; i < count; ++i) h.codes[i] = w[i] = random.below(255) - 127;
    h.d_weight = std::make_unique<Buffer>(w);
    h.d_absmax = std::make_unique<Buffer>(h.absmax);
  } else {
    std::vector<uint8_t> packed((count + 1) / 2);
    for (uint8_t& b : packed) b = random.below(256);
    const int64_t blocks = (count + c.block - 1) / c.block;
    std::vector<float> absmax(blocks);
    if (c.nested) {
      std::vector<uint8_t> codes(blocks);
      std::vector<float> nested((blocks + 255) / 256), book(256), offset{0.07f};
      for (int i = 0; i < 256; ++i) book[i] = (i - 127) / 128.f;
      for (float& v : nested) v = 0.02 + 0.02 * random.uniform();
      for (int64_t i = 0; i < blocks; ++i) {
        codes[i] = random.below(256);
        const float product = book[codes[i]] * nested[i / 256];
        absmax[i] = product + offset[0];
      }
      h.d_absmax = std::make_unique<Buffer>(codes);
      h.d_nested = std::make_unique<Buffer>(nested);
      h.d_code = std::make_unique<Buffer>(book);
      h.d_offset = std::make_unique<Buffer>(offset);
    } else {
      for (float& a : absmax) a = 0.02 + 0.1 * random.uniform();
      h.d_absmax = std::make_unique<Buffer>(absmax);
    }
    const double* book = c.type == QuantType::nf4 ? kNf4Book : kFp4Book;
    for (int64_t i = 0; i < count; ++i)
      h.weight[i] = book[i & 1 ? packed[i / 2] & 15 : packed[i / 2] >> 4] * static_cast<double>(absmax[i / c.block]);
    h.d_weight = std::make_unique<Buffer>(packed);
  }
  return h;
}

LinearArgsItem item(const PartCase& c, const HostPart& h, DType act) {
  LinearArgsItem p{};
  p.kind = static_cast<int>(c.kind);
  p.n = c.n;
  p.weight = h.d_weight->tensor(c.kind == WeightKind::dense  ? c.weight
                                : c.kind == WeightKind::int8 ? DType::i8
                                                             : DType::u8);
  if (h.d_bias) p.bias = h.d_bias->tensor(act);
  if (h.d_absmax) p.absmax = h.d_absmax->tensor(c.nested ? DType::u8 : DType::f32);
  if (h.d_nested)
    p.nested_absmax = h.d_nested->tensor(DType::f32), p.nested_code = h.d_code->tensor(DType::f32),
    p.offset = h.d_offset->tensor(DType::f32);
  p.block_size = c.block;
  p.nested_block_size = 256;
  p.quant_type = static_cast<int>(c.type);
  p.compute_dtype = static_cast<int>(c.compute);
  p.threshold = c.threshold;
  return p;
}

/// Product of one part with one row of x, by the definition of its kind.
double product(const PartCase& c, const HostPart& h, int row, const float* x, int k, DType act) {
  double s = 0;
  if (c.kind != WeightKind::int8) {
    for (int i = 0; i < k; ++i) s += h.weight[static_cast<int64_t>(row) * k + i] * x[i];
    return s;
  }
  float absmax = 0;
  for (int i = 0; i < k; ++i)
    if (c.threshold <= 0 || std::fabs(x[i]) < c.threshold) absmax = std::max(absmax, std::fabs(x[i]));
  double outliers = 0;
  int64_t dot = 0;
  for (int i = 0; i < k; ++i) {
    const int code = h.codes[static_cast<int64_t>(row) * k + i];
    if (c.threshold > 0 && std::fabs(x[i]) >= c.threshold)
      outliers += static_cast<double>(rounded(act, code * h.absmax[row] / 127.f)) * x[i];
    else if (absmax > 0)
      dot += code * std::lrint(x[i] * (127.f / absmax));
  }
  return dot * (static_cast<double>(absmax) * h.absmax[row] / (127. * 127.)) + outliers;
}

int g_failures = 0;

void report(bool ok, const std::string& what, double error, double limit) {
  if (!ok) ++g_failures;
  if (!ok || std::getenv("VERBOSE"))
    std::printf("%s %s error %.3g (limit %.3g)\n", ok ? "ok  " : "FAIL", what.c_str(), error, limit);
}

std::string name(const Case& c) {
  static const char* kinds[] = {"dense", "bnb4", "int8"};
  static const char* types[] = {"f32", "f16", "bf16"};
  std::string s = std::string(types[static_cast<int>(c.act)]) + " rows " + std::to_string(c.rows) + " k " +
                  std::to_string(c.k) + (c.gated ? " gated" : "") + " act " +
                  std::to_string(static_cast<int>(c.activation));
  for (const PartCase& p : c.parts)
    s += std::string(" | ") + kinds[static_cast<int>(p.kind)] + " n " + std::to_string(p.n) +
         (p.nested ? " nested" : "") + " b " + std::to_string(p.block) + " t " + std::to_string(p.threshold);
  return s;
}

void check_case(Device& device, const Case& c, Random& random) {
  std::vector<HostPart> parts;
  int64_t columns = 0;
  LinearArgs a{};
  for (const PartCase& p : c.parts) {
    parts.push_back(make_part(p, c.k, c.act, random));
    a.parts[a.parts_count++] = item(p, parts.back(), c.act);
    columns += p.n;
  }
  if (c.gated) columns /= 2;
  std::vector<float> x(static_cast<size_t>(c.rows) * c.k), residual(c.rows * columns);
  for (float& v : x) v = rounded(c.act, c.x_scale * random.normal() * (random.below(200) == 0 ? 8 : 1));
  for (float& v : residual) v = rounded(c.act, random.normal());
  if (c.rows > 2)
    for (int i = 0; i < c.k; ++i) x[2 * c.k + i] = 0;  // a row of zeros
  Buffer d_x(encode(c.act, x)), d_residual(encode(c.act, residual));
  Buffer out(residual.size() * size_of(c.act)), again(out.bytes), changed(out.bytes);
  a.x = d_x.tensor(c.act);
  a.rows = c.rows;
  a.k = c.k;
  a.activation = static_cast<int>(c.activation);
  a.gated = c.gated;
  const auto run_to = [&](Buffer& to) {
    a.out = to.tensor(c.act);
    if (c.residual) a.residual = c.in_place ? a.out : d_residual.tensor(c.act);
    if (c.in_place)
      CUDA_CHECK(cudaMemcpyAsync(to.data, d_residual.data, d_residual.bytes, cudaMemcpyDefault, device.stream));
    device.run(a);
  };
  run_to(out);
  run_to(again);
  // the last row among other neighbours (how many they are may choose another kernel)
  std::vector<float> other = x;
  for (size_t i = 0; i < static_cast<size_t>(c.rows - 1) * c.k; ++i)
    other[i] = rounded(c.act, c.x_scale * random.normal() * 4);
  Buffer d_other(encode(c.act, other));
  a.x = d_other.tensor(c.act);
  run_to(changed);
  device.wait();
  // int8 rows: the same bits whatever their number, up to 16
  bool as_in_batch = true;
  if (c.rows <= 8 && c.parts[0].kind == WeightKind::int8 && c.act != DType::f32) {
    std::vector<float> more = x, more_residual = residual;
    for (size_t i = more.size(); i < static_cast<size_t>(10) * c.k; ++i)
      more.push_back(rounded(c.act, random.normal()));
    more_residual.resize(10 * columns);
    Buffer d_more(encode(c.act, more)), d_more_residual(encode(c.act, more_residual)),
        batch(more_residual.size() * size_of(c.act));
    a.x = d_more.tensor(c.act), a.out = batch.tensor(c.act), a.rows = 10;
    if (c.residual) a.residual = d_more_residual.tensor(c.act);
    device.run(a);
    device.wait();
    const std::vector<uint8_t> own = out.read<uint8_t>(), all = batch.read<uint8_t>();
    as_in_batch = std::equal(own.begin(), own.end(), all.begin());
  }
  // and as from a launch that quantizes. Outliers are added in another order there: where x has one, W is 0
  if (c.rows <= 16 && c.act != DType::f32 &&
      std::all_of(c.parts.begin(), c.parts.end(), [](const PartCase& p) { return p.kind == WeightKind::int8; })) {
    std::vector<std::unique_ptr<Buffer>> weights;
    for (size_t i = 0; i < parts.size(); ++i) {
      std::vector<int8_t> w(parts[i].codes.begin(), parts[i].codes.end());
      for (size_t j = 0; j < x.size(); ++j) {
        if (c.parts[i].threshold <= 0 || std::fabs(x[j]) < c.parts[i].threshold) continue;
        for (int n = 0; n < c.parts[i].n; ++n) w[static_cast<size_t>(n) * c.k + j % c.k] = 0;
      }
      weights.push_back(std::make_unique<Buffer>(w));
      a.parts[i].weight = weights[i]->tensor(DType::i8);
    }
    Buffer here(out.bytes), apart(out.bytes);
    a.x = d_x.tensor(c.act), a.rows = c.rows;
    if (c.residual) a.residual = d_residual.tensor(c.act);
    a.out = here.tensor(c.act);
    device.run(a);
    unsigned* counters = std::exchange(device.context.counters, nullptr);
    a.out = apart.tensor(c.act);
    device.run(a);
    device.wait();
    device.context.counters = counters;
    as_in_batch = as_in_batch && here.read<uint8_t>() == apart.read<uint8_t>();
  }
  const std::vector<uint8_t> first = out.read<uint8_t>(), beside_others = changed.read<uint8_t>();
  const std::vector<float> y = decode(c.act, first);
  const bool same = first == again.read<uint8_t>();
  const int64_t last_row = static_cast<int64_t>(columns * size_of(c.act));
  const bool independent = std::equal(first.end() - last_row, first.end(), beside_others.end() - last_row);
  std::vector<double> want(y.size());
  int64_t before = 0;
  for (size_t i = 0; i < (c.gated ? 1 : c.parts.size()); before += c.parts[i++].n) {
    parallel_for(c.parts[i].n, [&](int n) {
      for (int m = 0; m < c.rows; ++m) {
        const auto part = [&](size_t j) {
          return product(c.parts[j], parts[j], n, &x[static_cast<size_t>(m) * c.k], c.k, c.act) +
                 (c.parts[j].bias ? parts[j].bias[n] : 0.f);
        };
        const int64_t at = m * columns + before + n;
        want[at] = reference_activation(c.activation, part(i));
        if (c.gated) want[at] *= part(1);
        if (c.residual) want[at] += residual[at];
      }
    });
  }
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) difference += (y[i] - want[i]) * (y[i] - want[i]), norm += want[i] * want[i];
  const double error = std::sqrt(difference / norm);
  double limit = c.act == DType::f32 ? 2e-6 : c.act == DType::f16 ? 1e-3 : 5e-3;
  for (const PartCase& p : c.parts)
    if (p.kind == WeightKind::int8)
      limit = std::max(limit, c.act == DType::f32 ? 2e-3 : 2e-3);
    else if (p.kind == WeightKind::bnb4 && p.compute == DType::bf16)
      limit = std::max(limit, 5e-3);
  report(error <= limit && same && independent && as_in_batch && out.guard_intact(),
         name(c) + (same ? "" : " NOT REPEATABLE") + (independent ? "" : " DEPENDS ON NEIGHBOURS") +
             (as_in_batch ? "" : " OTHER BITS THAN IN A BATCH") + (out.guard_intact() ? "" : " WROTE BEYOND"),
         error, limit);
}

void sweep(Device& device) {
  Random random{1};
  std::vector<Case> cases;
  const auto acts = {DType::f16, DType::bf16};
  for (DType act : acts) {
    for (int rows : {1, 2, 5, 8, 9, 16, 17, 31, 40}) {
      for (int k : {64, 192, 1088, 4160}) {
        const int n = k == 4160 ? 150 : 333;
        cases.push_back({act, rows, k, {{WeightKind::dense, n, act}}});
        cases.push_back({act, rows, k, {{WeightKind::bnb4, n, act, QuantType::nf4, false, 64, 0, true, act}}});
        cases.push_back({act, rows, k, {{WeightKind::bnb4, n, act, QuantType::fp4, true, 64, 0, false, DType::f32}}});
        cases.push_back({act, rows, k, {{WeightKind::int8, n, act, QuantType::nf4, false, 64, 6.f}}});
      }
    }
    for (int rows : {1, 7, 16, 33}) {
      for (WeightKind kind : {WeightKind::dense, WeightKind::bnb4, WeightKind::int8}) {
        const PartCase gate{kind, 517, act, QuantType::nf4, true, 64, 3.f, true, act};
        PartCase q = gate, k = gate, v = gate;
        q.n = 256, k.n = 33, v.n = 65;
        cases.push_back({act, rows, 2112, {gate, gate}, ActivationKind::silu, true, false});
        cases.push_back({act, rows, 1024, {gate, gate}, ActivationKind::gelu_tanh, true, true});
        cases.push_back({act, rows, 768, {q, k, v}, ActivationKind::none, false, false});
        cases.push_back({act, rows, 1024, {q, k, v, k}, ActivationKind::relu, false, true});
      }
    }
    for (int block : {128, 256, 1024, 4096}) {
      for (bool nested : {false, true}) {
        cases.push_back({act, 1, 1728, {{WeightKind::bnb4, 700, act, QuantType::nf4, nested, block, 0, true, act}}});
        cases.push_back({act, 12, 1728, {{WeightKind::bnb4, 700, act, QuantType::fp4, nested, block, 0, true, act}}});
      }
    }
    // one row: too short for row4; then a warp's part of k as long as one chunk of 512 and longer
    for (int k : {128, 384, 512, 640, 1152, 4096, 11008}) {
      for (bool nested : {false, true}) {
        cases.push_back(
            {act, 1, k, {{WeightKind::bnb4, k > 2000 ? 77 : 2003, act, QuantType::nf4, nested, 64, 0, true, act}}});
        cases.push_back({act, 1, k, {{WeightKind::bnb4, 1, act, QuantType::fp4, nested, 64, 0, false, act}}});
      }
    }
    // 2 to 16 rows, the same for batch4 and its chunks of 256 and 512
    for (int k : {512, 640, 1152, 4096, 11008}) {
      for (bool nested : {false, true}) {
        for (int rows : {2, 5, 8, 9, 14, 16})
          cases.push_back({act,
                           rows,
                           k,
                           {{WeightKind::bnb4, k > 2000 ? 77 : 2003, act, QuantType::nf4, nested, 64, 0, true, act}},
                           ActivationKind::none,
                           false,
                           true});
        cases.push_back({act, 13, k, {{WeightKind::bnb4, 1, act, QuantType::fp4, nested, 64, 0, false, act}}});
      }
    }
    // int8, rows that blocks quantize for themselves: a row's values in registers or read again, an odd number of
    // slices, many outliers
    for (int rows : {2, 3, 4, 7, 13, 16}) {
      for (int k : {64, 1088, 4096, 7168}) {
        for (float threshold : {0.f, 1.5f, 3.f})
          cases.push_back({act,
                           rows,
                           k,
                           {{WeightKind::int8, 300, act, QuantType::nf4, false, 64, threshold}},
                           ActivationKind::none,
                           false,
                           true});
      }
    }
    // several groups of rows for a block; and parts, gated
    for (int rows : {6, 16}) {
      cases.push_back({act, rows, 512, {{WeightKind::bnb4, 75011, act, QuantType::nf4, true, 64, 0, true, act}}});
      cases.push_back({act, rows, 256, {{WeightKind::int8, 75011, act, QuantType::nf4, false, 64, 3.f}}});
      for (bool nested : {false, true}) {
        const PartCase part{WeightKind::bnb4, 517, act, QuantType::nf4, nested, 64, 0, true, act};
        cases.push_back({act, rows, 1024, {part, part}, ActivationKind::silu, true});
        cases.push_back({act, rows, 1024, {part, part, part}});
      }
    }
    cases.push_back({act,
                     4,
                     4096,
                     {{WeightKind::int8, 14001, act, QuantType::nf4, false, 64, 3.f},
                      {WeightKind::int8, 14001, act, QuantType::nf4, false, 64, 3.f}},
                     ActivationKind::silu,
                     true});
    cases.push_back({act, 1, 128, {{WeightKind::bnb4, 75011, act, QuantType::nf4, true, 64, 0, true, act}}});
    cases.push_back({act, 1, 64, {{WeightKind::bnb4, 26111, act, QuantType::nf4, true, 64, 0, true, act}}});
    cases.push_back({act, 3, 128, {{WeightKind::dense, 26111, act}}});
    cases.push_back(
        {act, 9, 64, {{WeightKind::int8, 14001, act}, {WeightKind::int8, 14001, act}}, ActivationKind::silu, true});
    // every outlier, no outlier
    for (float threshold : {0.f, 0.01f, 1e9f})
      for (int rows : {1, 6})
        cases.push_back({act, rows, 1088, {{WeightKind::int8, 100, act, QuantType::nf4, false, 64, threshold}}});
    for (float threshold : {0.f, 1.5f})
      for (int rows : {1, 6})
        cases.push_back({act, rows, 14400, {{WeightKind::int8, 70, act, QuantType::nf4, false, 64, threshold}}});
  }
  // dense weights in another dtype: streamed in f32, otherwise rounded, and as they are where f16 does not hold them
  for (DType act : {DType::f16, DType::bf16}) {
    for (DType weight : {DType::f32, act == DType::f16 ? DType::bf16 : DType::f16}) {
      const PartCase w{WeightKind::dense, 333, weight}, gate{WeightKind::dense, 128, weight};
      for (int rows : {1, 3, 8, 9, 16, 17, 40, 300}) {
        for (int k : {64, 192, 320, 1088, 4096}) cases.push_back({act, rows, k, {w}});
        cases.push_back({act, rows, 512, {gate, gate}, ActivationKind::silu, true, true});
        cases.push_back({act, rows, 512, {gate, gate}, ActivationKind::gelu_tanh, true, true, 1, rows > 16});
        cases.push_back({act, rows, 1000, {gate, w, gate}, ActivationKind::gelu, false, true});
        cases.push_back({act, rows, 1024, {gate, w, gate}, ActivationKind::relu, false, true, 1, true});
        if (weight == DType::f16) continue;
        PartCase far = gate;
        far.far = 98304;
        for (bool in_place : {false, true}) {
          cases.push_back({act, rows, 1024, {far}, ActivationKind::none, false, true, 1e-3f, in_place});
          cases.push_back({act, rows, 1024, {far, gate}, ActivationKind::silu, true, true, 1e-3f, in_place});
          cases.push_back({act, rows, 1000, {gate, far}, ActivationKind::gelu, false, true, 1e-3f, in_place});
        }
      }
      for (int rows : {1, 8}) cases.push_back({act, rows, 65536, {{WeightKind::dense, 24, weight}}});
    }
  }
  // what only the simple kernel takes
  for (DType act : {DType::f32, DType::f16, DType::bf16}) {
    for (int rows : {1, 5}) {
      for (int k : {70, 71, 129, 264}) {
        cases.push_back({act, rows, k, {{WeightKind::dense, 37, DType::f32}}});
        cases.push_back({act, rows, k, {{WeightKind::dense, 37, DType::bf16}}});
        cases.push_back({act, rows, k, {{WeightKind::bnb4, 37, act, QuantType::fp4, true, 64, 0, true, DType::f32}}});
        cases.push_back({act, rows, k, {{WeightKind::int8, 37, act, QuantType::nf4, false, 64, 1.5f}}});
      }
      const PartCase dense{WeightKind::dense, 64, DType::f32},
          nf4{WeightKind::bnb4, 64, act, QuantType::nf4, false, 128, 0, true, DType::f32},
          int8{WeightKind::int8, 64, act};
      cases.push_back({act, rows, 320, {dense, nf4, int8, nf4}, ActivationKind::gelu});
      cases.push_back({act, rows, 320, {nf4, int8}, ActivationKind::quick_gelu, true});
    }
  }
  cases.push_back(
      {DType::f32, 3, 512, {{WeightKind::bnb4, 64, DType::f32, QuantType::nf4, false, 64, 0, true, DType::bf16}}});
  for (const Case& c : cases) check_case(device, c, random);

  // a device with 99 KiB of shared memory a block (sm_86, sm_89, sm_120)
  const size_t shared = device.context.shared_bytes_per_block;
  device.context.shared_bytes_per_block = 99 * 1024;
  for (int rows : {1, 3, 12, 20}) {
    for (int k : {320, 1024, 4096, 28672}) {
      if (k == 28672 && rows > 3) continue;
      for (WeightKind kind : {WeightKind::dense, WeightKind::bnb4, WeightKind::int8})
        check_case(device,
                   {DType::f16,
                    rows,
                    k,
                    {{kind, k == 28672 ? 203 : 2003, DType::f16, QuantType::nf4, true, 64, 3.f}},
                    ActivationKind::none,
                    false,
                    true},
                   random);
    }
  }
  check_case(device, {DType::f16, 1, 1024, {{WeightKind::bnb4, 26111, DType::f16, QuantType::nf4, true, 64}}}, random);
  device.context.shared_bytes_per_block = shared;
  std::printf("%zu cases, %d failures\n", cases.size(), g_failures);
}

double relative(const std::vector<float>& got, const std::vector<float>& want) {
  double d = 0, n = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    d += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
    n += static_cast<double>(want[i]) * want[i];
  }
  return std::sqrt(d / n);
}

const std::pair<const char*, DType> kDtypes[] = {
    {"float32", DType::f32}, {"float16", DType::f16}, {"bfloat16", DType::bf16}};

/// x @ dequant(W)^T + bias with double quantization, quantized here by our own commands.
void golden_matmul_4bit(Device& device, const std::string& directory) {
  const auto blockwise = read_safetensors(directory + "/blockwise_4bit.safetensors");
  const auto t = read_safetensors(directory + "/matmul_4bit.safetensors");
  const std::vector<float> weight = t.at("weight").as<float>(), bias = t.at("bias").as<float>();
  const int64_t n = t.at("weight").shape[0], k = t.at("weight").shape[1], blocks = n * k / 64;
  Buffer code(blockwise.at("nested_code").as<float>());
  for (const char* type : {"nf4", "fp4"}) {
    for (const auto& [dname, dtype] : kDtypes) {
      Buffer w(encode(dtype, weight)), b(encode(dtype, bias)), packed(n * k / 2), absmax(blocks * 4),
          nested((blocks + 255) / 256 * 4), codes(blocks), offset(4);
      Quantize4bitArgs q{w.tensor(dtype),       packed.tensor(DType::u8), absmax.tensor(DType::f32), n * k, 64,
                         type[0] == 'n' ? 0 : 1};
      device.run(q);
      QuantizeAbsmaxArgs qa{absmax.tensor(DType::f32),
                            codes.tensor(DType::u8),
                            nested.tensor(DType::f32),
                            code.tensor(DType::f32),
                            offset.tensor(DType::f32),
                            blocks,
                            256};
      device.run(qa);
      for (int m : {1, 2, 3, 7, 16, 65}) {
        const std::string key = std::string(type) + "." + dname + ".m" + std::to_string(m);
        Buffer x(t.at(key + ".x").bytes), y(m * n * size_of(dtype));
        LinearArgs a{};
        a.x = x.tensor(dtype), a.out = y.tensor(dtype), a.rows = m, a.k = k, a.parts_count = 1;
        a.parts[0] = {static_cast<int>(WeightKind::bnb4),
                      n,
                      packed.tensor(DType::u8),
                      b.tensor(dtype),
                      codes.tensor(DType::u8),
                      nested.tensor(DType::f32),
                      code.tensor(DType::f32),
                      offset.tensor(DType::f32),
                      64,
                      256,
                      q.quant_type,
                      static_cast<int>(dtype),
                      0};
        device.run(a);
        device.wait();
        const double limit = dtype == DType::f32 ? 1e-6 : dtype == DType::f16 ? 2e-3 : 1e-2;
        const double error = relative(decode(dtype, y.read<uint8_t>()), decode(dtype, t.at(key + ".y").bytes));
        report(error <= limit, "golden matmul_4bit " + key, error, limit);
        std::printf("golden matmul_4bit %s: %.3g of %.3g\n", key.c_str(), error, limit);
      }
    }
  }
}

void golden_llm_int8(Device& device, const std::string& directory) {
  const auto t = read_safetensors(directory + "/llm_int8.safetensors");
  const int64_t n = t.at("weight").shape[0], k = t.at("weight").shape[1], rows = t.at("x").count() / k;
  Buffer w(t.at("weight").bytes), bias(t.at("bias").bytes), x(t.at("x").bytes), cb(n * k), scb(n * 4);
  device.run(QuantizeInt8Args{w.tensor(DType::f16), cb.tensor(DType::i8), scb.tensor(DType::f32), n, k});
  device.wait();
  report(cb.read<uint8_t>() == t.at("weight.CB").bytes, "golden CB", 0, 0);
  report(scb.read<uint8_t>() == t.at("weight.SCB").bytes, "golden SCB", 0, 0);
  for (const char* key : {"t0", "t3", "t6", "t10"}) {
    Buffer y(rows * n * 2);
    LinearArgs a{};
    a.x = x.tensor(DType::f16), a.out = y.tensor(DType::f16), a.rows = rows, a.k = k, a.parts_count = 1;
    a.parts[0].kind = static_cast<int>(WeightKind::int8), a.parts[0].n = n, a.parts[0].weight = cb.tensor(DType::i8),
    a.parts[0].bias = bias.tensor(DType::f16);
    a.parts[0].absmax = scb.tensor(DType::f32), a.parts[0].threshold = std::atof(key + 1);
    device.run(a);
    device.wait();
    const double error =
        relative(decode(DType::f16, y.read<uint8_t>()), decode(DType::f16, t.at(std::string(key) + ".y").bytes));
    report(error <= 2e-3, std::string("golden llm_int8 ") + key, error, 2e-3);
    std::printf("golden llm_int8 %s: %.3g of 2e-3\n", key, error);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Device device;
    sweep(device);
    for (int i = 1; i + 1 < argc; ++i) {
      if (std::string(argv[i]) != "--goldens") continue;
      golden_matmul_4bit(device, argv[i + 1]);
      golden_llm_int8(device, argv[i + 1]);
    }
  } catch (const std::exception& e) {
    std::printf("FAIL %s\n", e.what());
    return 1;
  }
  std::printf("linear: %d failures\n", g_failures);
  return g_failures != 0;
}
