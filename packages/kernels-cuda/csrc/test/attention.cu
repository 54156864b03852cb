// ropeKvWrite and attention against float64 loops, over head sizes, ragged batches, paging, masks and score
// modifications.
#include "harness.h"

using namespace q;
using namespace q::test;

namespace {

struct Case {
  DType act, cache;
  int dim, heads, kv_heads;
  std::vector<std::pair<int, int>> sequences;  // queries, context
  bool causal = true;
  int window = 0;
  bool alibi = false;
  int distances = 0, bias_offset = 0;  // of the distance bias; 0: none
  double softcap = 0;
  int block_size = 16;
};

struct Setup {
  const Case& k;
  int tokens = 0, most_query = 0, most_context = 0, max_blocks = 0, blocks = 0;
  int row_stride;
  std::vector<int> starts{0}, tables;
  explicit Setup(const Case& k) : k(k) {
    for (auto [q, c] : k.sequences) {
      tokens += q;
      starts.push_back(tokens);
      most_query = std::max(most_query, q);
      most_context = std::max(most_context, c);
      max_blocks = std::max(max_blocks, (c + k.block_size - 1) / k.block_size + 1);
    }
    for (auto [q, c] : k.sequences) blocks += (c + k.block_size - 1) / k.block_size;
    blocks += 3;
    std::vector<int> order(blocks);
    for (int i = 0; i < blocks; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_engine());
    int next = 0;
    tables.assign(k.sequences.size() * max_blocks, blocks - 1);
    for (size_t b = 0; b < k.sequences.size(); ++b) {
      for (int i = 0; i < (k.sequences[b].second + k.block_size - 1) / k.block_size; ++i)
        tables[b * max_blocks + i] = order[next++];
    }
    row_stride = (k.heads + 2 * k.kv_heads) * k.dim;
  }
  size_t slot(int b, int p, int g) const {
    return ((size_t(tables[b * max_blocks + p / k.block_size]) * k.kv_heads + g) * k.block_size + p % k.block_size) *
           k.dim;
  }
  size_t cache_size() const { return size_t(blocks) * k.kv_heads * k.block_size * k.dim; }
};

std::vector<double> reference(const Setup& s, const Array& qkv, const Array& keys, const Array& values,
                              const Array& slopes, const Array& bias) {
  const Case& k = s.k;
  const double scale = float(1 / std::sqrt(double(k.dim)));
  std::vector<double> out(size_t(s.tokens) * k.heads * k.dim);
  std::vector<double> w;
  for (size_t b = 0; b < k.sequences.size(); ++b) {
    const auto [length, context] = k.sequences[b];
    for (int i = 0; i < length; ++i) {
      const int query = context - length + i;
      for (int h = 0; h < k.heads; ++h) {
        const int g = h / (k.heads / k.kv_heads);
        const double* q = &qkv.host[size_t(s.starts[b] + i) * s.row_stride + size_t(h) * k.dim];
        w.assign(context, 0);
        double most = -INFINITY, total = 0;
        for (int key = 0; key < context; ++key) {
          w[key] = -INFINITY;
          if ((k.causal && key > query) || (k.window > 0 && key <= query - k.window)) continue;
          const double* kk = &keys.host[s.slot(int(b), key, g)];
          double x = 0;
          for (int d = 0; d < k.dim; ++d) x += q[d] * kk[d];
          x *= scale;
          if (k.alibi) x += slopes.host[h] * (key - query);
          if (k.distances)
            x += bias.host[size_t(std::clamp(key - query + k.bias_offset, 0, k.distances - 1)) * k.heads + h];
          if (k.softcap > 0) x = k.softcap * std::tanh(x / k.softcap);
          w[key] = x;
          most = std::max(most, x);
        }
        double* o = &out[(size_t(s.starts[b] + i) * k.heads + h) * k.dim];
        for (int key = 0; key < context; ++key) {
          const double e = std::exp(w[key] - most);
          if (e == 0) continue;
          total += e;
          const double* v = &values.host[s.slot(int(b), key, g)];
          for (int d = 0; d < k.dim; ++d) o[d] += e * v[d];
        }
        for (int d = 0; d < k.dim; ++d) o[d] /= total;
      }
    }
  }
  return out;
}

void check_case(Bench& bench, const Case& k) {
  const Setup s(k);
  char what[256];
  std::snprintf(
      what, sizeof what,
      "attention %s/%s D %d H %d/%d seqs %zu q %d ctx %d causal %d window %d alibi %d bias %d softcap %g block %d",
      name_of(k.act), name_of(k.cache), k.dim, k.heads, k.kv_heads, k.sequences.size(), s.most_query, s.most_context,
      k.causal, k.window, k.alibi, k.distances, k.softcap, k.block_size);
  Array qkv(k.act, size_t(s.tokens) * s.row_stride, [](size_t) { return 1.5 * normal(); });
  // Cache rows that belong to no position hold NaN: a kernel that lets them in shows it.
  std::vector<char> used(s.cache_size(), 0);
  for (size_t b = 0; b < k.sequences.size(); ++b) {
    for (int p = 0; p < k.sequences[b].second; ++p) {
      for (int g = 0; g < k.kv_heads; ++g) std::fill_n(used.begin() + s.slot(int(b), p, g), k.dim, 1);
    }
  }
  Array keys(k.cache, s.cache_size(), [&](size_t i) { return used[i] ? normal() : double(NAN); });
  Array values(k.cache, s.cache_size(), [&](size_t i) { return used[i] ? normal() : double(NAN); });
  Array starts(DType::i32, s.starts.size(), [&](size_t i) { return s.starts[i]; });
  Array contexts(DType::i32, k.sequences.size(), [&](size_t i) { return k.sequences[i].second; });
  Array tables(DType::i32, s.tables.size(), [&](size_t i) { return s.tables[i]; });
  Array slopes(DType::f32, k.heads, [&](size_t i) { return std::pow(2.0, -8.0 * (double(i) + 1) / k.heads); });
  Array bias(DType::f32, k.distances ? size_t(k.heads) * k.distances : 1, [](size_t) { return normal(); });
  Array out(k.act, size_t(s.tokens) * k.heads * k.dim);
  AttentionArgs a{};
  a.qkv = qkv.tensor;
  a.key_cache = keys.tensor;
  a.value_cache = values.tensor;
  a.out = out.tensor;
  a.sequence_starts = starts.tensor;
  a.context_lengths = contexts.tensor;
  a.block_tables = tables.tensor;
  if (k.alibi) a.alibi_slopes = slopes.tensor;
  if (k.distances) a.distance_bias = bias.tensor;
  a.tokens = s.tokens;
  a.sequences = int64_t(k.sequences.size());
  a.max_query = s.most_query;
  a.max_context = s.most_context;
  a.num_heads = k.heads;
  a.num_kv_heads = k.kv_heads;
  a.head_dim = a.value_dim = k.dim;
  a.scale = 1 / std::sqrt(double(k.dim));
  a.softcap = k.softcap;
  a.causal = k.causal;
  a.window = k.window;
  a.distances = k.distances;
  a.bias_offset = k.bias_offset;
  a.q_group_stride = int64_t(k.heads / k.kv_heads) * k.dim;
  a.row_stride = s.row_stride;
  a.block_size = k.block_size;
  a.max_blocks = s.max_blocks;
  bench(a);
  bench.sync();
  const auto got = out.download();
  // Weights are rounded to act before the second product, which averages to less than one rounding of the result.
  compare(got, reference(s, qkv, keys, values, slopes, bias), 2 * bound(k.act), what);

  // The same bits with a larger bound on the context, and for the last sequence alone.
  CUDA_OK(cudaMemset(out.tensor.data, 0xff, out.tensor.bytes));
  a.max_context = s.most_context + 1000;
  bench(a);
  bench.sync();
  const auto again = out.download();
  expect(std::memcmp(again.data(), got.data(), got.size() * sizeof(double)) == 0,
         "%s: other bits with a larger maxContext", what);
  const int last = int(k.sequences.size()) - 1;
  Array alone_starts(DType::i32, 2, [&](size_t i) { return s.starts[last + i]; });
  CUDA_OK(cudaMemset(out.tensor.data, 0xff, out.tensor.bytes));
  a.sequence_starts = alone_starts.tensor;
  a.context_lengths.data = static_cast<int32_t*>(contexts.tensor.data) + last;
  a.block_tables.data = static_cast<int32_t*>(tables.tensor.data) + size_t(last) * s.max_blocks;
  a.sequences = 1;
  a.max_query = k.sequences[last].first;
  a.max_context = k.sequences[last].second;
  if (k.act != DType::f32 && k.act == k.cache) {
    bench(a);
    bench.sync();
    const auto alone = out.download();
    const size_t from = size_t(s.starts[last]) * k.heads * k.dim;
    expect(std::memcmp(alone.data() + from, got.data() + from, (got.size() - from) * sizeof(double)) == 0,
           "%s: other bits without neighbours", what);
  }
}

void check_rope(Bench& bench, DType act, DType cache, int heads, int kv_heads, int dim, int rotary, bool interleaved,
                bool per_sequence) {
  const int tokens = 9, block_size = 8, max_blocks = 4, sequences = 2;
  const int row = (heads + 2 * kv_heads) * dim;
  Array qkv(act, size_t(tokens) * row, [](size_t) { return normal(); });
  const auto before = qkv.host;
  const std::vector<int> seq{0, 0, 0, 0, 1, 1, 1, 1, 1}, pos{3, 4, 5, 6, 20, 21, 22, 23, 24};
  const std::vector<int> table{2, 5, 0, 0, 1, 3, 4, 6};
  Array positions(DType::i32, tokens, [&](size_t i) { return pos[i]; });
  Array sequence_of(DType::i32, tokens, [&](size_t i) { return seq[i]; });
  Array tables(DType::i32, table.size(), [&](size_t i) { return table[i]; });
  Array frequencies(DType::f32, size_t(per_sequence ? sequences : 1) * (rotary / 2 + 1),
                    [&](size_t i) { return std::pow(10000.0, -2.0 * double(i % (rotary / 2 + 1)) / (rotary + 1)); });
  Array keys(cache, size_t(7) * kv_heads * block_size * dim), values(cache, size_t(7) * kv_heads * block_size * dim);
  RopeKvWriteArgs a{};
  a.qkv = qkv.tensor;
  a.key_cache = keys.tensor;
  a.value_cache = values.tensor;
  a.positions = positions.tensor;
  a.sequence_of = sequence_of.tensor;
  a.block_tables = tables.tensor;
  if (rotary) a.inverse_frequencies = frequencies.tensor;
  a.tokens = tokens;
  a.num_heads = heads;
  a.num_kv_heads = kv_heads;
  a.head_dim = a.value_dim = dim;
  a.scaling_length = 1;
  a.rotary_dim = rotary;
  a.interleaved = interleaved;
  a.per_sequence = per_sequence;
  a.rope_scale = 1.25;
  // Falcon's order: the queries of a group, then its key, then its value.
  const int group = heads / kv_heads;
  a.q_offset = 0;
  a.q_group_stride = int64_t(group + 2) * dim;
  a.k_offset = int64_t(group) * dim;
  a.v_offset = int64_t(group + 1) * dim;
  a.kv_stride = int64_t(group + 2) * dim;
  a.row_stride = row;
  a.block_size = block_size;
  a.max_blocks = max_blocks;
  bench(a);
  bench.sync();
  const auto after = qkv.download(), k_out = keys.download(), v_out = values.download();
  const auto rotate = [&](const double* from, int token) {
    std::vector<double> v(from, from + dim);
    for (int i = 0; i < rotary / 2; ++i) {
      const float frequency = float(frequencies.host[size_t(per_sequence ? seq[token] : 0) * (rotary / 2) + i]);
      const double angle = float(pos[token]) * frequency, c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
      const int x = interleaved ? 2 * i : i, y = interleaved ? 2 * i + 1 : i + rotary / 2;
      v[x] = from[x] * c - from[y] * s;
      v[y] = from[x] * s + from[y] * c;
    }
    return v;
  };
  std::vector<double> got, want, got_v, want_v;
  for (int t = 0; t < tokens; ++t) {
    for (int h = 0; h < heads; ++h) {
      const size_t at = size_t(t) * row + size_t(h / group) * a.q_group_stride + size_t(h % group) * dim;
      const auto v = rotate(&before[at], t);
      want.insert(want.end(), v.begin(), v.end());
      got.insert(got.end(), after.begin() + at, after.begin() + at + dim);
    }
    for (int g = 0; g < kv_heads; ++g) {
      const size_t slot = ((size_t(table[seq[t] * max_blocks + pos[t] / block_size]) * kv_heads + g) * block_size +
                           pos[t] % block_size) *
                          dim;
      const auto v = rotate(&before[size_t(t) * row + a.k_offset + size_t(g) * a.kv_stride], t);
      want.insert(want.end(), v.begin(), v.end());
      got.insert(got.end(), k_out.begin() + slot, k_out.begin() + slot + dim);
      const double* value = &before[size_t(t) * row + a.v_offset + size_t(g) * a.kv_stride];
      for (int d = 0; d < dim; ++d) want_v.push_back(rounded(float(value[d]), cache)), got_v.push_back(v_out[slot + d]);
    }
  }
  char what[200];
  std::snprintf(what, sizeof what, "ropeKvWrite %s/%s H %d/%d D %d rotary %d interleaved %d", name_of(act),
                name_of(cache), heads, kv_heads, dim, rotary, interleaved);
  compare(got, want, std::max(bound(act), bound(cache)), what);
  compare(got_v, want_v, 0, what);
}

}  // namespace

int main() {
  Bench bench;
  const DType f32 = DType::f32, f16 = DType::f16, bf16 = DType::bf16;
  for (DType act : {f32, f16, bf16}) {
    for (DType cache : {act, f32, bf16}) {
      check_rope(bench, act, cache, 8, 2, 64, 64, false, false);
      check_rope(bench, act, cache, 4, 4, 80, 32, false, true);
      check_rope(bench, act, cache, 4, 1, 128, 64, true, false);
      check_rope(bench, act, cache, 3, 3, 24, 6, true, false);
      check_rope(bench, act, cache, 3, 3, 10, 0, false, false);
    }
  }
  for (DType t : {f16, bf16}) {
    for (int dim : {64, 72, 80, 96, 112, 128, 160, 192, 256}) {
      check_case(bench, {t, t, dim, 4, 2, {{1, 1}, {1, 300}, {70, 70}, {33, 190}, {1, 129}}});
    }
    check_case(bench, {t, t, 128, 8, 8, {{200, 200}}});
    check_case(bench, {t, t, 128, 8, 8, {{1, 1}, {1, 127}, {1, 128}, {1, 129}, {1, 2000}, {1, 9000}}});
    check_case(bench, {t, t, 64, 71, 1, {{1, 500}, {5, 40}}});
    check_case(bench, {t, t, 128, 24, 2, {{1, 700}, {130, 131}}});
    check_case(bench, {t, t, 64, 4, 4, {{50, 50}, {129, 129}, {1, 77}}, false});
    for (int dim : {8, 16, 32}) check_case(bench, {t, t, dim, 4, 2, {{1, 300}, {70, 70}, {33, 190}}});
    check_case(bench, {t, t, 64, 4, 2, {{300, 300}, {1, 1000}, {1, 40}}, true, 100});
    check_case(bench, {t, t, 128, 4, 2, {{100, 150}, {1, 400}}, true, 0, true});
    check_case(bench, {t, t, 64, 4, 4, {{90, 90}, {1, 65}}, false, 0, false, 65, 32});
    check_case(bench, {t, t, 64, 5, 5, {{300, 300}, {40, 500}, {1, 400}}, true, 0, false, 129, 128});
    check_case(bench, {t, t, 128, 8, 2, {{300, 300}, {1, 400}}, false, 0, false, 3000, 1500});
    check_case(bench, {t, t, 32, 4, 4, {{200, 200}, {1, 70}}, true, 90, true, 40, 33, 5.0});
    check_case(bench, {t, t, 256, 4, 2, {{100, 100}, {1, 200}}, true, 64, false, 0, 0, 50.0});
    check_case(bench, {t, t, 128, 4, 4, {{100, 300}, {1, 301}}, true, 0, false, 0, 0, 0, 24});
    check_case(bench, {t, f32, 64, 4, 2, {{20, 33}, {1, 50}}});
    // Shares of blocks: whole tiles; parts of tiles, for one sequence is far longer; over 32 sequences; a window that
    // leaves splits out.
    std::vector<std::pair<int, int>> many, one_long, ragged;
    for (int i = 0; i < 70; ++i) many.push_back({1, 1 + i * 5}), ragged.push_back({1, i % 9 == 0 ? 1200 : 3 + i});
    for (int i = 0; i < 12; ++i) one_long.push_back({1, i == 5 ? 6000 : 20 + 30 * i});
    check_case(bench, {t, t, 128, 8, 8, many});
    check_case(bench, {t, t, 64, 16, 4, many, true, 0, false, 0, 0, 0, 24});
    check_case(bench, {t, t, 128, 16, 16, one_long});
    check_case(bench, {t, t, 256, 16, 2, one_long});
    check_case(bench, {t, t, 80, 8, 8, ragged, true, 300});
    check_case(bench, {t, t, 128, 32, 2, ragged, true, 500});
  }
  check_case(bench, {f32, f32, 64, 4, 2, {{20, 33}, {1, 50}}, true, 16, true});
  check_case(bench, {f32, f32, 128, 2, 1, {{20, 33}}, false, 0, false, 33, 16, 30.0});
  check_case(bench, {f32, bf16, 20, 2, 1, {{7, 33}}});
  return report("attention");
}
