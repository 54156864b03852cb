// Generated from src/driver/schema.ts (pnpm generate); a test compares them. What each field means is said there.
#pragma once
#include <cstdint>
#include <type_traits>

namespace q {

constexpr const char* kAbi = "ce471223";
constexpr int kMaxRepeat = 4;

enum class DType : int {
  f32 = 0,
  f16 = 1,
  bf16 = 2,
  i8 = 3,
  u8 = 4,
  i32 = 5,
  i64 = 6,
  boolean = 7,
};
enum class WeightKind : int {
  dense = 0,
  bnb4 = 1,
  int8 = 2,
};
enum class QuantType : int {
  nf4 = 0,
  fp4 = 1,
};
enum class ActivationKind : int {
  none = 0,
  silu = 1,
  gelu = 2,
  gelu_tanh = 3,
  relu = 4,
  quick_gelu = 5,
  sigmoid = 6,
  tanh = 7,
};
enum class RandomKind : int {
  normal = 0,
  uniform = 1,
  bits = 2,
};
enum class Command : int {
  fill = 0,
  random = 1,
  copy = 2,
  cast = 3,
  embedding = 4,
  selectRows = 5,
  scatterRows = 6,
  linear = 7,
  rmsNorm = 8,
  layerNorm = 9,
  ropeKvWrite = 10,
  attention = 11,
  activation = 12,
  gatedActivation = 13,
  add = 14,
  scale = 15,
  softmax = 16,
  crossEntropy = 17,
  argmax = 18,
  sample = 19,
  advance = 20,
  quantize4bit = 21,
  dequantize4bit = 22,
  quantizeAbsmax = 23,
  quantizeInt8 = 24,
  dequantizeInt8 = 25,
  multiply = 26,
  eagerLinear = 27,
  eagerRope = 28,
  eagerAttention = 29,
};
constexpr int kCommandCount = 30;
constexpr const char* kCommandNames[] = {
  "fill",
  "random",
  "copy",
  "cast",
  "embedding",
  "selectRows",
  "scatterRows",
  "linear",
  "rmsNorm",
  "layerNorm",
  "ropeKvWrite",
  "attention",
  "activation",
  "gatedActivation",
  "add",
  "scale",
  "softmax",
  "crossEntropy",
  "argmax",
  "sample",
  "advance",
  "quantize4bit",
  "dequantize4bit",
  "quantizeAbsmax",
  "quantizeInt8",
  "dequantizeInt8",
  "multiply",
  "eagerLinear",
  "eagerRope",
  "eagerAttention",
};

/// Bytes on the device and how to read them; data is null when an optional tensor is absent.
struct Tensor {
  void* data;
  DType dtype;
  int64_t bytes;
  explicit operator bool() const { return data != nullptr; }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

// A Reader turns words into values: tensor(bool required), integer(), number(), count(int most).
struct FillArgs {
  Tensor out;
  double value;
  template <class Reader> static FillArgs read(Reader& r) {
    FillArgs a{};
    a.out = r.tensor(true);
    a.value = r.number();
    return a;
  }
};

struct RandomArgs {
  Tensor out;
  int64_t kind;
  double scale;
  int64_t seed;
  template <class Reader> static RandomArgs read(Reader& r) {
    RandomArgs a{};
    a.out = r.tensor(true);
    a.kind = r.integer();
    a.scale = r.number();
    a.seed = r.integer();
    return a;
  }
};

struct CopyArgs {
  Tensor src;
  Tensor out;
  template <class Reader> static CopyArgs read(Reader& r) {
    CopyArgs a{};
    a.src = r.tensor(true);
    a.out = r.tensor(true);
    return a;
  }
};

struct CastArgs {
  Tensor x;
  Tensor out;
  template <class Reader> static CastArgs read(Reader& r) {
    CastArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    return a;
  }
};

struct EmbeddingArgs {
  Tensor table;
  Tensor ids;
  Tensor out;
  int64_t rows;
  int64_t width;
  int64_t vocab;
  double scale;
  template <class Reader> static EmbeddingArgs read(Reader& r) {
    EmbeddingArgs a{};
    a.table = r.tensor(true);
    a.ids = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    a.vocab = r.integer();
    a.scale = r.number();
    return a;
  }
};

struct SelectRowsArgs {
  Tensor x;
  Tensor indices;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static SelectRowsArgs read(Reader& r) {
    SelectRowsArgs a{};
    a.x = r.tensor(true);
    a.indices = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct ScatterRowsArgs {
  Tensor x;
  Tensor indices;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static ScatterRowsArgs read(Reader& r) {
    ScatterRowsArgs a{};
    a.x = r.tensor(true);
    a.indices = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct LinearArgsItem {
  int64_t kind;
  int64_t n;
  Tensor weight;
  Tensor bias;
  Tensor absmax;
  Tensor nested_absmax;
  Tensor nested_code;
  Tensor offset;
  int64_t block_size;
  int64_t nested_block_size;
  int64_t quant_type;
  int64_t compute_dtype;
  double threshold;
  template <class Reader> static LinearArgsItem read(Reader& r) {
    LinearArgsItem a{};
    a.kind = r.integer();
    a.n = r.integer();
    a.weight = r.tensor(true);
    a.bias = r.tensor(false);
    a.absmax = r.tensor(false);
    a.nested_absmax = r.tensor(false);
    a.nested_code = r.tensor(false);
    a.offset = r.tensor(false);
    a.block_size = r.integer();
    a.nested_block_size = r.integer();
    a.quant_type = r.integer();
    a.compute_dtype = r.integer();
    a.threshold = r.number();
    return a;
  }
};

struct LinearArgs {
  Tensor x;
  Tensor out;
  Tensor residual;
  int64_t rows;
  int64_t k;
  int64_t activation;
  int64_t gated;
  int64_t parts_count;
  LinearArgsItem parts[kMaxRepeat];
  template <class Reader> static LinearArgs read(Reader& r) {
    LinearArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.residual = r.tensor(false);
    a.rows = r.integer();
    a.k = r.integer();
    a.activation = r.integer();
    a.gated = r.integer();
    a.parts_count = r.count(kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i)
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
    return a;
  }
};

struct RmsNormArgs {
  Tensor x;
  Tensor residual;
  Tensor sum;
  Tensor weight;
  Tensor out;
  int64_t rows;
  int64_t width;
  double eps;
  double weight_offset;
  template <class Reader> static RmsNormArgs read(Reader& r) {
    RmsNormArgs a{};
    a.x = r.tensor(true);
    a.residual = r.tensor(false);
    a.sum = r.tensor(false);
    a.weight = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    a.eps = r.number();
    a.weight_offset = r.number();
    return a;
  }
};

struct LayerNormArgs {
  Tensor x;
  Tensor residual;
  Tensor sum;
  Tensor weight;
  Tensor bias;
  Tensor out;
  int64_t rows;
  int64_t width;
  double eps;
  template <class Reader> static LayerNormArgs read(Reader& r) {
    LayerNormArgs a{};
    a.x = r.tensor(true);
    a.residual = r.tensor(false);
    a.sum = r.tensor(false);
    a.weight = r.tensor(false);
    a.bias = r.tensor(false);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    a.eps = r.number();
    return a;
  }
};

struct RopeKvWriteArgs {
  Tensor qkv;
  Tensor key_cache;
  Tensor value_cache;
  Tensor positions;
  Tensor sequence_of;
  Tensor block_tables;
  Tensor inverse_frequencies;
  int64_t tokens;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t rotary_dim;
  int64_t interleaved;
  int64_t per_sequence;
  double rope_scale;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t k_offset;
  int64_t v_offset;
  int64_t kv_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  template <class Reader> static RopeKvWriteArgs read(Reader& r) {
    RopeKvWriteArgs a{};
    a.qkv = r.tensor(true);
    a.key_cache = r.tensor(true);
    a.value_cache = r.tensor(true);
    a.positions = r.tensor(true);
    a.sequence_of = r.tensor(true);
    a.block_tables = r.tensor(true);
    a.inverse_frequencies = r.tensor(false);
    a.tokens = r.integer();
    a.num_heads = r.integer();
    a.num_kv_heads = r.integer();
    a.head_dim = r.integer();
    a.rotary_dim = r.integer();
    a.interleaved = r.integer();
    a.per_sequence = r.integer();
    a.rope_scale = r.number();
    a.q_offset = r.integer();
    a.q_group_stride = r.integer();
    a.k_offset = r.integer();
    a.v_offset = r.integer();
    a.kv_stride = r.integer();
    a.row_stride = r.integer();
    a.block_size = r.integer();
    a.max_blocks = r.integer();
    return a;
  }
};

struct AttentionArgs {
  Tensor qkv;
  Tensor key_cache;
  Tensor value_cache;
  Tensor out;
  Tensor sequence_starts;
  Tensor context_lengths;
  Tensor block_tables;
  Tensor alibi_slopes;
  Tensor bias;
  int64_t tokens;
  int64_t sequences;
  int64_t max_query;
  int64_t max_context;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  double scale;
  double softcap;
  int64_t causal;
  int64_t window;
  int64_t bias_rows;
  int64_t bias_columns;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  template <class Reader> static AttentionArgs read(Reader& r) {
    AttentionArgs a{};
    a.qkv = r.tensor(true);
    a.key_cache = r.tensor(true);
    a.value_cache = r.tensor(true);
    a.out = r.tensor(true);
    a.sequence_starts = r.tensor(true);
    a.context_lengths = r.tensor(true);
    a.block_tables = r.tensor(true);
    a.alibi_slopes = r.tensor(false);
    a.bias = r.tensor(false);
    a.tokens = r.integer();
    a.sequences = r.integer();
    a.max_query = r.integer();
    a.max_context = r.integer();
    a.num_heads = r.integer();
    a.num_kv_heads = r.integer();
    a.head_dim = r.integer();
    a.scale = r.number();
    a.softcap = r.number();
    a.causal = r.integer();
    a.window = r.integer();
    a.bias_rows = r.integer();
    a.bias_columns = r.integer();
    a.q_offset = r.integer();
    a.q_group_stride = r.integer();
    a.row_stride = r.integer();
    a.block_size = r.integer();
    a.max_blocks = r.integer();
    return a;
  }
};

struct ActivationArgs {
  Tensor x;
  Tensor out;
  int64_t count;
  int64_t kind;
  template <class Reader> static ActivationArgs read(Reader& r) {
    ActivationArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.count = r.integer();
    a.kind = r.integer();
    return a;
  }
};

struct GatedActivationArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  int64_t kind;
  template <class Reader> static GatedActivationArgs read(Reader& r) {
    GatedActivationArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    a.kind = r.integer();
    return a;
  }
};

struct AddArgs {
  Tensor a;
  Tensor b;
  Tensor out;
  int64_t count;
  template <class Reader> static AddArgs read(Reader& r) {
    AddArgs a{};
    a.a = r.tensor(true);
    a.b = r.tensor(true);
    a.out = r.tensor(true);
    a.count = r.integer();
    return a;
  }
};

struct ScaleArgs {
  Tensor x;
  Tensor out;
  int64_t count;
  double factor;
  double softcap;
  template <class Reader> static ScaleArgs read(Reader& r) {
    ScaleArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.count = r.integer();
    a.factor = r.number();
    a.softcap = r.number();
    return a;
  }
};

struct SoftmaxArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static SoftmaxArgs read(Reader& r) {
    SoftmaxArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct CrossEntropyArgs {
  Tensor logits;
  Tensor targets;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static CrossEntropyArgs read(Reader& r) {
    CrossEntropyArgs a{};
    a.logits = r.tensor(true);
    a.targets = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct ArgmaxArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static ArgmaxArgs read(Reader& r) {
    ArgmaxArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct SampleArgs {
  Tensor logits;
  Tensor out;
  Tensor floats;
  Tensor ints;
  Tensor counters;
  Tensor history;
  Tensor history_lengths;
  int64_t rows;
  int64_t width;
  int64_t history_capacity;
  template <class Reader> static SampleArgs read(Reader& r) {
    SampleArgs a{};
    a.logits = r.tensor(true);
    a.out = r.tensor(true);
    a.floats = r.tensor(true);
    a.ints = r.tensor(true);
    a.counters = r.tensor(true);
    a.history = r.tensor(false);
    a.history_lengths = r.tensor(false);
    a.rows = r.integer();
    a.width = r.integer();
    a.history_capacity = r.integer();
    return a;
  }
};

struct AdvanceArgs {
  Tensor sampled;
  Tensor token_ids;
  Tensor positions;
  Tensor context_lengths;
  Tensor counters;
  Tensor history;
  Tensor history_lengths;
  int64_t rows;
  int64_t history_capacity;
  template <class Reader> static AdvanceArgs read(Reader& r) {
    AdvanceArgs a{};
    a.sampled = r.tensor(true);
    a.token_ids = r.tensor(true);
    a.positions = r.tensor(true);
    a.context_lengths = r.tensor(true);
    a.counters = r.tensor(true);
    a.history = r.tensor(false);
    a.history_lengths = r.tensor(false);
    a.rows = r.integer();
    a.history_capacity = r.integer();
    return a;
  }
};

struct Quantize4bitArgs {
  Tensor x;
  Tensor codes;
  Tensor absmax;
  int64_t count;
  int64_t block_size;
  int64_t quant_type;
  template <class Reader> static Quantize4bitArgs read(Reader& r) {
    Quantize4bitArgs a{};
    a.x = r.tensor(true);
    a.codes = r.tensor(true);
    a.absmax = r.tensor(true);
    a.count = r.integer();
    a.block_size = r.integer();
    a.quant_type = r.integer();
    return a;
  }
};

struct Dequantize4bitArgs {
  Tensor codes;
  Tensor absmax;
  Tensor nested_absmax;
  Tensor nested_code;
  Tensor offset;
  Tensor out;
  int64_t count;
  int64_t block_size;
  int64_t nested_block_size;
  int64_t quant_type;
  template <class Reader> static Dequantize4bitArgs read(Reader& r) {
    Dequantize4bitArgs a{};
    a.codes = r.tensor(true);
    a.absmax = r.tensor(true);
    a.nested_absmax = r.tensor(false);
    a.nested_code = r.tensor(false);
    a.offset = r.tensor(false);
    a.out = r.tensor(true);
    a.count = r.integer();
    a.block_size = r.integer();
    a.nested_block_size = r.integer();
    a.quant_type = r.integer();
    return a;
  }
};

struct QuantizeAbsmaxArgs {
  Tensor x;
  Tensor out;
  Tensor nested_absmax;
  Tensor nested_code;
  Tensor offset;
  int64_t count;
  int64_t block_size;
  template <class Reader> static QuantizeAbsmaxArgs read(Reader& r) {
    QuantizeAbsmaxArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.nested_absmax = r.tensor(true);
    a.nested_code = r.tensor(true);
    a.offset = r.tensor(true);
    a.count = r.integer();
    a.block_size = r.integer();
    return a;
  }
};

struct QuantizeInt8Args {
  Tensor x;
  Tensor codes;
  Tensor absmax;
  int64_t rows;
  int64_t width;
  template <class Reader> static QuantizeInt8Args read(Reader& r) {
    QuantizeInt8Args a{};
    a.x = r.tensor(true);
    a.codes = r.tensor(true);
    a.absmax = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct DequantizeInt8Args {
  Tensor codes;
  Tensor absmax;
  Tensor out;
  int64_t rows;
  int64_t width;
  template <class Reader> static DequantizeInt8Args read(Reader& r) {
    DequantizeInt8Args a{};
    a.codes = r.tensor(true);
    a.absmax = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    return a;
  }
};

struct MultiplyArgs {
  Tensor a;
  Tensor b;
  Tensor out;
  int64_t rows;
  int64_t width;
  int64_t a_stride;
  int64_t b_stride;
  template <class Reader> static MultiplyArgs read(Reader& r) {
    MultiplyArgs a{};
    a.a = r.tensor(true);
    a.b = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.width = r.integer();
    a.a_stride = r.integer();
    a.b_stride = r.integer();
    return a;
  }
};

struct EagerLinearArgsItem {
  int64_t kind;
  int64_t n;
  Tensor weight;
  Tensor bias;
  Tensor absmax;
  Tensor nested_absmax;
  Tensor nested_code;
  Tensor offset;
  int64_t block_size;
  int64_t nested_block_size;
  int64_t quant_type;
  int64_t compute_dtype;
  double threshold;
  template <class Reader> static EagerLinearArgsItem read(Reader& r) {
    EagerLinearArgsItem a{};
    a.kind = r.integer();
    a.n = r.integer();
    a.weight = r.tensor(true);
    a.bias = r.tensor(false);
    a.absmax = r.tensor(false);
    a.nested_absmax = r.tensor(false);
    a.nested_code = r.tensor(false);
    a.offset = r.tensor(false);
    a.block_size = r.integer();
    a.nested_block_size = r.integer();
    a.quant_type = r.integer();
    a.compute_dtype = r.integer();
    a.threshold = r.number();
    return a;
  }
};

struct EagerLinearArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t k;
  int64_t dtype;
  int64_t parts_count;
  EagerLinearArgsItem parts[kMaxRepeat];
  template <class Reader> static EagerLinearArgs read(Reader& r) {
    EagerLinearArgs a{};
    a.x = r.tensor(true);
    a.out = r.tensor(true);
    a.rows = r.integer();
    a.k = r.integer();
    a.dtype = r.integer();
    a.parts_count = r.count(kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i)
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
    return a;
  }
};

struct EagerRopeArgs {
  Tensor qkv;
  Tensor positions;
  Tensor sequence_of;
  Tensor inverse_frequencies;
  int64_t tokens;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t rotary_dim;
  int64_t interleaved;
  int64_t per_sequence;
  double rope_scale;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t k_offset;
  int64_t kv_stride;
  int64_t row_stride;
  int64_t dtype;
  template <class Reader> static EagerRopeArgs read(Reader& r) {
    EagerRopeArgs a{};
    a.qkv = r.tensor(true);
    a.positions = r.tensor(true);
    a.sequence_of = r.tensor(true);
    a.inverse_frequencies = r.tensor(true);
    a.tokens = r.integer();
    a.num_heads = r.integer();
    a.num_kv_heads = r.integer();
    a.head_dim = r.integer();
    a.rotary_dim = r.integer();
    a.interleaved = r.integer();
    a.per_sequence = r.integer();
    a.rope_scale = r.number();
    a.q_offset = r.integer();
    a.q_group_stride = r.integer();
    a.k_offset = r.integer();
    a.kv_stride = r.integer();
    a.row_stride = r.integer();
    a.dtype = r.integer();
    return a;
  }
};

struct EagerAttentionArgs {
  Tensor qkv;
  Tensor key_cache;
  Tensor value_cache;
  Tensor out;
  Tensor sequence_starts;
  Tensor context_lengths;
  Tensor block_tables;
  Tensor alibi_slopes;
  Tensor bias;
  int64_t tokens;
  int64_t sequences;
  int64_t max_query;
  int64_t max_context;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  double scale;
  double softcap;
  int64_t causal;
  int64_t window;
  int64_t bias_rows;
  int64_t bias_columns;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  int64_t dtype;
  template <class Reader> static EagerAttentionArgs read(Reader& r) {
    EagerAttentionArgs a{};
    a.qkv = r.tensor(true);
    a.key_cache = r.tensor(true);
    a.value_cache = r.tensor(true);
    a.out = r.tensor(true);
    a.sequence_starts = r.tensor(true);
    a.context_lengths = r.tensor(true);
    a.block_tables = r.tensor(true);
    a.alibi_slopes = r.tensor(false);
    a.bias = r.tensor(false);
    a.tokens = r.integer();
    a.sequences = r.integer();
    a.max_query = r.integer();
    a.max_context = r.integer();
    a.num_heads = r.integer();
    a.num_kv_heads = r.integer();
    a.head_dim = r.integer();
    a.scale = r.number();
    a.softcap = r.number();
    a.causal = r.integer();
    a.window = r.integer();
    a.bias_rows = r.integer();
    a.bias_columns = r.integer();
    a.q_offset = r.integer();
    a.q_group_stride = r.integer();
    a.row_stride = r.integer();
    a.block_size = r.integer();
    a.max_blocks = r.integer();
    a.dtype = r.integer();
    return a;
  }
};

}  // namespace q
