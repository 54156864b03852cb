// Everything but attention against float64 loops: odd sizes, tails, aliasing, poisoned outputs, bad indices.
#include "harness.h"

using namespace q;
using namespace q::test;

namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

char label[256];
template <class... A>
const char* text(const char* format, A... a) {
  std::snprintf(label, sizeof label, format, a...);
  return label;
}

double activation(int kind, double x) {
  switch (static_cast<ActivationKind>(kind)) {
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

void memory(Bench& bench) {
  for (DType t : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64, DType::u8, DType::i8}) {
    for (size_t n : {1, 3, 17, 1000, 70001}) {
      Array out(t, n);
      bench(FillArgs{out.tensor, 5});
      bench.sync();
      std::vector<double> want(n, 5);
      compare(out.download(), want, 0, text("fill dtype %d x %zu", int(t), n));
    }
  }
  Array big(DType::u8, 100);
  Tensor view = big.tensor;
  view.data = static_cast<char*>(view.data) + 3;
  view.bytes = 50;
  CUDA_OK(cudaMemset(big.tensor.data, 1, 100));
  bench(FillArgs{view, 9});
  bench.sync();
  std::vector<double> want(100, 1);
  std::fill(want.begin() + 3, want.begin() + 53, 9);
  compare(big.download(), want, 0, "fill of an unaligned view");
  for (DType x : kFloats) {
    for (DType y : kFloats) {
      for (size_t n : {1, 5, 1023, 40000}) {
        Array in(x, n, [](size_t) { return 100 * normal(); }), out(y, n);
        bench(CastArgs{in.tensor, out.tensor});
        bench.sync();
        std::vector<double> want(n);
        for (size_t i = 0; i < n; ++i) want[i] = rounded(float(in.host[i]), y);
        compare(out.download(), want, 0, text("cast %s to %s x %zu", name_of(x), name_of(y), n));
      }
    }
  }
  Array longs(DType::i64, 100, [](size_t i) { return double(i) * 7 - 300; }), ints(DType::i32, 100);
  bench(CastArgs{longs.tensor, ints.tensor});
  bench.sync();
  compare(ints.download(), longs.host, 0, "cast i64 to i32");
  for (size_t n : {1, 7, 4096, 3000000}) {
    Array in(DType::f32, n, [](size_t) { return normal(); }), out(DType::f32, n);
    bench(CopyArgs{in.tensor, out.tensor});
    bench.sync();
    compare(out.download(), in.host, 0, text("copy x %zu", n));
  }
  for (DType t : kFloats) {
    for (int kind : {0, 1}) {
      Array out(t, 100001), again(t, 100001);
      RandomArgs a{};
      a.out = out.tensor;
      a.kind = kind;
      a.scale = 0.5;
      a.seed = 0x123456789ab;
      bench(a);
      a.out = again.tensor;
      bench(a);
      bench.sync();
      const auto v = out.download();
      expect(v == again.download(), "random %s is not the same for one seed", name_of(t));
      double mean = 0, square = 0, most = 0;
      for (double x : v) mean += x, square += x * x, most = std::max(most, std::fabs(x));
      mean /= v.size();
      square /= v.size();
      const double variance = kind == 0 ? 0.25 : 0.25 / 3;
      expect(std::fabs(mean) < 0.01 && std::fabs(square / variance - 1) < 0.03 && (kind == 0 || most <= 0.5),
             "random %s kind %d: mean %g variance %g most %g", name_of(t), kind, mean, square, most);
    }
  }
  Array bits(DType::u8, 100003);
  RandomArgs a{};
  a.out = bits.tensor;
  a.kind = 2;
  a.seed = 4;
  bench(a);
  bench.sync();
  double mean = 0;
  for (double x : bits.download()) mean += x / 100003;
  expect(std::fabs(mean - 127.5) < 1.5, "random bits: mean %g", mean);
}

void rows(Bench& bench) {
  for (DType w : kFloats) {
    for (DType t : kFloats) {
      for (int width : {1, 33, 64, 4096}) {
        Array table(w, size_t(50) * width, [](size_t) { return normal(); });
        Array ids(DType::i32, 7, [](size_t i) { return double((i * 13) % 50); }), out(t, size_t(7) * width);
        EmbeddingArgs a{table.tensor, ids.tensor, out.tensor, 7, width, 50, 1.5};
        bench(a);
        bench.sync();
        std::vector<double> want(size_t(7) * width);
        for (int i = 0; i < 7 * width; ++i) want[i] = 1.5 * table.host[size_t(ids.host[i / width]) * width + i % width];
        compare(out.download(), want, bound(t), text("embedding %s to %s width %d", name_of(w), name_of(t), width));
      }
    }
  }
  Array table(DType::f32, 40, [](size_t) { return 1.0; }), ids(DType::i32, 2, [](size_t i) { return i ? 10.0 : 3.0; }),
      out(DType::f32, 8);
  bench(EmbeddingArgs{table.tensor, ids.tensor, out.tensor, 2, 4, 10, 1});
  bench.sync();
  expect(bench.error->command == 1 + int(Command::embedding) && bench.error->value == 10 && bench.error->limit == 10,
         "embedding does not report a bad id");
  *bench.error = {};
  for (DType t : {DType::f32, DType::f16, DType::u8, DType::i64}) {
    for (int width : {1, 6, 16, 130}) {
      Array x(t, size_t(20) * width, [](size_t i) { return double(i % 100); });
      Array index(DType::i32, 5, [](size_t i) { return double((i * 7 + 3) % 20); });
      Array out(t, size_t(5) * width), back(t, size_t(20) * width, [](size_t) { return 1.0; });
      bench(SelectRowsArgs{x.tensor, index.tensor, out.tensor, 5, width});
      bench(ScatterRowsArgs{out.tensor, index.tensor, back.tensor, 5, width});
      bench.sync();
      std::vector<double> want, want_back(size_t(20) * width, 1);
      for (int i = 0; i < 5; ++i) {
        for (int j = 0; j < width; ++j) {
          want.push_back(x.host[size_t(index.host[i]) * width + j]);
          want_back[size_t(index.host[i]) * width + j] = want.back();
        }
      }
      compare(out.download(), want, 0, text("selectRows dtype %d width %d", int(t), width));
      compare(back.download(), want_back, 0, text("scatterRows dtype %d width %d", int(t), width));
    }
  }
}

void norms(Bench& bench) {
  for (DType t : kFloats) {
    for (DType w : {t, DType::f32}) {
      for (int width : {1, 7, 64, 100, 768, 4096, 5000, 5120, 11008, 20000}) {
        for (int residual : {0, 1}) {
          const int n = 3;
          Array x(t, size_t(n) * width, [](size_t i) { return normal() + (i % 3); }),
              r(t, size_t(n) * width, [](size_t) { return normal(); });
          Array weight(w, width, [](size_t) { return normal(); }), bias(w, width, [](size_t) { return normal(); });
          Array out(t, size_t(n) * width), out2(t, size_t(n) * width), sum(t, size_t(n) * width);
          std::vector<double> v(size_t(n) * width), want(v.size()), want2(v.size());
          for (size_t i = 0; i < v.size(); ++i) v[i] = residual ? rounded(float(x.host[i] + r.host[i]), t) : x.host[i];
          for (int i = 0; i < n; ++i) {
            double square = 0, mean = 0, variance = 0;
            for (int j = 0; j < width; ++j)
              square += v[size_t(i) * width + j] * v[size_t(i) * width + j] / width,
                  mean += v[size_t(i) * width + j] / width;
            for (int j = 0; j < width; ++j) variance += std::pow(v[size_t(i) * width + j] - mean, 2) / width;
            for (int j = 0; j < width; ++j) {
              want[size_t(i) * width + j] = v[size_t(i) * width + j] / std::sqrt(square + 1e-5) * (weight.host[j] + 1);
              want2[size_t(i) * width + j] =
                  (v[size_t(i) * width + j] - mean) / std::sqrt(variance + 1e-5) * weight.host[j] + bias.host[j];
            }
          }
          RmsNormArgs a{};
          a.x = x.tensor;
          if (residual) a.residual = r.tensor, a.sum = sum.tensor;
          a.weight = weight.tensor;
          a.out = out.tensor;
          a.rows = n;
          a.width = width;
          a.eps = 1e-5;
          a.weight_offset = 1;
          bench(a);
          bench.sync();
          compare(out.download(), want, bound(t),
                  text("rmsNorm %s weight %s width %d residual %d", name_of(t), name_of(w), width, residual));
          if (residual) compare(sum.download(), v, 0, "the sum of a norm");
          LayerNormArgs l{};
          l.x = x.tensor;
          if (residual) l.residual = r.tensor, l.sum = x.tensor;
          l.weight = weight.tensor;
          l.bias = bias.tensor;
          l.out = out2.tensor;
          l.rows = n;
          l.width = width;
          l.eps = 1e-5;
          bench(l);
          bench.sync();
          compare(out2.download(), want2, width == 1 ? 1 : bound(t),
                  text("layerNorm %s weight %s width %d residual %d", name_of(t), name_of(w), width, residual));
          if (residual) compare(x.download(), v, 0, "the sum of a norm, over x");
        }
      }
    }
  }
}

void elementwise(Bench& bench) {
  for (DType t : kFloats) {
    for (int width : {1, 31, 64, 1001}) {
      const int n = 5, count = n * width;
      Array x(t, size_t(2) * count, [](size_t) { return 3 * normal(); }), b(t, count, [](size_t) { return normal(); }),
          out(t, count);
      for (int kind = 0; kind < 8; ++kind) {
        std::vector<double> want(count), gated(count);
        for (int i = 0; i < count; ++i) {
          want[i] = activation(kind, x.host[i]);
          gated[i] = activation(kind, x.host[i / width * 2 * width + i % width]) *
                     x.host[i / width * 2 * width + width + i % width];
        }
        bench(ActivationArgs{x.tensor, out.tensor, count, kind});
        bench.sync();
        compare(out.download(), want, bound(t), text("activation %d %s x %d", kind, name_of(t), count));
        CUDA_OK(cudaMemset(out.tensor.data, 0xff, out.tensor.bytes));
        bench(GatedActivationArgs{x.tensor, out.tensor, n, width, kind});
        bench.sync();
        compare(out.download(), gated, bound(t), text("gatedActivation %d %s width %d", kind, name_of(t), width));
      }
      std::vector<double> sum(count), scaled(count), capped(count), soft(count);
      for (int i = 0; i < count; ++i) {
        sum[i] = x.host[i] + b.host[i];
        scaled[i] = x.host[i] * 0.3;
        capped[i] = 2 * std::tanh(x.host[i] * 0.3 / 2);
      }
      for (int i = 0; i < n; ++i) {
        double total = 0;
        for (int j = 0; j < width; ++j) total += std::exp(x.host[size_t(i) * width + j]);
        for (int j = 0; j < width; ++j) soft[size_t(i) * width + j] = std::exp(x.host[size_t(i) * width + j]) / total;
      }
      bench(AddArgs{x.tensor, b.tensor, out.tensor, count});
      bench.sync();
      compare(out.download(), sum, bound(t), text("add %s", name_of(t)));
      bench(ScaleArgs{x.tensor, out.tensor, count, 0.3, 0});
      bench.sync();
      compare(out.download(), scaled, bound(t), text("scale %s", name_of(t)));
      bench(ScaleArgs{x.tensor, out.tensor, count, 0.3, 2});
      bench.sync();
      compare(out.download(), capped, bound(t), text("scale with softcap %s", name_of(t)));
      bench(SoftmaxArgs{x.tensor, out.tensor, n, width});
      bench.sync();
      compare(out.download(), soft, bound(t), text("softmax %s width %d", name_of(t), width));
      Array targets(DType::i32, n, [&](size_t i) { return i == 1 ? -100.0 : double(i * 7 % width); }),
          loss(DType::f32, n), best(DType::i32, n);
      bench(CrossEntropyArgs{x.tensor, targets.tensor, loss.tensor, n, width});
      bench(ArgmaxArgs{x.tensor, best.tensor, n, width});
      bench.sync();
      std::vector<double> want(n), want_best(n);
      for (int i = 0; i < n; ++i) {
        want[i] = i == 1 ? 0 : -std::log(soft[size_t(i) * width + size_t(targets.host[i])]);
        for (int j = 1; j < width; ++j) {
          if (x.host[size_t(i) * width + j] > x.host[size_t(i) * width + size_t(want_best[i])]) want_best[i] = j;
        }
      }
      if (width > 1) compare(loss.download(), want, 2e-6, text("crossEntropy %s width %d", name_of(t), width));
      compare(best.download(), want_best, 0, text("argmax %s width %d", name_of(t), width));
    }
  }
}

uint32_t philox_first(uint32_t counter, uint32_t low, uint32_t high) {
  uint32_t c[4] = {counter, 0, 0, 0}, k[2] = {low, high};
  for (int r = 0; r < 10; ++r) {
    const uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const uint32_t n[4] = {uint32_t(b >> 32) ^ c[1] ^ k[0], uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k[1], uint32_t(a)};
    std::copy(n, n + 4, c);
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[0];
}

struct Request {
  double temperature, top_p, min_p, penalty;
  int sampling, top_k;
};

int sample_reference(std::vector<double> x, const Request& r, const std::vector<int>& history, uint32_t word) {
  const std::vector<double> original = x;
  for (int id : history) x[id] = original[id] < 0 ? original[id] * r.penalty : original[id] / r.penalty;
  const auto best = std::max_element(x.begin(), x.end()) - x.begin();
  if (!r.sampling) return int(best);
  for (double& v : x) v = float(float(v) / float(r.temperature));
  const double top = x[best];
  std::vector<double> sorted = x;
  std::sort(sorted.begin(), sorted.end(), std::greater<double>());
  double floor = -INFINITY;
  if (r.top_k > 0 && r.top_k < int(x.size())) floor = sorted[r.top_k - 1];
  if (r.top_p < 1) {
    double total = 0, above = 0;
    for (double v : sorted) total += v >= floor ? std::exp(v - top) : 0;
    for (size_t i = 0; i < sorted.size() && sorted[i] >= floor;) {
      if (above >= float(r.top_p) * total) {
        floor = sorted[i - 1];
        break;
      }
      const double value = sorted[i];
      while (i < sorted.size() && sorted[i] == value) above += std::exp(value - top), ++i;
    }
  }
  if (r.min_p > 0) floor = std::max(floor, double(float(top) + logf(float(r.min_p))));
  double total = 0, sum = 0;
  for (double v : x) total += v >= floor ? std::exp(v - top) : 0;
  const double u = (word + 0.5) / 4294967296.0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += x[i] >= floor ? std::exp(x[i] - top) : 0;
    if (sum > u * total) return int(i);
  }
  return int(best);
}

void sampling(Bench& bench) {
  const std::vector<Request> requests{{1, 1, 0, 1, 0, 0},      {1, 1, 0, 1.3, 0, 0},     {1, 1, 0, 1, 1, 0},
                                      {0.7, 1, 0, 1, 1, 0},    {1, 1, 0, 1, 1, 10},      {1.5, 0.9, 0, 1, 1, 0},
                                      {1, 0.5, 0, 1.2, 1, 40}, {0.8, 1, 0.1, 1, 1, 0},   {2, 0.95, 0.02, 1.1, 1, 100},
                                      {1, 0.01, 0, 1, 1, 0},   {0.05, 0.9, 0, 1, 1, 50}, {1, 1, 0, 1, 1, 1}};
  int different = 0, drawn = 0;
  for (DType t : kFloats) {
    for (int width : {5, 1000, 32003}) {
      for (int repeat = 0; repeat < 6; ++repeat) {
        const int n = int(requests.size()), capacity = 20;
        Array logits(t, size_t(n) * width, [](size_t) { return 3 * normal(); }), out(DType::i32, n);
        Array floats(DType::f32, size_t(n) * 4, [&](size_t i) {
          const Request& r = requests[i / 4];
          return i % 4 == 0 ? r.temperature : i % 4 == 1 ? r.top_p : i % 4 == 2 ? r.min_p : r.penalty;
        });
        Array ints(DType::i32, size_t(n) * 4, [&](size_t i) {
          return double(i % 4 == 0   ? requests[i / 4].sampling
                        : i % 4 == 1 ? requests[i / 4].top_k
                        : i % 4 == 2 ? 77 + int(i)
                                     : 5);
        });
        Array counters(DType::i32, n, [&](size_t i) { return double(repeat * 3 + i); });
        Array history(DType::i32, size_t(n) * capacity, [&](size_t) { return double(below(width)); });
        Array lengths(DType::i32, n, [](size_t i) { return double(i % 21); });
        SampleArgs a{logits.tensor,  out.tensor, floats.tensor, ints.tensor, counters.tensor, history.tensor,
                     lengths.tensor, n,          width,         capacity};
        bench(a);
        bench.sync();
        const auto got = out.download();
        for (int i = 0; i < n; ++i) {
          const std::vector<double> row(logits.host.begin() + size_t(i) * width,
                                        logits.host.begin() + size_t(i + 1) * width);
          std::vector<int> ids;
          for (int j = 0; j < int(lengths.host[i]); ++j) ids.push_back(int(history.host[size_t(i) * capacity + j]));
          const uint32_t word = philox_first(uint32_t(counters.host[i]), uint32_t(ints.host[size_t(i) * 4 + 2]), 5);
          const int want = sample_reference(row, requests[i], ids, word);
          ++drawn;
          if (int(got[i]) != want) {
            ++different;
            if (different < 10)
              std::printf("sample %s width %d request %d: got %d want %d\n", name_of(t), width, i, int(got[i]), want);
          }
        }
      }
    }
  }
  // A draw may fall within f32 rounding of a boundary of the cumulative sum: about one in 10^5.
  expect(different <= 1, "sample: %d of %d draws differ", different, drawn);

  Array sampled(DType::i32, 2, [](size_t i) { return double(40 + i); }), ids(DType::i32, 2),
      positions(DType::i32, 2, [](size_t) { return 7.0; });
  Array contexts(DType::i32, 2, [](size_t) { return 8.0; }), counters(DType::i32, 2, [](size_t) { return 0.0; });
  Array history(DType::i32, 6, [](size_t) { return -1.0; }),
      lengths(DType::i32, 2, [](size_t i) { return i ? 3.0 : 1.0; });
  bench(AdvanceArgs{sampled.tensor, ids.tensor, positions.tensor, contexts.tensor, counters.tensor, history.tensor,
                    lengths.tensor, 2, 3});
  bench.sync();
  compare(ids.download(), {40, 41}, 0, "advance ids");
  compare(positions.download(), {8, 8}, 0, "advance positions");
  compare(contexts.download(), {9, 9}, 0, "advance contexts");
  compare(counters.download(), {1, 1}, 0, "advance counters");
  compare(history.download(), {-1, 40, -1, -1, -1, -1}, 0, "advance history");
  compare(lengths.download(), {2, 4}, 0, "advance lengths");
}

}  // namespace

int main() {
  Bench bench;
  memory(bench);
  rows(bench);
  norms(bench);
  elementwise(bench);
  sampling(bench);
  expect(bench.error->command == 0, "a kernel reported a bad index: command %d", bench.error->command);
  return report("ops");
}
