// Times of the kernels, in microseconds by graph replays; buffers rotate beyond the L2 where data is large. One JSON
// line each.
#include "harness.h"

using namespace q;
using namespace q::test;

namespace {

void line(const char* name, double us, double bytes, double operations) {
  std::printf("{\"kernel\": \"%s\", \"us\": %.2f", name, us);
  if (bytes > 0) std::printf(", \"gbps\": %.0f", bytes / us / 1e3);
  if (operations > 0) std::printf(", \"tflops\": %.0f", operations / us / 1e6);
  std::printf("}\n");
}

Tensor device(DType dtype, size_t count, bool random = true) {
  Tensor t{nullptr, dtype, int64_t(count) * dtype_bytes(dtype)};
  CUDA_OK(cudaMalloc(&t.data, t.bytes + 16));
  if (!random) CUDA_OK(cudaMemset(t.data, 0, t.bytes));
  return t;
}

struct Timer {
  Bench bench;
  Tensor random(DType dtype, size_t count) {
    Tensor t = device(dtype, count);
    RandomArgs a{};
    a.out = t;
    a.scale = 1;
    a.seed = 7;
    bench(a);
    return t;
  }
  Tensor ints(const std::vector<int>& v) {
    Tensor t = device(DType::i32, v.size());
    CUDA_OK(cudaMemcpy(t.data, v.data(), t.bytes, cudaMemcpyHostToDevice));
    return t;
  }

  void attention(int sequences, int queries, int context, int heads, int kv_heads, int dim) {
    const int block = 16, max_blocks = (context + block - 1) / block,
              copies =
                  queries > 1 ? 2 : std::max<int>(2, int(200e6 / (4.0 * sequences * context * kv_heads * dim)) + 1);
    const int used = std::min(copies, 64);
    const size_t cache = size_t(sequences) * max_blocks * block * kv_heads * dim;
    std::vector<Tensor> k, v;
    for (int i = 0; i < used; ++i) k.push_back(random(DType::f16, cache)), v.push_back(random(DType::f16, cache));
    std::vector<int> starts, contexts(sequences, context), tables;
    for (int i = 0; i <= sequences; ++i) starts.push_back(i * queries);
    for (int i = 0; i < sequences * max_blocks; ++i) tables.push_back(i);
    std::shuffle(tables.begin(), tables.end(), random_engine());
    const int row = (heads + 2 * kv_heads) * dim;
    AttentionArgs a{};
    a.qkv = random(DType::f16, size_t(sequences) * queries * row);
    a.out = device(DType::f16, size_t(sequences) * queries * heads * dim);
    a.sequence_starts = ints(starts);
    a.context_lengths = ints(contexts);
    a.block_tables = ints(tables);
    a.tokens = sequences * queries;
    a.sequences = sequences;
    a.max_query = queries;
    a.max_context = context;
    a.num_heads = heads;
    a.num_kv_heads = kv_heads;
    a.head_dim = a.value_dim = dim;
    a.scale = 1 / std::sqrt(double(dim));
    a.causal = 1;
    a.q_group_stride = int64_t(heads / kv_heads) * dim;
    a.row_stride = row;
    a.block_size = block;
    a.max_blocks = max_blocks;
    const double us = bench.time(queries > 1 ? 4 : std::max(16, used), [&](int i) {
      a.key_cache = k[i % used];
      a.value_cache = v[i % used];
      bench(a);
    });
    char name[160];
    std::snprintf(name, sizeof name, "attention %d x %d queries, context %d, heads %d/%d of %d", sequences, queries,
                  context, heads, kv_heads, dim);
    const double pairs = queries > 1 ? double(queries) * context - double(queries) * (queries - 1) / 2 : context;
    line(name, us, queries > 1 ? 0 : 4.0 * sequences * context * kv_heads * dim,
         queries > 1 ? 4.0 * sequences * pairs * heads * dim : 0);
    if (queries == 1) {
      a.max_context = 8192;
      const double bounded = bench.time(std::max(16, used), [&](int i) {
        a.key_cache = k[i % used];
        a.value_cache = v[i % used];
        bench(a);
      });
      std::strcat(name, ", bound 8192");
      if (context < 8192) line(name, bounded, 4.0 * sequences * context * kv_heads * dim, 0);
    }
    for (int i = 0; i < used; ++i) cudaFree(k[i].data), cudaFree(v[i].data);
  }

  void norm(int rows, int width) {
    RmsNormArgs a{};
    a.x = random(DType::f16, size_t(rows) * width);
    a.residual = random(DType::f16, size_t(rows) * width);
    a.sum = device(DType::f16, size_t(rows) * width);
    a.out = device(DType::f16, size_t(rows) * width);
    a.weight = random(DType::f16, width);
    a.rows = rows;
    a.width = width;
    a.eps = 1e-5;
    char name[100];
    std::snprintf(name, sizeof name, "rmsNorm + residual %d x %d", rows, width);
    line(name, bench.time(32, [&](int) { bench(a); }), rows > 100 ? 8.0 * rows * width : 0, 0);
  }

  void rope(int tokens, int heads, int kv_heads, int dim) {
    const int row = (heads + 2 * kv_heads) * dim, block = 16, blocks = (tokens + block - 1) / block;
    std::vector<int> positions(tokens), sequences(tokens, 0), table(blocks);
    for (int i = 0; i < tokens; ++i) positions[i] = i;
    for (int i = 0; i < blocks; ++i) table[i] = i;
    RopeKvWriteArgs a{};
    a.qkv = random(DType::f16, size_t(tokens) * row);
    a.key_cache = device(DType::f16, size_t(blocks) * block * kv_heads * dim);
    a.value_cache = device(DType::f16, size_t(blocks) * block * kv_heads * dim);
    a.positions = ints(positions);
    a.sequence_of = ints(sequences);
    a.block_tables = ints(table);
    a.inverse_frequencies = random(DType::f32, dim / 2);
    a.tokens = tokens;
    a.num_heads = heads;
    a.num_kv_heads = kv_heads;
    a.head_dim = a.value_dim = a.rotary_dim = dim;
    a.scaling_length = 1;
    a.rope_scale = 1;
    a.q_group_stride = int64_t(heads / kv_heads) * dim;
    a.k_offset = int64_t(heads) * dim;
    a.v_offset = int64_t(heads + kv_heads) * dim;
    a.kv_stride = dim;
    a.row_stride = row;
    a.block_size = block;
    a.max_blocks = blocks;
    char name[100];
    std::snprintf(name, sizeof name, "ropeKvWrite %d tokens, heads %d/%d of %d", tokens, heads, kv_heads, dim);
    line(name, bench.time(32, [&](int) { bench(a); }),
         tokens > 100 ? 2.0 * tokens * dim * (2 * heads + 4 * kv_heads) : 0, 0);
  }

  void sample(int rows, int width, bool sampling, int top_k, float top_p, float penalty) {
    SampleArgs a{};
    a.logits = random(DType::f16, size_t(rows) * width);
    a.out = device(DType::i32, rows, false);
    std::vector<float> floats;
    std::vector<int> flags;
    for (int i = 0; i < rows; ++i) {
      floats.insert(floats.end(), {0.8f, top_p, 0.f, penalty});
      flags.insert(flags.end(), {sampling, top_k, 1, 2});
    }
    a.floats = device(DType::f32, floats.size());
    CUDA_OK(cudaMemcpy(a.floats.data, floats.data(), a.floats.bytes, cudaMemcpyHostToDevice));
    a.ints = ints(flags);
    a.counters = ints(std::vector<int>(rows, 3));
    a.history = ints(std::vector<int>(size_t(rows) * 512, 5));
    a.history_lengths = ints(std::vector<int>(rows, 512));
    a.rows = rows;
    a.width = width;
    a.history_capacity = 512;
    char name[140];
    std::snprintf(name, sizeof name, "sample %d x %d %s topK %d topP %g penalty %g", rows, width,
                  sampling ? "random" : "greedy", top_k, top_p, penalty);
    line(name, bench.time(16, [&](int) { bench(a); }), 0, 0);
  }

  void gated(int rows, int width) {
    GatedActivationArgs a{};
    a.x = random(DType::f16, size_t(rows) * width * 2);
    a.out = device(DType::f16, size_t(rows) * width);
    a.rows = rows;
    a.width = width;
    a.kind = int(ActivationKind::silu);
    char name[100];
    std::snprintf(name, sizeof name, "gatedActivation %d x %d", rows, width);
    line(name, bench.time(32, [&](int) { bench(a); }), rows > 100 ? 6.0 * rows * width : 0, 0);
  }
};

}  // namespace

int main() {
  Timer t;
  for (int context : {128, 2048, 16384}) {
    t.attention(1, 1, context, 32, 32, 128);
    t.attention(1, 1, context, 32, 8, 128);
  }
  for (int context : {128, 256, 512}) t.attention(32, 1, context, 32, 32, 128);
  t.attention(32, 1, 2048, 32, 8, 128);
  t.attention(1, 2048, 2048, 32, 32, 128);
  t.attention(1, 8192, 8192, 32, 8, 128);
  t.attention(8, 512, 512, 32, 32, 128);
  t.attention(1, 2048, 2048, 32, 32, 64);
  t.attention(1, 2048, 2048, 16, 16, 256);
  t.norm(1, 4096);
  t.norm(32, 4096);
  t.norm(2048, 4096);
  t.rope(1, 32, 32, 128);
  t.rope(32, 32, 32, 128);
  t.rope(2048, 32, 32, 128);
  t.gated(1, 11008);
  t.gated(2048, 11008);
  t.sample(1, 32000, false, 0, 1.f, 1.f);
  t.sample(1, 32000, false, 0, 1.f, 1.1f);
  t.sample(1, 32000, true, 0, 1.f, 1.f);
  t.sample(1, 32000, true, 50, 0.95f, 1.1f);
  t.sample(32, 32000, true, 50, 0.95f, 1.1f);
  t.sample(1, 152064, false, 0, 1.f, 1.f);
  t.sample(1, 152064, true, 50, 0.95f, 1.f);
  return 0;
}
