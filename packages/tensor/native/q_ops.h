// Generated from src/driver/schema.ts, rules.ts and marks.ts (pnpm generate); a test compares them. What each field
// means is said there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace q {

constexpr const char* kAbi = "68977702";
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
constexpr const char* kDTypeNames[] = {"f32", "f16", "bf16", "i8", "u8", "i32", "i64", "bool"};
constexpr int64_t element_bytes(DType dtype) {
  constexpr int64_t bytes[] = {4, 2, 2, 1, 1, 4, 8, 1};
  return bytes[int(dtype)];
}
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
enum class RouteKind : int {
  softmax = 0,
  softmax_of_chosen = 1,
  sigmoid = 2,
};
enum class Command : int {
  fill = 0,
  random = 1,
  copy = 2,
  cast = 3,
  embedding = 4,
  selectRows = 5,
  scatterRows = 6,
  concatColumns = 7,
  linear = 8,
  route = 9,
  expertLinear = 10,
  mixChoices = 11,
  rmsNorm = 12,
  layerNorm = 13,
  headNorm = 14,
  ropeKvWrite = 15,
  attention = 16,
  activation = 17,
  gatedActivation = 18,
  add = 19,
  scale = 20,
  softmax = 21,
  crossEntropy = 22,
  argmax = 23,
  sample = 24,
  advance = 25,
  quantize4bit = 26,
  dequantize4bit = 27,
  quantizeAbsmax = 28,
  quantizeInt8 = 29,
  dequantizeInt8 = 30,
  multiply = 31,
  eagerLinear = 32,
  eagerRope = 33,
  eagerHeadNorm = 34,
  eagerAttention = 35,
};
constexpr int kCommandCount = 36;
constexpr const char* kCommandNames[] = {
  "fill",
  "random",
  "copy",
  "cast",
  "embedding",
  "selectRows",
  "scatterRows",
  "concatColumns",
  "linear",
  "route",
  "expertLinear",
  "mixChoices",
  "rmsNorm",
  "layerNorm",
  "headNorm",
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
  "eagerHeadNorm",
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

/// What is wrong with the arguments of a command; the message begins with a field.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Words to arguments. A driver says where a buffer is; every tensor is checked against its buffer here.
class Words {
 public:
  struct Memory {
    void* data;  // null: there is no such buffer
    int64_t bytes;
  };
  Words(const double* words, size_t count) : words_(words), count_(count) {}
  virtual ~Words() = default;

  double number(const char* name) {
    if (at_ >= count_) refuse(name, "is missing: there are too few arguments");
    return words_[at_++];
  }
  int64_t integer(const char* name, const char* part = nullptr) {
    const double value = number(name);
    if (!(value >= -9007199254740992.0 && value <= 9007199254740992.0) || value != double(int64_t(value)))
      refuse(name, (part ? "has " + std::string(part) + " " : "is ") + std::to_string(value) + ", must be an integer");
    return int64_t(value);
  }
  int64_t count(const char* name, int64_t most) {
    const int64_t value = integer(name);
    if (value < 0 || value > most)
      refuse(name, "has " + std::to_string(value) + " items, at most " + std::to_string(most) + " are taken");
    return value;
  }
  Tensor tensor(const char* name, bool required) {
    const int64_t id = integer(name, "buffer"), offset = integer(name, "offset"), dtype = integer(name, "dtype code"),
                  bytes = integer(name, "bytes");
    if (id == 0) {
      if (required) refuse(name, "is missing");
      return {nullptr, DType::f32, 0};
    }
    if (dtype < 0 || dtype > int64_t(DType::boolean)) refuse(name, "has an unknown dtype code " + std::to_string(dtype));
    const Memory memory = this->memory(id);
    if (!memory.data)
      refuse(name, "refers to buffer " + std::to_string(id) + ", which does not exist or was released");
    if (offset < 0 || bytes < 0 || offset > memory.bytes || bytes > memory.bytes - offset)
      refuse(name, "has " + std::to_string(bytes) + " bytes from byte " + std::to_string(offset) + " of buffer " +
                       std::to_string(id) + ", which has " + std::to_string(memory.bytes));
    const int64_t element = element_bytes(DType(dtype));
    if (offset % element != 0 || bytes % element != 0)
      refuse(name, "has offset " + std::to_string(offset) + " and " + std::to_string(bytes) +
                       " bytes, which must be multiples of " + std::to_string(element));
    return {static_cast<char*>(memory.data) + offset, DType(dtype), bytes};
  }
  void enter(const char* list, int64_t i) { prefix_ = std::string(list) + "[" + std::to_string(i) + "]."; }
  void leave() { prefix_.clear(); }
  void finish() {
    if (at_ != count_) throw Refused("there are too many arguments");
  }

 protected:
  virtual Memory memory(int64_t buffer) = 0;

 private:
  [[noreturn]] void refuse(const char* name, const std::string& what) { throw Refused(prefix_ + name + " " + what); }
  const double* words_;
  size_t count_, at_ = 0;
  std::string prefix_;
};

// The arguments of each command, with its marks (marks.ts). each_tensor(f) calls f(tensor, early) for every tensor,
// present or not; early: kernels may read it before those ahead of them have ended. kMayWait: see Q_EACH_JOIN.
struct FillArgs {
  Tensor out;
  double value;
  static constexpr Command kCommand = Command::fill;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(out, false);
  }
  static FillArgs read(Words& r) {
    FillArgs a{};
    a.out = r.tensor("out", true);
    a.value = r.number("value");
    return a;
  }
};

struct RandomArgs {
  Tensor out;
  int64_t kind;
  double scale;
  int64_t seed;
  static constexpr Command kCommand = Command::random;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(out, false);
  }
  static RandomArgs read(Words& r) {
    RandomArgs a{};
    a.out = r.tensor("out", true);
    a.kind = r.integer("kind");
    a.scale = r.number("scale");
    a.seed = r.integer("seed");
    return a;
  }
};

struct CopyArgs {
  Tensor src;
  Tensor out;
  static constexpr Command kCommand = Command::copy;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(src, false);
    f(out, false);
  }
  static CopyArgs read(Words& r) {
    CopyArgs a{};
    a.src = r.tensor("src", true);
    a.out = r.tensor("out", true);
    return a;
  }
};

struct CastArgs {
  Tensor x;
  Tensor out;
  static constexpr Command kCommand = Command::cast;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static CastArgs read(Words& r) {
    CastArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
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
  static constexpr Command kCommand = Command::embedding;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(table, false);
    f(ids, false);
    f(out, false);
  }
  static EmbeddingArgs read(Words& r) {
    EmbeddingArgs a{};
    a.table = r.tensor("table", true);
    a.ids = r.tensor("ids", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.vocab = r.integer("vocab");
    a.scale = r.number("scale");
    return a;
  }
};

struct SelectRowsArgs {
  Tensor x;
  Tensor indices;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::selectRows;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(indices, false);
    f(out, false);
  }
  static SelectRowsArgs read(Words& r) {
    SelectRowsArgs a{};
    a.x = r.tensor("x", true);
    a.indices = r.tensor("indices", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    return a;
  }
};

struct ScatterRowsArgs {
  Tensor x;
  Tensor indices;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::scatterRows;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(indices, false);
    f(out, false);
  }
  static ScatterRowsArgs read(Words& r) {
    ScatterRowsArgs a{};
    a.x = r.tensor("x", true);
    a.indices = r.tensor("indices", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    return a;
  }
};

struct ConcatColumnsArgsItem {
  Tensor x;
  int64_t x_offset;
  int64_t x_stride;
  int64_t x_row_stride;
  int64_t offset;
  int64_t stride;
  int64_t count;
  int64_t width;
  static ConcatColumnsArgsItem read(Words& r) {
    ConcatColumnsArgsItem a{};
    a.x = r.tensor("x", true);
    a.x_offset = r.integer("xOffset");
    a.x_stride = r.integer("xStride");
    a.x_row_stride = r.integer("xRowStride");
    a.offset = r.integer("offset");
    a.stride = r.integer("stride");
    a.count = r.integer("count");
    a.width = r.integer("width");
    return a;
  }
};

struct ConcatColumnsArgs {
  Tensor out;
  int64_t rows;
  int64_t row_stride;
  int64_t parts_count;
  ConcatColumnsArgsItem parts[kMaxRepeat];
  static constexpr Command kCommand = Command::concatColumns;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(out, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].x, false);
    }
  }
  static ConcatColumnsArgs read(Words& r) {
    ConcatColumnsArgs a{};
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.row_stride = r.integer("rowStride");
    a.parts_count = r.count("parts", kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
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
  static LinearArgsItem read(Words& r) {
    LinearArgsItem a{};
    a.kind = r.integer("kind");
    a.n = r.integer("n");
    a.weight = r.tensor("weight", true);
    a.bias = r.tensor("bias", false);
    a.absmax = r.tensor("absmax", false);
    a.nested_absmax = r.tensor("nestedAbsmax", false);
    a.nested_code = r.tensor("nestedCode", false);
    a.offset = r.tensor("offset", false);
    a.block_size = r.integer("blockSize");
    a.nested_block_size = r.integer("nestedBlockSize");
    a.quant_type = r.integer("quantType");
    a.compute_dtype = r.integer("computeDtype");
    a.threshold = r.number("threshold");
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
  double limit;
  double up_offset;
  int64_t parts_count;
  LinearArgsItem parts[kMaxRepeat];
  static constexpr Command kCommand = Command::linear;
  static constexpr bool kLoadsEarly = true;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
    f(residual, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].weight, true);
      f(parts[i].bias, true);
      f(parts[i].absmax, true);
      f(parts[i].nested_absmax, true);
      f(parts[i].nested_code, true);
      f(parts[i].offset, true);
    }
  }
  static LinearArgs read(Words& r) {
    LinearArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.residual = r.tensor("residual", false);
    a.rows = r.integer("rows");
    a.k = r.integer("k");
    a.activation = r.integer("activation");
    a.gated = r.integer("gated");
    a.limit = r.number("limit");
    a.up_offset = r.number("upOffset");
    a.parts_count = r.count("parts", kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
    return a;
  }
};

struct RouteArgs {
  Tensor logits;
  Tensor bias;
  Tensor chosen;
  Tensor scores;
  int64_t rows;
  int64_t experts;
  int64_t choices;
  int64_t kind;
  int64_t normalize;
  int64_t groups;
  int64_t top_groups;
  double scale;
  static constexpr Command kCommand = Command::route;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(logits, false);
    f(bias, false);
    f(chosen, false);
    f(scores, false);
  }
  static RouteArgs read(Words& r) {
    RouteArgs a{};
    a.logits = r.tensor("logits", true);
    a.bias = r.tensor("bias", false);
    a.chosen = r.tensor("chosen", true);
    a.scores = r.tensor("scores", true);
    a.rows = r.integer("rows");
    a.experts = r.integer("experts");
    a.choices = r.integer("choices");
    a.kind = r.integer("kind");
    a.normalize = r.integer("normalize");
    a.groups = r.integer("groups");
    a.top_groups = r.integer("topGroups");
    a.scale = r.number("scale");
    return a;
  }
};

struct ExpertLinearArgsItem {
  Tensor weight;
  Tensor bias;
  Tensor absmax;
  Tensor nested_absmax;
  Tensor nested_code;
  Tensor offset;
  static ExpertLinearArgsItem read(Words& r) {
    ExpertLinearArgsItem a{};
    a.weight = r.tensor("weight", true);
    a.bias = r.tensor("bias", false);
    a.absmax = r.tensor("absmax", false);
    a.nested_absmax = r.tensor("nestedAbsmax", false);
    a.nested_code = r.tensor("nestedCode", false);
    a.offset = r.tensor("offset", false);
    return a;
  }
};

struct ExpertLinearArgs {
  Tensor x;
  Tensor chosen;
  Tensor scores;
  Tensor residual;
  Tensor out;
  int64_t rows;
  int64_t choices;
  int64_t experts;
  int64_t k;
  int64_t n;
  int64_t activation;
  int64_t gated;
  double limit;
  double up_offset;
  int64_t kind;
  int64_t weight_dtype;
  int64_t nested;
  int64_t block_size;
  int64_t nested_block_size;
  int64_t quant_type;
  int64_t compute_dtype;
  double threshold;
  int64_t parts_count;
  std::vector<ExpertLinearArgsItem> parts;
  static constexpr Command kCommand = Command::expertLinear;
  static constexpr bool kLoadsEarly = true;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(chosen, false);
    f(scores, false);
    f(residual, false);
    f(out, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].weight, true);
      f(parts[i].bias, true);
      f(parts[i].absmax, true);
      f(parts[i].nested_absmax, true);
      f(parts[i].nested_code, true);
      f(parts[i].offset, true);
    }
  }
  static ExpertLinearArgs read(Words& r) {
    ExpertLinearArgs a{};
    a.x = r.tensor("x", true);
    a.chosen = r.tensor("chosen", true);
    a.scores = r.tensor("scores", false);
    a.residual = r.tensor("residual", false);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.choices = r.integer("choices");
    a.experts = r.integer("experts");
    a.k = r.integer("k");
    a.n = r.integer("n");
    a.activation = r.integer("activation");
    a.gated = r.integer("gated");
    a.limit = r.number("limit");
    a.up_offset = r.number("upOffset");
    a.kind = r.integer("kind");
    a.weight_dtype = r.integer("weightDtype");
    a.nested = r.integer("nested");
    a.block_size = r.integer("blockSize");
    a.nested_block_size = r.integer("nestedBlockSize");
    a.quant_type = r.integer("quantType");
    a.compute_dtype = r.integer("computeDtype");
    a.threshold = r.number("threshold");
    a.parts_count = r.count("parts", 512);
    a.parts.resize(static_cast<size_t>(a.parts_count));
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
    return a;
  }
};

struct MixChoicesArgs {
  Tensor x;
  Tensor scores;
  Tensor out;
  int64_t rows;
  int64_t choices;
  int64_t width;
  int64_t dtype;
  static constexpr Command kCommand = Command::mixChoices;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(scores, false);
    f(out, false);
  }
  static MixChoicesArgs read(Words& r) {
    MixChoicesArgs a{};
    a.x = r.tensor("x", true);
    a.scores = r.tensor("scores", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.choices = r.integer("choices");
    a.width = r.integer("width");
    a.dtype = r.integer("dtype");
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
  static constexpr Command kCommand = Command::rmsNorm;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = true;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(residual, false);
    f(sum, false);
    f(weight, false);
    f(out, false);
  }
  static RmsNormArgs read(Words& r) {
    RmsNormArgs a{};
    a.x = r.tensor("x", true);
    a.residual = r.tensor("residual", false);
    a.sum = r.tensor("sum", false);
    a.weight = r.tensor("weight", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.eps = r.number("eps");
    a.weight_offset = r.number("weightOffset");
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
  static constexpr Command kCommand = Command::layerNorm;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(residual, false);
    f(sum, false);
    f(weight, false);
    f(bias, false);
    f(out, false);
  }
  static LayerNormArgs read(Words& r) {
    LayerNormArgs a{};
    a.x = r.tensor("x", true);
    a.residual = r.tensor("residual", false);
    a.sum = r.tensor("sum", false);
    a.weight = r.tensor("weight", false);
    a.bias = r.tensor("bias", false);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.eps = r.number("eps");
    return a;
  }
};

struct HeadNormArgsItem {
  Tensor weight;
  int64_t weight_stride;
  int64_t offset;
  int64_t count;
  int64_t width;
  int64_t group;
  int64_t group_stride;
  static HeadNormArgsItem read(Words& r) {
    HeadNormArgsItem a{};
    a.weight = r.tensor("weight", true);
    a.weight_stride = r.integer("weightStride");
    a.offset = r.integer("offset");
    a.count = r.integer("count");
    a.width = r.integer("width");
    a.group = r.integer("group");
    a.group_stride = r.integer("groupStride");
    return a;
  }
};

struct HeadNormArgs {
  Tensor x;
  int64_t rows;
  int64_t row_stride;
  int64_t centred;
  double eps;
  double weight_offset;
  int64_t parts_count;
  HeadNormArgsItem parts[kMaxRepeat];
  static constexpr Command kCommand = Command::headNorm;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].weight, false);
    }
  }
  static HeadNormArgs read(Words& r) {
    HeadNormArgs a{};
    a.x = r.tensor("x", true);
    a.rows = r.integer("rows");
    a.row_stride = r.integer("rowStride");
    a.centred = r.integer("centred");
    a.eps = r.number("eps");
    a.weight_offset = r.number("weightOffset");
    a.parts_count = r.count("parts", kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
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
  int64_t value_dim;
  int64_t rotary_dim;
  int64_t rotary_offset;
  int64_t interleaved;
  int64_t per_sequence;
  double rope_scale;
  double scaling_beta;
  int64_t scaling_length;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t k_offset;
  int64_t v_offset;
  int64_t kv_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  static constexpr Command kCommand = Command::ropeKvWrite;
  static constexpr bool kLoadsEarly = true;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(qkv, false);
    f(key_cache, false);
    f(value_cache, false);
    f(positions, true);
    f(sequence_of, true);
    f(block_tables, true);
    f(inverse_frequencies, true);
  }
  static RopeKvWriteArgs read(Words& r) {
    RopeKvWriteArgs a{};
    a.qkv = r.tensor("qkv", true);
    a.key_cache = r.tensor("keyCache", true);
    a.value_cache = r.tensor("valueCache", true);
    a.positions = r.tensor("positions", true);
    a.sequence_of = r.tensor("sequenceOf", true);
    a.block_tables = r.tensor("blockTables", true);
    a.inverse_frequencies = r.tensor("inverseFrequencies", false);
    a.tokens = r.integer("tokens");
    a.num_heads = r.integer("numHeads");
    a.num_kv_heads = r.integer("numKvHeads");
    a.head_dim = r.integer("headDim");
    a.value_dim = r.integer("valueDim");
    a.rotary_dim = r.integer("rotaryDim");
    a.rotary_offset = r.integer("rotaryOffset");
    a.interleaved = r.integer("interleaved");
    a.per_sequence = r.integer("perSequence");
    a.rope_scale = r.number("ropeScale");
    a.scaling_beta = r.number("scalingBeta");
    a.scaling_length = r.integer("scalingLength");
    a.q_offset = r.integer("qOffset");
    a.q_group_stride = r.integer("qGroupStride");
    a.k_offset = r.integer("kOffset");
    a.v_offset = r.integer("vOffset");
    a.kv_stride = r.integer("kvStride");
    a.row_stride = r.integer("rowStride");
    a.block_size = r.integer("blockSize");
    a.max_blocks = r.integer("maxBlocks");
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
  Tensor distance_bias;
  Tensor sinks;
  int64_t tokens;
  int64_t sequences;
  int64_t max_query;
  int64_t max_context;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t value_dim;
  double scale;
  double softcap;
  int64_t causal;
  int64_t window;
  int64_t distances;
  int64_t bias_offset;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  static constexpr Command kCommand = Command::attention;
  static constexpr bool kLoadsEarly = true;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(qkv, false);
    f(key_cache, false);
    f(value_cache, false);
    f(out, false);
    f(sequence_starts, true);
    f(context_lengths, true);
    f(block_tables, true);
    f(alibi_slopes, false);
    f(distance_bias, false);
    f(sinks, false);
  }
  static AttentionArgs read(Words& r) {
    AttentionArgs a{};
    a.qkv = r.tensor("qkv", true);
    a.key_cache = r.tensor("keyCache", true);
    a.value_cache = r.tensor("valueCache", true);
    a.out = r.tensor("out", true);
    a.sequence_starts = r.tensor("sequenceStarts", true);
    a.context_lengths = r.tensor("contextLengths", true);
    a.block_tables = r.tensor("blockTables", true);
    a.alibi_slopes = r.tensor("alibiSlopes", false);
    a.distance_bias = r.tensor("distanceBias", false);
    a.sinks = r.tensor("sinks", false);
    a.tokens = r.integer("tokens");
    a.sequences = r.integer("sequences");
    a.max_query = r.integer("maxQuery");
    a.max_context = r.integer("maxContext");
    a.num_heads = r.integer("numHeads");
    a.num_kv_heads = r.integer("numKvHeads");
    a.head_dim = r.integer("headDim");
    a.value_dim = r.integer("valueDim");
    a.scale = r.number("scale");
    a.softcap = r.number("softcap");
    a.causal = r.integer("causal");
    a.window = r.integer("window");
    a.distances = r.integer("distances");
    a.bias_offset = r.integer("biasOffset");
    a.q_offset = r.integer("qOffset");
    a.q_group_stride = r.integer("qGroupStride");
    a.row_stride = r.integer("rowStride");
    a.block_size = r.integer("blockSize");
    a.max_blocks = r.integer("maxBlocks");
    return a;
  }
};

struct ActivationArgs {
  Tensor x;
  Tensor out;
  int64_t count;
  int64_t kind;
  static constexpr Command kCommand = Command::activation;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static ActivationArgs read(Words& r) {
    ActivationArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.count = r.integer("count");
    a.kind = r.integer("kind");
    return a;
  }
};

struct GatedActivationArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  int64_t kind;
  double limit;
  double up_offset;
  int64_t dtype;
  static constexpr Command kCommand = Command::gatedActivation;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static GatedActivationArgs read(Words& r) {
    GatedActivationArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.kind = r.integer("kind");
    a.limit = r.number("limit");
    a.up_offset = r.number("upOffset");
    a.dtype = r.integer("dtype");
    return a;
  }
};

struct AddArgs {
  Tensor a;
  Tensor b;
  Tensor out;
  int64_t count;
  static constexpr Command kCommand = Command::add;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(a, false);
    f(b, false);
    f(out, false);
  }
  static AddArgs read(Words& r) {
    AddArgs a{};
    a.a = r.tensor("a", true);
    a.b = r.tensor("b", true);
    a.out = r.tensor("out", true);
    a.count = r.integer("count");
    return a;
  }
};

struct ScaleArgs {
  Tensor x;
  Tensor out;
  int64_t count;
  double factor;
  double softcap;
  static constexpr Command kCommand = Command::scale;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static ScaleArgs read(Words& r) {
    ScaleArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.count = r.integer("count");
    a.factor = r.number("factor");
    a.softcap = r.number("softcap");
    return a;
  }
};

struct SoftmaxArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::softmax;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static SoftmaxArgs read(Words& r) {
    SoftmaxArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    return a;
  }
};

struct CrossEntropyArgs {
  Tensor logits;
  Tensor targets;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::crossEntropy;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(logits, false);
    f(targets, false);
    f(out, false);
  }
  static CrossEntropyArgs read(Words& r) {
    CrossEntropyArgs a{};
    a.logits = r.tensor("logits", true);
    a.targets = r.tensor("targets", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    return a;
  }
};

struct ArgmaxArgs {
  Tensor x;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::argmax;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
  }
  static ArgmaxArgs read(Words& r) {
    ArgmaxArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
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
  static constexpr Command kCommand = Command::sample;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(logits, false);
    f(out, false);
    f(floats, false);
    f(ints, false);
    f(counters, false);
    f(history, false);
    f(history_lengths, false);
  }
  static SampleArgs read(Words& r) {
    SampleArgs a{};
    a.logits = r.tensor("logits", true);
    a.out = r.tensor("out", true);
    a.floats = r.tensor("floats", true);
    a.ints = r.tensor("ints", true);
    a.counters = r.tensor("counters", true);
    a.history = r.tensor("history", false);
    a.history_lengths = r.tensor("historyLengths", false);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.history_capacity = r.integer("historyCapacity");
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
  static constexpr Command kCommand = Command::advance;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(sampled, false);
    f(token_ids, false);
    f(positions, false);
    f(context_lengths, false);
    f(counters, false);
    f(history, false);
    f(history_lengths, false);
  }
  static AdvanceArgs read(Words& r) {
    AdvanceArgs a{};
    a.sampled = r.tensor("sampled", true);
    a.token_ids = r.tensor("tokenIds", true);
    a.positions = r.tensor("positions", true);
    a.context_lengths = r.tensor("contextLengths", true);
    a.counters = r.tensor("counters", true);
    a.history = r.tensor("history", false);
    a.history_lengths = r.tensor("historyLengths", false);
    a.rows = r.integer("rows");
    a.history_capacity = r.integer("historyCapacity");
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
  static constexpr Command kCommand = Command::quantize4bit;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(codes, false);
    f(absmax, false);
  }
  static Quantize4bitArgs read(Words& r) {
    Quantize4bitArgs a{};
    a.x = r.tensor("x", true);
    a.codes = r.tensor("codes", true);
    a.absmax = r.tensor("absmax", true);
    a.count = r.integer("count");
    a.block_size = r.integer("blockSize");
    a.quant_type = r.integer("quantType");
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
  static constexpr Command kCommand = Command::dequantize4bit;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(codes, false);
    f(absmax, false);
    f(nested_absmax, false);
    f(nested_code, false);
    f(offset, false);
    f(out, false);
  }
  static Dequantize4bitArgs read(Words& r) {
    Dequantize4bitArgs a{};
    a.codes = r.tensor("codes", true);
    a.absmax = r.tensor("absmax", true);
    a.nested_absmax = r.tensor("nestedAbsmax", false);
    a.nested_code = r.tensor("nestedCode", false);
    a.offset = r.tensor("offset", false);
    a.out = r.tensor("out", true);
    a.count = r.integer("count");
    a.block_size = r.integer("blockSize");
    a.nested_block_size = r.integer("nestedBlockSize");
    a.quant_type = r.integer("quantType");
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
  static constexpr Command kCommand = Command::quantizeAbsmax;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
    f(nested_absmax, false);
    f(nested_code, false);
    f(offset, false);
  }
  static QuantizeAbsmaxArgs read(Words& r) {
    QuantizeAbsmaxArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.nested_absmax = r.tensor("nestedAbsmax", true);
    a.nested_code = r.tensor("nestedCode", true);
    a.offset = r.tensor("offset", true);
    a.count = r.integer("count");
    a.block_size = r.integer("blockSize");
    return a;
  }
};

struct QuantizeInt8Args {
  Tensor x;
  Tensor codes;
  Tensor absmax;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::quantizeInt8;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(codes, false);
    f(absmax, false);
  }
  static QuantizeInt8Args read(Words& r) {
    QuantizeInt8Args a{};
    a.x = r.tensor("x", true);
    a.codes = r.tensor("codes", true);
    a.absmax = r.tensor("absmax", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    return a;
  }
};

struct DequantizeInt8Args {
  Tensor codes;
  Tensor absmax;
  Tensor out;
  int64_t rows;
  int64_t width;
  static constexpr Command kCommand = Command::dequantizeInt8;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(codes, false);
    f(absmax, false);
    f(out, false);
  }
  static DequantizeInt8Args read(Words& r) {
    DequantizeInt8Args a{};
    a.codes = r.tensor("codes", true);
    a.absmax = r.tensor("absmax", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
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
  static constexpr Command kCommand = Command::multiply;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(a, false);
    f(b, false);
    f(out, false);
  }
  static MultiplyArgs read(Words& r) {
    MultiplyArgs a{};
    a.a = r.tensor("a", true);
    a.b = r.tensor("b", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.width = r.integer("width");
    a.a_stride = r.integer("aStride");
    a.b_stride = r.integer("bStride");
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
  static EagerLinearArgsItem read(Words& r) {
    EagerLinearArgsItem a{};
    a.kind = r.integer("kind");
    a.n = r.integer("n");
    a.weight = r.tensor("weight", true);
    a.bias = r.tensor("bias", false);
    a.absmax = r.tensor("absmax", false);
    a.nested_absmax = r.tensor("nestedAbsmax", false);
    a.nested_code = r.tensor("nestedCode", false);
    a.offset = r.tensor("offset", false);
    a.block_size = r.integer("blockSize");
    a.nested_block_size = r.integer("nestedBlockSize");
    a.quant_type = r.integer("quantType");
    a.compute_dtype = r.integer("computeDtype");
    a.threshold = r.number("threshold");
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
  static constexpr Command kCommand = Command::eagerLinear;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    f(out, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].weight, false);
      f(parts[i].bias, false);
      f(parts[i].absmax, false);
      f(parts[i].nested_absmax, false);
      f(parts[i].nested_code, false);
      f(parts[i].offset, false);
    }
  }
  static EagerLinearArgs read(Words& r) {
    EagerLinearArgs a{};
    a.x = r.tensor("x", true);
    a.out = r.tensor("out", true);
    a.rows = r.integer("rows");
    a.k = r.integer("k");
    a.dtype = r.integer("dtype");
    a.parts_count = r.count("parts", kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
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
  int64_t rotary_offset;
  int64_t interleaved;
  int64_t per_sequence;
  double rope_scale;
  double scaling_beta;
  int64_t scaling_length;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t k_offset;
  int64_t kv_stride;
  int64_t row_stride;
  int64_t dtype;
  static constexpr Command kCommand = Command::eagerRope;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(qkv, false);
    f(positions, false);
    f(sequence_of, false);
    f(inverse_frequencies, false);
  }
  static EagerRopeArgs read(Words& r) {
    EagerRopeArgs a{};
    a.qkv = r.tensor("qkv", true);
    a.positions = r.tensor("positions", true);
    a.sequence_of = r.tensor("sequenceOf", true);
    a.inverse_frequencies = r.tensor("inverseFrequencies", true);
    a.tokens = r.integer("tokens");
    a.num_heads = r.integer("numHeads");
    a.num_kv_heads = r.integer("numKvHeads");
    a.head_dim = r.integer("headDim");
    a.rotary_dim = r.integer("rotaryDim");
    a.rotary_offset = r.integer("rotaryOffset");
    a.interleaved = r.integer("interleaved");
    a.per_sequence = r.integer("perSequence");
    a.rope_scale = r.number("ropeScale");
    a.scaling_beta = r.number("scalingBeta");
    a.scaling_length = r.integer("scalingLength");
    a.q_offset = r.integer("qOffset");
    a.q_group_stride = r.integer("qGroupStride");
    a.k_offset = r.integer("kOffset");
    a.kv_stride = r.integer("kvStride");
    a.row_stride = r.integer("rowStride");
    a.dtype = r.integer("dtype");
    return a;
  }
};

struct EagerHeadNormArgsItem {
  Tensor weight;
  int64_t weight_stride;
  int64_t offset;
  int64_t count;
  int64_t width;
  int64_t group;
  int64_t group_stride;
  static EagerHeadNormArgsItem read(Words& r) {
    EagerHeadNormArgsItem a{};
    a.weight = r.tensor("weight", true);
    a.weight_stride = r.integer("weightStride");
    a.offset = r.integer("offset");
    a.count = r.integer("count");
    a.width = r.integer("width");
    a.group = r.integer("group");
    a.group_stride = r.integer("groupStride");
    return a;
  }
};

struct EagerHeadNormArgs {
  Tensor x;
  int64_t rows;
  int64_t row_stride;
  int64_t centred;
  double eps;
  double weight_offset;
  int64_t parts_count;
  EagerHeadNormArgsItem parts[kMaxRepeat];
  int64_t round_first;
  int64_t dtype;
  static constexpr Command kCommand = Command::eagerHeadNorm;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(x, false);
    for (int64_t i = 0; i < parts_count; ++i) {
      f(parts[i].weight, false);
    }
  }
  static EagerHeadNormArgs read(Words& r) {
    EagerHeadNormArgs a{};
    a.x = r.tensor("x", true);
    a.rows = r.integer("rows");
    a.row_stride = r.integer("rowStride");
    a.centred = r.integer("centred");
    a.eps = r.number("eps");
    a.weight_offset = r.number("weightOffset");
    a.parts_count = r.count("parts", kMaxRepeat);
    for (int64_t i = 0; i < a.parts_count; ++i) {
      r.enter("parts", i);
      a.parts[i] = std::remove_reference_t<decltype(a.parts[i])>::read(r);
      r.leave();
    }
    a.round_first = r.integer("roundFirst");
    a.dtype = r.integer("dtype");
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
  Tensor distance_bias;
  Tensor sinks;
  int64_t tokens;
  int64_t sequences;
  int64_t max_query;
  int64_t max_context;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t value_dim;
  double scale;
  double softcap;
  int64_t causal;
  int64_t window;
  int64_t distances;
  int64_t bias_offset;
  int64_t q_offset;
  int64_t q_group_stride;
  int64_t row_stride;
  int64_t block_size;
  int64_t max_blocks;
  int64_t dtype;
  static constexpr Command kCommand = Command::eagerAttention;
  static constexpr bool kLoadsEarly = false;
  static constexpr bool kMayWait = false;
  template <class F> void each_tensor(F&& f) const {
    f(qkv, false);
    f(key_cache, false);
    f(value_cache, false);
    f(out, false);
    f(sequence_starts, false);
    f(context_lengths, false);
    f(block_tables, false);
    f(alibi_slopes, false);
    f(distance_bias, false);
    f(sinks, false);
  }
  static EagerAttentionArgs read(Words& r) {
    EagerAttentionArgs a{};
    a.qkv = r.tensor("qkv", true);
    a.key_cache = r.tensor("keyCache", true);
    a.value_cache = r.tensor("valueCache", true);
    a.out = r.tensor("out", true);
    a.sequence_starts = r.tensor("sequenceStarts", true);
    a.context_lengths = r.tensor("contextLengths", true);
    a.block_tables = r.tensor("blockTables", true);
    a.alibi_slopes = r.tensor("alibiSlopes", false);
    a.distance_bias = r.tensor("distanceBias", false);
    a.sinks = r.tensor("sinks", false);
    a.tokens = r.integer("tokens");
    a.sequences = r.integer("sequences");
    a.max_query = r.integer("maxQuery");
    a.max_context = r.integer("maxContext");
    a.num_heads = r.integer("numHeads");
    a.num_kv_heads = r.integer("numKvHeads");
    a.head_dim = r.integer("headDim");
    a.value_dim = r.integer("valueDim");
    a.scale = r.number("scale");
    a.softcap = r.number("softcap");
    a.causal = r.integer("causal");
    a.window = r.integer("window");
    a.distances = r.integer("distances");
    a.bias_offset = r.integer("biasOffset");
    a.q_offset = r.integer("qOffset");
    a.q_group_stride = r.integer("qGroupStride");
    a.row_stride = r.integer("rowStride");
    a.block_size = r.integer("blockSize");
    a.max_blocks = r.integer("maxBlocks");
    a.dtype = r.integer("dtype");
    return a;
  }
};

/// X(command, Args) for every command, in the order of their codes.
#define Q_EACH_COMMAND(X) \
  X(fill, FillArgs) \
  X(random, RandomArgs) \
  X(copy, CopyArgs) \
  X(cast, CastArgs) \
  X(embedding, EmbeddingArgs) \
  X(selectRows, SelectRowsArgs) \
  X(scatterRows, ScatterRowsArgs) \
  X(concatColumns, ConcatColumnsArgs) \
  X(linear, LinearArgs) \
  X(route, RouteArgs) \
  X(expertLinear, ExpertLinearArgs) \
  X(mixChoices, MixChoicesArgs) \
  X(rmsNorm, RmsNormArgs) \
  X(layerNorm, LayerNormArgs) \
  X(headNorm, HeadNormArgs) \
  X(ropeKvWrite, RopeKvWriteArgs) \
  X(attention, AttentionArgs) \
  X(activation, ActivationArgs) \
  X(gatedActivation, GatedActivationArgs) \
  X(add, AddArgs) \
  X(scale, ScaleArgs) \
  X(softmax, SoftmaxArgs) \
  X(crossEntropy, CrossEntropyArgs) \
  X(argmax, ArgmaxArgs) \
  X(sample, SampleArgs) \
  X(advance, AdvanceArgs) \
  X(quantize4bit, Quantize4bitArgs) \
  X(dequantize4bit, Dequantize4bitArgs) \
  X(quantizeAbsmax, QuantizeAbsmaxArgs) \
  X(quantizeInt8, QuantizeInt8Args) \
  X(dequantizeInt8, DequantizeInt8Args) \
  X(multiply, MultiplyArgs) \
  X(eagerLinear, EagerLinearArgs) \
  X(eagerRope, EagerRopeArgs) \
  X(eagerHeadNorm, EagerHeadNormArgs) \
  X(eagerAttention, EagerAttentionArgs)

/// X(Args, NextArgs) for commands that may wait, where may_wait(args), for the one that reads what they make, which
/// meets(args, next), to run with it in one launch.
#define Q_EACH_JOIN(X) \
  X(RmsNormArgs, LinearArgs)
template <class Args, class NextArgs> constexpr bool kJoins = false;
inline bool may_wait(const RmsNormArgs& a) {
  return a.rows <= 16 && !a.residual && !a.sum;
}
template <> inline constexpr bool kJoins<RmsNormArgs, LinearArgs> = true;
inline bool meets(const RmsNormArgs& a, const LinearArgs& next) {
  return next.x.data == a.out.data;
}

/// A number that is not negative and stops at the largest integer instead of wrapping.
struct Size {
  int64_t value;
};
inline Size operator+(Size a, Size b) {
  int64_t sum;
  return {__builtin_add_overflow(a.value, b.value, &sum) ? INT64_MAX : sum};
}
inline Size operator*(Size a, Size b) {
  int64_t product;
  return {__builtin_mul_overflow(a.value, b.value, &product) ? INT64_MAX : product};
}
inline Size operator/(Size a, Size b) { return {b.value == 0 ? INT64_MAX : a.value / b.value}; }
inline Size operator%(Size a, Size b) { return {b.value == 0 ? INT64_MAX : a.value % b.value}; }
inline Size ceil(Size a, Size b) {
  if (b.value == 0) return {a.value == 0 ? 0 : INT64_MAX};
  return {a.value / b.value + (a.value % b.value != 0)};
}
/// What rows of `width` take up that begin `stride` apart.
inline Size strided(Size rows, Size stride, Size width) {
  return rows.value == 0 ? Size{0} : Size{rows.value - 1} * stride + width;
}
inline Size elements_in(const Tensor& t) { return {t.bytes / element_bytes(t.dtype)}; }
template <class Item, class Of> Size sum_of(const Item* items, int64_t count, Of of) {
  Size sum{0};
  for (int64_t i = 0; i < count; ++i) sum = sum + Size{of(items[i])};
  return sum;
}

/// What a tensor may hold; see src/driver/rules.ts.
enum class Kind { act, logits, floating, f32, i32, u8, i8, any };

/// What `check` of a command calls; throws Refused.
class Check {
 public:
  /// `f32_only`: the device's activations are f32, else f32, f16 or bf16.
  explicit Check(bool f32_only) : f32_only_(f32_only) {}

  void integer(const char* name, int64_t value, int64_t least, int64_t largest) const {
    if (value < least || value > largest)
      refuse(name, "is " + std::to_string(value) + ", must be an integer from " + std::to_string(least) + " to " +
                       std::to_string(largest));
  }
  void not_negative(const char* name, double value) const {
    if (!(value >= 0)) refuse(name, "is " + std::to_string(value) + ", must not be negative");
  }
  void tensor(const char* name, const Tensor& t, Kind kind, Size needed, bool required) {
    if (!t) {
      if (required) refuse(name, "is missing");
      return;
    }
    dtype(name, t.dtype, kind);
    const int64_t held = elements_in(t).value;
    if (held < needed.value)
      refuse(name, "holds " + std::to_string(held) + " elements, " + std::to_string(needed.value) + " are needed");
  }
  void where(bool holds, const char* message) const {
    if (!holds) throw Refused(prefix_ + message);
  }
  /// Two tensors have no byte in common; or begin at the same one, when `together`.
  void apart(const char* name, const Tensor& a, const char* other, const Tensor& b, bool together) const {
    if (!a || !b || a.bytes == 0 || b.bytes == 0 || (together && a.data == b.data)) return;
    const uintptr_t from = reinterpret_cast<uintptr_t>(a.data), with = reinterpret_cast<uintptr_t>(b.data);
    if (from < with + uint64_t(b.bytes) && with < from + uint64_t(a.bytes))
      refuse(name, std::string("overlaps ") + other);
  }
  void enter(const char* list, int64_t i) {
    prefix_ = std::string(list) + "[" + std::to_string(i) + "].";
  }
  void leave() { prefix_.clear(); }

 private:
  void dtype(const char* name, DType dtype, Kind kind) {
    const bool floating = dtype <= DType::bf16, act = f32_only_ ? dtype == DType::f32 : floating;
    const auto must = [&](bool ok, const char* what) {
      if (!ok) refuse(name, std::string("is ") + kDTypeNames[int(dtype)] + ", must be " + what);
    };
    switch (kind) {
      case Kind::act:
        must(act, f32_only_ ? "f32" : "f32, f16 or bf16");
        if (has_act_ && dtype != act_) refuse(name, std::string("must be ") + kDTypeNames[int(act_)] + " as the others");
        has_act_ = true;
        act_ = dtype;
        return;
      case Kind::logits:
        return must(act, f32_only_ ? "f32" : "f32, f16 or bf16");
      case Kind::floating:
        return must(floating, "f32, f16 or bf16");
      case Kind::f32:
        return must(dtype == DType::f32, "f32");
      case Kind::i32:
        return must(dtype == DType::i32, "i32");
      case Kind::u8:
        return must(dtype == DType::u8, "u8");
      case Kind::i8:
        return must(dtype == DType::i8, "i8");
      case Kind::any:
        return;
    }
  }
  [[noreturn]] void refuse(const char* name, const std::string& what) const {
    throw Refused(prefix_ + name + " " + what);
  }
  const bool f32_only_;
  bool has_act_ = false;
  DType act_{};
  std::string prefix_;
};

inline void check(const FillArgs& a, Check& c) {
  c.tensor("out", a.out, Kind::any, Size{0}, false);
}

inline void check(const RandomArgs& a, Check& c) {
  c.integer("kind", a.kind, 0, 2);
  c.integer("seed", a.seed, -9007199254740992, 9007199254740992);
  if (Size{a.kind}.value != Size{2}.value) {
    c.tensor("out", a.out, Kind::floating, Size{0}, true);
  }
}

inline void check(const CopyArgs& a, Check& c) {
  c.where(Size{a.src.bytes}.value == Size{a.out.bytes}.value, "out must have as many bytes as src");
  c.apart("out", a.out, "src", a.src, true);
}

inline void check(const CastArgs& a, Check& c) {
  c.where(elements_in(a.x).value == elements_in(a.out).value, "out must have as many elements as x");
  c.where(((Size{int64_t(a.x.dtype)}.value <= Size{int64_t(DType::bf16)}.value) && (Size{int64_t(a.out.dtype)}.value <= Size{int64_t(DType::bf16)}.value)) || ((Size{int64_t(a.x.dtype)}.value == Size{int64_t(DType::i64)}.value) && (Size{int64_t(a.out.dtype)}.value == Size{int64_t(DType::i32)}.value)), "x and out must be floats, or i64 and i32");
  c.apart("out", a.out, "x", a.x, false);
}

inline void check(const EmbeddingArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.integer("vocab", a.vocab, 0, 2147483647);
  c.tensor("table", a.table, Kind::floating, (Size{a.vocab} * Size{a.width}), false);
  c.tensor("ids", a.ids, Kind::i32, Size{a.rows}, false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "table", a.table, false);
  c.apart("out", a.out, "ids", a.ids, false);
}

inline void check(const SelectRowsArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::any, Size{0}, false);
  c.tensor("indices", a.indices, Kind::i32, Size{a.rows}, false);
  c.tensor("out", a.out, Kind::any, (Size{a.rows} * Size{a.width}), false);
  c.where(Size{int64_t(a.x.dtype)}.value == Size{int64_t(a.out.dtype)}.value, "out must have the dtype of x");
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "indices", a.indices, false);
}

inline void check(const ScatterRowsArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::any, (Size{a.rows} * Size{a.width}), false);
  c.tensor("indices", a.indices, Kind::i32, Size{a.rows}, false);
  c.tensor("out", a.out, Kind::any, Size{0}, false);
  c.where(Size{int64_t(a.x.dtype)}.value == Size{int64_t(a.out.dtype)}.value, "out must have the dtype of x");
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "indices", a.indices, false);
}

inline void check(const ConcatColumnsArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.row_stride}), false);
  c.where(Size{a.parts_count}.value > Size{0}.value, "parts must not be empty");
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.integer("xOffset", item.x_offset, 0, 2147483647);
    c.integer("xStride", item.x_stride, 0, 2147483647);
    c.integer("xRowStride", item.x_row_stride, 0, 2147483647);
    c.integer("offset", item.offset, 0, 2147483647);
    c.integer("stride", item.stride, 0, 2147483647);
    c.integer("count", item.count, 0, 2147483647);
    c.integer("width", item.width, 1, 2147483647);
    c.tensor("x", item.x, Kind::act, (Size{a.rows} * Size{item.x_row_stride}), false);
    c.where((Size{item.x_offset} + strided(Size{item.count}, Size{item.x_stride}, Size{item.width})).value <= Size{item.x_row_stride}.value, "xOffset and xStride lead past the rows of x");
    c.where((Size{item.offset} + strided(Size{item.count}, Size{item.stride}, Size{item.width})).value <= Size{a.row_stride}.value, "offset and stride lead past the rows of out");
    c.where((Size{item.count}.value <= Size{1}.value) || (Size{item.stride}.value >= Size{item.width}.value), "stride must keep the pieces apart");
    c.leave();
  }
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("out", a.out, "parts.x", a.parts[i].x, false);
  }
}

inline void check(const LinearArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("k", a.k, 1, 2147483647);
  c.integer("activation", a.activation, 0, 7);
  c.integer("gated", a.gated, 0, 1);
  c.not_negative("limit", a.limit);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.k}), false);
  c.where(Size{a.parts_count}.value > Size{0}.value, "parts must not be empty");
  c.where(sum_of(a.parts, a.parts_count, [](const auto& item) { return item.n; }).value <= Size{2147483647}.value, "parts have more than 2^31 - 1 columns together");
  if (Size{a.gated}.value != 0) {
    c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.parts_count > 0 ? a.parts[0].n : 0}), true);
    c.where((Size{a.parts_count}.value == Size{2}.value) && (Size{a.parts_count > 0 ? a.parts[0].n : 0}.value == Size{a.parts_count > 0 ? a.parts[a.parts_count - 1].n : 0}.value), "gated takes two parts, gate and up, with as many columns each");
  }
  if ((Size{a.gated}.value != 0) && bool(a.residual)) {
    c.tensor("residual", a.residual, Kind::act, (Size{a.rows} * Size{a.parts_count > 0 ? a.parts[0].n : 0}), true);
  }
  if (!(Size{a.gated}.value != 0)) {
    c.tensor("out", a.out, Kind::act, (Size{a.rows} * sum_of(a.parts, a.parts_count, [](const auto& item) { return item.n; })), true);
  }
  if (!(Size{a.gated}.value != 0) && bool(a.residual)) {
    c.tensor("residual", a.residual, Kind::act, (Size{a.rows} * sum_of(a.parts, a.parts_count, [](const auto& item) { return item.n; })), true);
  }
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.integer("kind", item.kind, 0, 2);
    c.integer("n", item.n, 0, 2147483647);
    c.integer("blockSize", item.block_size, 0, 2147483647);
    c.integer("nestedBlockSize", item.nested_block_size, 0, 2147483647);
    c.integer("quantType", item.quant_type, 0, 1);
    c.integer("computeDtype", item.compute_dtype, 0, 2);
    c.not_negative("threshold", item.threshold);
    c.tensor("bias", item.bias, Kind::floating, Size{item.n}, false);
    if (Size{item.kind}.value == Size{0}.value) {
      c.tensor("weight", item.weight, Kind::floating, (Size{item.n} * Size{a.k}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && (Size{1}.value != 0)) {
      c.integer("blockSize", item.block_size, 1, 2147483647);
      c.integer("quantType", item.quant_type, 0, 1);
      c.tensor("weight", item.weight, Kind::u8, ceil((Size{item.n} * Size{a.k}), Size{2}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && !bool(item.nested_absmax)) {
      c.tensor("absmax", item.absmax, Kind::f32, ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && bool(item.nested_absmax)) {
      c.integer("nestedBlockSize", item.nested_block_size, 1, 2147483647);
      c.tensor("absmax", item.absmax, Kind::u8, ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), true);
      c.tensor("nestedAbsmax", item.nested_absmax, Kind::f32, ceil(ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), Size{item.nested_block_size}), true);
      c.tensor("nestedCode", item.nested_code, Kind::f32, Size{256}, true);
      c.tensor("offset", item.offset, Kind::f32, Size{1}, true);
    }
    if (Size{item.kind}.value == Size{2}.value) {
      c.tensor("weight", item.weight, Kind::i8, (Size{item.n} * Size{a.k}), true);
      c.tensor("absmax", item.absmax, Kind::f32, Size{item.n}, true);
      c.where(Size{a.k}.value <= Size{133152}.value, "weight is int8, and its sums over more than 133152 values may leave 32 bits");
    }
    c.leave();
  }
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "residual", a.residual, true);
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("out", a.out, "parts.weight", a.parts[i].weight, false);
    c.apart("out", a.out, "parts.bias", a.parts[i].bias, false);
    c.apart("out", a.out, "parts.absmax", a.parts[i].absmax, false);
    c.apart("out", a.out, "parts.nestedAbsmax", a.parts[i].nested_absmax, false);
    c.apart("out", a.out, "parts.nestedCode", a.parts[i].nested_code, false);
    c.apart("out", a.out, "parts.offset", a.parts[i].offset, false);
  }
}

inline void check(const RouteArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("experts", a.experts, 1, 256);
  c.integer("choices", a.choices, 1, 32);
  c.integer("kind", a.kind, 0, 2);
  c.integer("normalize", a.normalize, 0, 1);
  c.integer("groups", a.groups, 1, 256);
  c.integer("topGroups", a.top_groups, 1, 256);
  c.tensor("logits", a.logits, Kind::act, (Size{a.rows} * Size{a.experts}), false);
  c.tensor("bias", a.bias, Kind::f32, Size{a.experts}, false);
  c.tensor("chosen", a.chosen, Kind::i32, (Size{a.rows} * Size{a.choices}), false);
  c.tensor("scores", a.scores, Kind::f32, (Size{a.rows} * Size{a.choices}), false);
  c.where(Size{a.choices}.value <= Size{a.experts}.value, "choices must be at most experts");
  c.where((Size{a.experts} % Size{a.groups}).value == Size{0}.value, "experts must be a multiple of groups");
  c.where(Size{a.top_groups}.value <= Size{a.groups}.value, "topGroups must be at most groups");
  c.where((Size{a.top_groups} * (Size{a.experts} / Size{a.groups})).value >= Size{a.choices}.value, "topGroups hold fewer experts than choices");
  c.where((Size{a.kind}.value == Size{2}.value) || ((Size{a.groups}.value == Size{1}.value) && !bool(a.bias)), "groups and bias are for sigmoid");
  c.where((Size{a.groups}.value == Size{1}.value) || ((Size{a.experts} / Size{a.groups}).value >= Size{2}.value), "groups must hold two experts or more");
  c.apart("chosen", a.chosen, "logits", a.logits, false);
  c.apart("chosen", a.chosen, "bias", a.bias, false);
  c.apart("chosen", a.chosen, "scores", a.scores, false);
  c.apart("scores", a.scores, "logits", a.logits, false);
  c.apart("scores", a.scores, "bias", a.bias, false);
  c.apart("scores", a.scores, "chosen", a.chosen, false);
}

inline void check(const ExpertLinearArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("choices", a.choices, 1, 32);
  c.integer("experts", a.experts, 1, 256);
  c.integer("k", a.k, 1, 2147483647);
  c.integer("n", a.n, 1, 2147483647);
  c.integer("activation", a.activation, 0, 7);
  c.integer("gated", a.gated, 0, 1);
  c.integer("kind", a.kind, 0, 2);
  c.integer("weightDtype", a.weight_dtype, 0, 2);
  c.integer("nested", a.nested, 0, 1);
  c.integer("blockSize", a.block_size, 0, 2147483647);
  c.integer("nestedBlockSize", a.nested_block_size, 0, 2147483647);
  c.integer("quantType", a.quant_type, 0, 1);
  c.integer("computeDtype", a.compute_dtype, 0, 2);
  c.not_negative("limit", a.limit);
  c.not_negative("threshold", a.threshold);
  c.tensor("chosen", a.chosen, Kind::i32, (Size{a.rows} * Size{a.choices}), false);
  c.tensor("scores", a.scores, Kind::f32, (Size{a.rows} * Size{a.choices}), false);
  c.where((Size{a.parts_count}.value == Size{a.experts}.value) || (Size{a.parts_count}.value == (Size{2} * Size{a.experts}).value), "parts must be one or two for each expert");
  c.where(!(Size{a.gated}.value != 0) || (Size{a.parts_count}.value == (Size{2} * Size{a.experts}).value), "gated takes two parts for each expert, gate and up");
  c.where(!bool(a.scores) || ((Size{a.parts_count}.value == Size{a.experts}.value) && (Size{a.activation}.value == Size{0}.value)), "scores take one part for each expert, and no activation");
  c.where(bool(a.scores) || !bool(a.residual), "residual is for results with scores");
  c.where((Size{a.kind}.value != Size{2}.value) || (Size{a.k}.value <= Size{133152}.value), "k is above 133152: sums of int8 weights may leave 32 bits");
  if (bool(a.scores)) {
    c.tensor("x", a.x, Kind::act, ((Size{a.rows} * Size{a.choices}) * Size{a.k}), true);
    c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.n}), true);
  }
  if (bool(a.residual)) {
    c.tensor("residual", a.residual, Kind::act, (Size{a.rows} * Size{a.n}), true);
  }
  if (!bool(a.scores) && (Size{a.gated}.value != 0)) {
    c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.k}), true);
    c.tensor("out", a.out, Kind::act, ((Size{a.rows} * Size{a.choices}) * Size{a.n}), true);
  }
  if (!bool(a.scores) && !(Size{a.gated}.value != 0)) {
    c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.k}), true);
    c.tensor("out", a.out, Kind::act, (((Size{a.rows} * Size{a.choices}) * Size{a.n}) * (Size{a.parts_count} / Size{a.experts})), true);
  }
  if (Size{a.kind}.value == Size{1}.value) {
    c.integer("blockSize", a.block_size, 1, 2147483647);
  }
  if ((Size{a.kind}.value == Size{1}.value) && (Size{a.nested}.value != 0)) {
    c.integer("nestedBlockSize", a.nested_block_size, 1, 2147483647);
  }
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.tensor("bias", item.bias, Kind::floating, Size{a.n}, false);
    c.where((Size{a.kind}.value != Size{0}.value) || (Size{int64_t(item.weight.dtype)}.value == Size{a.weight_dtype}.value), "weight must have the dtype of the others");
    if (Size{a.kind}.value == Size{0}.value) {
      c.tensor("weight", item.weight, Kind::floating, (Size{a.n} * Size{a.k}), true);
    }
    if (Size{a.kind}.value == Size{1}.value) {
      c.tensor("weight", item.weight, Kind::u8, ceil((Size{a.n} * Size{a.k}), Size{2}), true);
    }
    if ((Size{a.kind}.value == Size{1}.value) && !(Size{a.nested}.value != 0)) {
      c.tensor("absmax", item.absmax, Kind::f32, ceil((Size{a.n} * Size{a.k}), Size{a.block_size}), true);
    }
    if ((Size{a.kind}.value == Size{1}.value) && (Size{a.nested}.value != 0)) {
      c.tensor("absmax", item.absmax, Kind::u8, ceil((Size{a.n} * Size{a.k}), Size{a.block_size}), true);
      c.tensor("nestedAbsmax", item.nested_absmax, Kind::f32, ceil(ceil((Size{a.n} * Size{a.k}), Size{a.block_size}), Size{a.nested_block_size}), true);
      c.tensor("nestedCode", item.nested_code, Kind::f32, Size{256}, true);
      c.tensor("offset", item.offset, Kind::f32, Size{1}, true);
    }
    if (Size{a.kind}.value == Size{2}.value) {
      c.tensor("weight", item.weight, Kind::i8, (Size{a.n} * Size{a.k}), true);
      c.tensor("absmax", item.absmax, Kind::f32, Size{a.n}, true);
    }
    c.leave();
  }
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "chosen", a.chosen, false);
  c.apart("out", a.out, "scores", a.scores, false);
  c.apart("out", a.out, "residual", a.residual, true);
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("out", a.out, "parts.weight", a.parts[i].weight, false);
    c.apart("out", a.out, "parts.bias", a.parts[i].bias, false);
    c.apart("out", a.out, "parts.absmax", a.parts[i].absmax, false);
    c.apart("out", a.out, "parts.nestedAbsmax", a.parts[i].nested_absmax, false);
    c.apart("out", a.out, "parts.nestedCode", a.parts[i].nested_code, false);
    c.apart("out", a.out, "parts.offset", a.parts[i].offset, false);
  }
}

inline void check(const MixChoicesArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("choices", a.choices, 1, 32);
  c.integer("width", a.width, 1, 2147483647);
  c.integer("dtype", a.dtype, 0, 2);
  c.tensor("x", a.x, Kind::act, ((Size{a.rows} * Size{a.choices}) * Size{a.width}), false);
  c.tensor("scores", a.scores, Kind::f32, (Size{a.rows} * Size{a.choices}), false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "scores", a.scores, false);
}

inline void check(const RmsNormArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("residual", a.residual, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("sum", a.sum, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("weight", a.weight, Kind::floating, Size{a.width}, false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.where(bool(a.residual) == bool(a.sum), "residual and sum come together");
  c.apart("sum", a.sum, "x", a.x, true);
  c.apart("sum", a.sum, "residual", a.residual, true);
  c.apart("sum", a.sum, "weight", a.weight, false);
  c.apart("sum", a.sum, "out", a.out, false);
  c.apart("out", a.out, "x", a.x, true);
  c.apart("out", a.out, "residual", a.residual, true);
  c.apart("out", a.out, "sum", a.sum, true);
  c.apart("out", a.out, "weight", a.weight, false);
}

inline void check(const LayerNormArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("residual", a.residual, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("sum", a.sum, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("weight", a.weight, Kind::floating, Size{a.width}, false);
  c.tensor("bias", a.bias, Kind::floating, Size{a.width}, false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.where(bool(a.residual) == bool(a.sum), "residual and sum come together");
  c.apart("sum", a.sum, "x", a.x, true);
  c.apart("sum", a.sum, "residual", a.residual, true);
  c.apart("sum", a.sum, "weight", a.weight, false);
  c.apart("sum", a.sum, "bias", a.bias, false);
  c.apart("sum", a.sum, "out", a.out, false);
  c.apart("out", a.out, "x", a.x, true);
  c.apart("out", a.out, "residual", a.residual, true);
  c.apart("out", a.out, "sum", a.sum, true);
  c.apart("out", a.out, "weight", a.weight, false);
  c.apart("out", a.out, "bias", a.bias, false);
}

inline void check(const HeadNormArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("centred", a.centred, 0, 1);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.row_stride}), false);
  c.where(Size{a.parts_count}.value > Size{0}.value, "parts must not be empty");
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.integer("weightStride", item.weight_stride, 0, 2147483647);
    c.integer("offset", item.offset, 0, 2147483647);
    c.integer("count", item.count, 0, 2147483647);
    c.integer("width", item.width, 1, 2147483647);
    c.integer("group", item.group, 1, 2147483647);
    c.integer("groupStride", item.group_stride, 0, 2147483647);
    c.tensor("weight", item.weight, Kind::floating, strided(Size{item.count}, Size{item.weight_stride}, Size{item.width}), false);
    c.where((Size{item.count} % Size{item.group}).value == Size{0}.value, "count must be a multiple of group");
    c.where((Size{item.count}.value <= Size{item.group}.value) || (Size{item.group_stride}.value >= (Size{item.group} * Size{item.width}).value), "groupStride must keep the groups apart");
    c.where((Size{item.offset} + strided((Size{item.count} / Size{item.group}), Size{item.group_stride}, (Size{item.group} * Size{item.width}))).value <= Size{a.row_stride}.value, "offset and groupStride lead the heads past their row");
    c.leave();
  }
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("x", a.x, "parts.weight", a.parts[i].weight, false);
  }
}

inline void check(const RopeKvWriteArgs& a, Check& c) {
  c.integer("tokens", a.tokens, 0, 2147483647);
  c.integer("numHeads", a.num_heads, 0, 2147483647);
  c.integer("numKvHeads", a.num_kv_heads, 1, 2147483647);
  c.integer("headDim", a.head_dim, 1, 2147483647);
  c.integer("valueDim", a.value_dim, 1, 2147483647);
  c.integer("rotaryDim", a.rotary_dim, 0, 2147483647);
  c.integer("rotaryOffset", a.rotary_offset, 0, 2147483647);
  c.integer("interleaved", a.interleaved, 0, 2147483647);
  c.integer("perSequence", a.per_sequence, 0, 2147483647);
  c.integer("scalingLength", a.scaling_length, 1, 2147483647);
  c.integer("qOffset", a.q_offset, 0, 2147483647);
  c.integer("qGroupStride", a.q_group_stride, 0, 2147483647);
  c.integer("kOffset", a.k_offset, 0, 2147483647);
  c.integer("vOffset", a.v_offset, 0, 2147483647);
  c.integer("kvStride", a.kv_stride, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("blockSize", a.block_size, 1, 2147483647);
  c.integer("maxBlocks", a.max_blocks, 1, 2147483647);
  c.tensor("qkv", a.qkv, Kind::act, (Size{a.tokens} * Size{a.row_stride}), false);
  c.tensor("keyCache", a.key_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.head_dim}), false);
  c.tensor("valueCache", a.value_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.value_dim}), false);
  c.tensor("positions", a.positions, Kind::i32, Size{a.tokens}, false);
  c.tensor("sequenceOf", a.sequence_of, Kind::i32, Size{a.tokens}, false);
  c.tensor("blockTables", a.block_tables, Kind::i32, Size{0}, false);
  c.tensor("inverseFrequencies", a.inverse_frequencies, Kind::f32, (Size{a.rotary_dim} / Size{2}), false);
  c.where((Size{a.num_kv_heads}.value > Size{0}.value) && ((Size{a.num_heads} % Size{a.num_kv_heads}).value == Size{0}.value), "numHeads must be a multiple of numKvHeads");
  c.where((Size{a.q_offset} + strided(Size{a.num_kv_heads}, Size{a.q_group_stride}, ((Size{a.num_heads} / Size{a.num_kv_heads}) * Size{a.head_dim}))).value <= Size{a.row_stride}.value, "qOffset and qGroupStride lead the queries past their row");
  c.where((Size{a.k_offset} + strided(Size{a.num_kv_heads}, Size{a.kv_stride}, Size{a.head_dim})).value <= Size{a.row_stride}.value, "kOffset and kvStride lead the keys past their row");
  c.where((Size{a.v_offset} + strided(Size{a.num_kv_heads}, Size{a.kv_stride}, Size{a.value_dim})).value <= Size{a.row_stride}.value, "vOffset and kvStride lead the values past their row");
  c.where(((Size{int64_t(a.key_cache.dtype)}.value == Size{int64_t(a.value_cache.dtype)}.value) && ((Size{a.key_cache.bytes} / Size{a.head_dim}).value == (Size{a.value_cache.bytes} / Size{a.value_dim}).value)) && ((Size{a.value_cache.bytes} % Size{a.value_dim}).value == Size{0}.value), "valueCache must be of the dtype of keyCache, with as many rows, of valueDim each");
  c.where(((Size{a.rotary_dim} % Size{2}).value == Size{0}.value) && ((Size{a.rotary_offset} + Size{a.rotary_dim}).value <= Size{a.head_dim}.value), "rotaryDim must be even, and at most headDim with rotaryOffset");
  c.apart("qkv", a.qkv, "keyCache", a.key_cache, false);
  c.apart("qkv", a.qkv, "valueCache", a.value_cache, false);
  c.apart("qkv", a.qkv, "positions", a.positions, false);
  c.apart("qkv", a.qkv, "sequenceOf", a.sequence_of, false);
  c.apart("qkv", a.qkv, "blockTables", a.block_tables, false);
  c.apart("qkv", a.qkv, "inverseFrequencies", a.inverse_frequencies, false);
  c.apart("keyCache", a.key_cache, "qkv", a.qkv, false);
  c.apart("keyCache", a.key_cache, "valueCache", a.value_cache, false);
  c.apart("keyCache", a.key_cache, "positions", a.positions, false);
  c.apart("keyCache", a.key_cache, "sequenceOf", a.sequence_of, false);
  c.apart("keyCache", a.key_cache, "blockTables", a.block_tables, false);
  c.apart("keyCache", a.key_cache, "inverseFrequencies", a.inverse_frequencies, false);
  c.apart("valueCache", a.value_cache, "qkv", a.qkv, false);
  c.apart("valueCache", a.value_cache, "keyCache", a.key_cache, false);
  c.apart("valueCache", a.value_cache, "positions", a.positions, false);
  c.apart("valueCache", a.value_cache, "sequenceOf", a.sequence_of, false);
  c.apart("valueCache", a.value_cache, "blockTables", a.block_tables, false);
  c.apart("valueCache", a.value_cache, "inverseFrequencies", a.inverse_frequencies, false);
}

inline void check(const AttentionArgs& a, Check& c) {
  c.integer("tokens", a.tokens, 0, 2147483647);
  c.integer("sequences", a.sequences, 0, 2147483647);
  c.integer("maxQuery", a.max_query, 0, 2147483647);
  c.integer("maxContext", a.max_context, 0, 2147483647);
  c.integer("numHeads", a.num_heads, 1, 2147483647);
  c.integer("numKvHeads", a.num_kv_heads, 1, 2147483647);
  c.integer("headDim", a.head_dim, 1, 2147483647);
  c.integer("valueDim", a.value_dim, 1, 2147483647);
  c.integer("causal", a.causal, 0, 2147483647);
  c.integer("window", a.window, 0, 2147483647);
  c.integer("distances", a.distances, 0, 1073741824);
  c.integer("biasOffset", a.bias_offset, 0, 1073741824);
  c.integer("qOffset", a.q_offset, 0, 2147483647);
  c.integer("qGroupStride", a.q_group_stride, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("blockSize", a.block_size, 1, 2147483647);
  c.integer("maxBlocks", a.max_blocks, 1, 2147483647);
  c.tensor("qkv", a.qkv, Kind::act, (Size{a.tokens} * Size{a.row_stride}), false);
  c.tensor("keyCache", a.key_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.head_dim}), false);
  c.tensor("valueCache", a.value_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.value_dim}), false);
  c.tensor("out", a.out, Kind::act, ((Size{a.tokens} * Size{a.num_heads}) * Size{a.value_dim}), false);
  c.tensor("sequenceStarts", a.sequence_starts, Kind::i32, (Size{a.sequences} + Size{1}), false);
  c.tensor("contextLengths", a.context_lengths, Kind::i32, Size{a.sequences}, false);
  c.tensor("blockTables", a.block_tables, Kind::i32, (Size{a.sequences} * Size{a.max_blocks}), false);
  c.tensor("alibiSlopes", a.alibi_slopes, Kind::f32, Size{a.num_heads}, false);
  c.tensor("distanceBias", a.distance_bias, Kind::f32, (Size{a.distances} * Size{a.num_heads}), false);
  c.tensor("sinks", a.sinks, Kind::floating, Size{a.num_heads}, false);
  c.where((Size{a.num_kv_heads}.value > Size{0}.value) && ((Size{a.num_heads} % Size{a.num_kv_heads}).value == Size{0}.value), "numHeads must be a multiple of numKvHeads");
  c.where((Size{a.q_offset} + strided(Size{a.num_kv_heads}, Size{a.q_group_stride}, ((Size{a.num_heads} / Size{a.num_kv_heads}) * Size{a.head_dim}))).value <= Size{a.row_stride}.value, "qOffset and qGroupStride lead the queries past their row");
  c.where(((Size{int64_t(a.key_cache.dtype)}.value == Size{int64_t(a.value_cache.dtype)}.value) && ((Size{a.key_cache.bytes} / Size{a.head_dim}).value == (Size{a.value_cache.bytes} / Size{a.value_dim}).value)) && ((Size{a.value_cache.bytes} % Size{a.value_dim}).value == Size{0}.value), "valueCache must be of the dtype of keyCache, with as many rows, of valueDim each");
  if (bool(a.distance_bias)) {
    c.integer("distances", a.distances, 1, 1073741824);
  }
  c.apart("out", a.out, "qkv", a.qkv, false);
  c.apart("out", a.out, "keyCache", a.key_cache, false);
  c.apart("out", a.out, "valueCache", a.value_cache, false);
  c.apart("out", a.out, "sequenceStarts", a.sequence_starts, false);
  c.apart("out", a.out, "contextLengths", a.context_lengths, false);
  c.apart("out", a.out, "blockTables", a.block_tables, false);
  c.apart("out", a.out, "alibiSlopes", a.alibi_slopes, false);
  c.apart("out", a.out, "distanceBias", a.distance_bias, false);
  c.apart("out", a.out, "sinks", a.sinks, false);
}

inline void check(const ActivationArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.integer("kind", a.kind, 0, 7);
  c.tensor("x", a.x, Kind::act, Size{a.count}, false);
  c.tensor("out", a.out, Kind::act, Size{a.count}, false);
  c.apart("out", a.out, "x", a.x, true);
}

inline void check(const GatedActivationArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.integer("kind", a.kind, 0, 7);
  c.integer("dtype", a.dtype, 0, 2);
  c.not_negative("limit", a.limit);
  c.tensor("x", a.x, Kind::act, ((Size{a.rows} * Size{a.width}) * Size{2}), false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "x", a.x, false);
}

inline void check(const AddArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.tensor("a", a.a, Kind::act, Size{a.count}, false);
  c.tensor("b", a.b, Kind::act, Size{a.count}, false);
  c.tensor("out", a.out, Kind::act, Size{a.count}, false);
  c.apart("out", a.out, "a", a.a, true);
  c.apart("out", a.out, "b", a.b, true);
}

inline void check(const ScaleArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.tensor("x", a.x, Kind::act, Size{a.count}, false);
  c.tensor("out", a.out, Kind::act, Size{a.count}, false);
  c.apart("out", a.out, "x", a.x, true);
}

inline void check(const SoftmaxArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "x", a.x, true);
}

inline void check(const CrossEntropyArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("logits", a.logits, Kind::logits, (Size{a.rows} * Size{a.width}), false);
  c.tensor("targets", a.targets, Kind::i32, Size{a.rows}, false);
  c.tensor("out", a.out, Kind::f32, Size{a.rows}, false);
  c.apart("out", a.out, "logits", a.logits, false);
  c.apart("out", a.out, "targets", a.targets, false);
}

inline void check(const ArgmaxArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.tensor("x", a.x, Kind::logits, (Size{a.rows} * Size{a.width}), false);
  c.tensor("out", a.out, Kind::i32, Size{a.rows}, false);
  c.apart("out", a.out, "x", a.x, false);
}

inline void check(const SampleArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.integer("historyCapacity", a.history_capacity, 0, 2147483647);
  c.tensor("logits", a.logits, Kind::logits, (Size{a.rows} * Size{a.width}), false);
  c.tensor("out", a.out, Kind::i32, Size{a.rows}, false);
  c.tensor("floats", a.floats, Kind::f32, (Size{a.rows} * Size{4}), false);
  c.tensor("ints", a.ints, Kind::i32, (Size{a.rows} * Size{4}), false);
  c.tensor("counters", a.counters, Kind::i32, Size{a.rows}, false);
  c.tensor("history", a.history, Kind::i32, (Size{a.rows} * Size{a.history_capacity}), false);
  c.tensor("historyLengths", a.history_lengths, Kind::i32, Size{a.rows}, false);
  c.where(bool(a.history) == bool(a.history_lengths), "history and historyLengths come together");
  c.apart("out", a.out, "logits", a.logits, false);
  c.apart("out", a.out, "floats", a.floats, false);
  c.apart("out", a.out, "ints", a.ints, false);
  c.apart("out", a.out, "counters", a.counters, false);
  c.apart("out", a.out, "history", a.history, false);
  c.apart("out", a.out, "historyLengths", a.history_lengths, false);
}

inline void check(const AdvanceArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("historyCapacity", a.history_capacity, 0, 2147483647);
  c.tensor("sampled", a.sampled, Kind::i32, Size{a.rows}, false);
  c.tensor("tokenIds", a.token_ids, Kind::i32, Size{a.rows}, false);
  c.tensor("positions", a.positions, Kind::i32, Size{a.rows}, false);
  c.tensor("contextLengths", a.context_lengths, Kind::i32, Size{a.rows}, false);
  c.tensor("counters", a.counters, Kind::i32, Size{a.rows}, false);
  c.tensor("history", a.history, Kind::i32, (Size{a.rows} * Size{a.history_capacity}), false);
  c.tensor("historyLengths", a.history_lengths, Kind::i32, Size{a.rows}, false);
  c.where(bool(a.history_lengths) || !bool(a.history), "historyLengths must come with history");
  c.apart("tokenIds", a.token_ids, "sampled", a.sampled, true);
  c.apart("tokenIds", a.token_ids, "positions", a.positions, false);
  c.apart("tokenIds", a.token_ids, "contextLengths", a.context_lengths, false);
  c.apart("tokenIds", a.token_ids, "counters", a.counters, false);
  c.apart("tokenIds", a.token_ids, "history", a.history, false);
  c.apart("tokenIds", a.token_ids, "historyLengths", a.history_lengths, false);
  c.apart("positions", a.positions, "sampled", a.sampled, false);
  c.apart("positions", a.positions, "tokenIds", a.token_ids, false);
  c.apart("positions", a.positions, "contextLengths", a.context_lengths, false);
  c.apart("positions", a.positions, "counters", a.counters, false);
  c.apart("positions", a.positions, "history", a.history, false);
  c.apart("positions", a.positions, "historyLengths", a.history_lengths, false);
  c.apart("contextLengths", a.context_lengths, "sampled", a.sampled, false);
  c.apart("contextLengths", a.context_lengths, "tokenIds", a.token_ids, false);
  c.apart("contextLengths", a.context_lengths, "positions", a.positions, false);
  c.apart("contextLengths", a.context_lengths, "counters", a.counters, false);
  c.apart("contextLengths", a.context_lengths, "history", a.history, false);
  c.apart("contextLengths", a.context_lengths, "historyLengths", a.history_lengths, false);
  c.apart("counters", a.counters, "sampled", a.sampled, false);
  c.apart("counters", a.counters, "tokenIds", a.token_ids, false);
  c.apart("counters", a.counters, "positions", a.positions, false);
  c.apart("counters", a.counters, "contextLengths", a.context_lengths, false);
  c.apart("counters", a.counters, "history", a.history, false);
  c.apart("counters", a.counters, "historyLengths", a.history_lengths, false);
  c.apart("history", a.history, "sampled", a.sampled, false);
  c.apart("history", a.history, "tokenIds", a.token_ids, false);
  c.apart("history", a.history, "positions", a.positions, false);
  c.apart("history", a.history, "contextLengths", a.context_lengths, false);
  c.apart("history", a.history, "counters", a.counters, false);
  c.apart("history", a.history, "historyLengths", a.history_lengths, false);
  c.apart("historyLengths", a.history_lengths, "sampled", a.sampled, false);
  c.apart("historyLengths", a.history_lengths, "tokenIds", a.token_ids, false);
  c.apart("historyLengths", a.history_lengths, "positions", a.positions, false);
  c.apart("historyLengths", a.history_lengths, "contextLengths", a.context_lengths, false);
  c.apart("historyLengths", a.history_lengths, "counters", a.counters, false);
  c.apart("historyLengths", a.history_lengths, "history", a.history, false);
}

inline void check(const Quantize4bitArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.integer("blockSize", a.block_size, 2, 2147483647);
  c.integer("quantType", a.quant_type, 0, 1);
  c.tensor("x", a.x, Kind::floating, Size{a.count}, false);
  c.tensor("codes", a.codes, Kind::u8, ceil(Size{a.count}, Size{2}), false);
  c.tensor("absmax", a.absmax, Kind::f32, ceil(Size{a.count}, Size{a.block_size}), false);
  c.where((Size{a.block_size} % Size{2}).value == Size{0}.value, "blockSize must be even");
  c.apart("codes", a.codes, "x", a.x, false);
  c.apart("codes", a.codes, "absmax", a.absmax, false);
  c.apart("absmax", a.absmax, "x", a.x, false);
  c.apart("absmax", a.absmax, "codes", a.codes, false);
}

inline void check(const Dequantize4bitArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.integer("blockSize", a.block_size, 2, 2147483647);
  c.integer("nestedBlockSize", a.nested_block_size, 0, 2147483647);
  c.integer("quantType", a.quant_type, 0, 2147483647);
  c.tensor("out", a.out, Kind::floating, Size{a.count}, false);
  c.where((Size{a.block_size} % Size{2}).value == Size{0}.value, "blockSize must be even");
  c.integer("blockSize", a.block_size, 1, 2147483647);
  c.integer("quantType", a.quant_type, 0, 1);
  c.tensor("codes", a.codes, Kind::u8, ceil(Size{a.count}, Size{2}), true);
  if (!bool(a.nested_absmax)) {
    c.tensor("absmax", a.absmax, Kind::f32, ceil(Size{a.count}, Size{a.block_size}), true);
  }
  if (bool(a.nested_absmax)) {
    c.integer("nestedBlockSize", a.nested_block_size, 1, 2147483647);
    c.tensor("absmax", a.absmax, Kind::u8, ceil(Size{a.count}, Size{a.block_size}), true);
    c.tensor("nestedAbsmax", a.nested_absmax, Kind::f32, ceil(ceil(Size{a.count}, Size{a.block_size}), Size{a.nested_block_size}), true);
    c.tensor("nestedCode", a.nested_code, Kind::f32, Size{256}, true);
    c.tensor("offset", a.offset, Kind::f32, Size{1}, true);
  }
  c.apart("out", a.out, "codes", a.codes, false);
  c.apart("out", a.out, "absmax", a.absmax, false);
  c.apart("out", a.out, "nestedAbsmax", a.nested_absmax, false);
  c.apart("out", a.out, "nestedCode", a.nested_code, false);
  c.apart("out", a.out, "offset", a.offset, false);
}

inline void check(const QuantizeAbsmaxArgs& a, Check& c) {
  c.integer("count", a.count, 0, 9007199254740992);
  c.integer("blockSize", a.block_size, 1, 2147483647);
  c.tensor("x", a.x, Kind::f32, Size{a.count}, false);
  c.tensor("out", a.out, Kind::u8, Size{a.count}, false);
  c.tensor("nestedAbsmax", a.nested_absmax, Kind::f32, ceil(Size{a.count}, Size{a.block_size}), false);
  c.tensor("nestedCode", a.nested_code, Kind::f32, Size{256}, false);
  c.tensor("offset", a.offset, Kind::f32, Size{1}, false);
  c.apart("out", a.out, "x", a.x, false);
  c.apart("out", a.out, "nestedAbsmax", a.nested_absmax, false);
  c.apart("out", a.out, "nestedCode", a.nested_code, false);
  c.apart("out", a.out, "offset", a.offset, false);
  c.apart("nestedAbsmax", a.nested_absmax, "x", a.x, false);
  c.apart("nestedAbsmax", a.nested_absmax, "out", a.out, false);
  c.apart("nestedAbsmax", a.nested_absmax, "nestedCode", a.nested_code, false);
  c.apart("nestedAbsmax", a.nested_absmax, "offset", a.offset, false);
  c.apart("offset", a.offset, "x", a.x, false);
  c.apart("offset", a.offset, "out", a.out, false);
  c.apart("offset", a.offset, "nestedAbsmax", a.nested_absmax, false);
  c.apart("offset", a.offset, "nestedCode", a.nested_code, false);
}

inline void check(const QuantizeInt8Args& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 0, 2147483647);
  c.tensor("x", a.x, Kind::floating, (Size{a.rows} * Size{a.width}), false);
  c.tensor("codes", a.codes, Kind::i8, (Size{a.rows} * Size{a.width}), false);
  c.tensor("absmax", a.absmax, Kind::f32, Size{a.rows}, false);
  c.apart("codes", a.codes, "x", a.x, false);
  c.apart("codes", a.codes, "absmax", a.absmax, false);
  c.apart("absmax", a.absmax, "x", a.x, false);
  c.apart("absmax", a.absmax, "codes", a.codes, false);
}

inline void check(const DequantizeInt8Args& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 0, 2147483647);
  c.tensor("codes", a.codes, Kind::i8, (Size{a.rows} * Size{a.width}), false);
  c.tensor("absmax", a.absmax, Kind::f32, Size{a.rows}, false);
  c.tensor("out", a.out, Kind::floating, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "codes", a.codes, false);
  c.apart("out", a.out, "absmax", a.absmax, false);
}

inline void check(const MultiplyArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("width", a.width, 1, 2147483647);
  c.integer("aStride", a.a_stride, 0, 2147483647);
  c.integer("bStride", a.b_stride, 0, 2147483647);
  c.tensor("a", a.a, Kind::act, strided(Size{a.rows}, Size{a.a_stride}, Size{a.width}), false);
  c.tensor("b", a.b, Kind::floating, strided(Size{a.rows}, Size{a.b_stride}, Size{a.width}), false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * Size{a.width}), false);
  c.apart("out", a.out, "a", a.a, false);
  c.apart("out", a.out, "b", a.b, false);
}

inline void check(const EagerLinearArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("k", a.k, 1, 2147483647);
  c.integer("dtype", a.dtype, 0, 2);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.k}), false);
  c.tensor("out", a.out, Kind::act, (Size{a.rows} * sum_of(a.parts, a.parts_count, [](const auto& item) { return item.n; })), false);
  c.where(Size{a.parts_count}.value > Size{0}.value, "parts must not be empty");
  c.where(sum_of(a.parts, a.parts_count, [](const auto& item) { return item.n; }).value <= Size{2147483647}.value, "parts have more than 2^31 - 1 columns together");
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.integer("kind", item.kind, 0, 2);
    c.integer("n", item.n, 0, 2147483647);
    c.integer("blockSize", item.block_size, 0, 2147483647);
    c.integer("nestedBlockSize", item.nested_block_size, 0, 2147483647);
    c.integer("quantType", item.quant_type, 0, 1);
    c.integer("computeDtype", item.compute_dtype, 0, 2);
    c.not_negative("threshold", item.threshold);
    c.tensor("bias", item.bias, Kind::floating, Size{item.n}, false);
    if (Size{item.kind}.value == Size{0}.value) {
      c.tensor("weight", item.weight, Kind::floating, (Size{item.n} * Size{a.k}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && (Size{1}.value != 0)) {
      c.integer("blockSize", item.block_size, 1, 2147483647);
      c.integer("quantType", item.quant_type, 0, 1);
      c.tensor("weight", item.weight, Kind::u8, ceil((Size{item.n} * Size{a.k}), Size{2}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && !bool(item.nested_absmax)) {
      c.tensor("absmax", item.absmax, Kind::f32, ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), true);
    }
    if ((Size{item.kind}.value == Size{1}.value) && bool(item.nested_absmax)) {
      c.integer("nestedBlockSize", item.nested_block_size, 1, 2147483647);
      c.tensor("absmax", item.absmax, Kind::u8, ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), true);
      c.tensor("nestedAbsmax", item.nested_absmax, Kind::f32, ceil(ceil((Size{item.n} * Size{a.k}), Size{item.block_size}), Size{item.nested_block_size}), true);
      c.tensor("nestedCode", item.nested_code, Kind::f32, Size{256}, true);
      c.tensor("offset", item.offset, Kind::f32, Size{1}, true);
    }
    if (Size{item.kind}.value == Size{2}.value) {
      c.tensor("weight", item.weight, Kind::i8, (Size{item.n} * Size{a.k}), true);
      c.tensor("absmax", item.absmax, Kind::f32, Size{item.n}, true);
      c.where(Size{a.k}.value <= Size{133152}.value, "weight is int8, and its sums over more than 133152 values may leave 32 bits");
    }
    c.leave();
  }
  c.apart("out", a.out, "x", a.x, false);
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("out", a.out, "parts.weight", a.parts[i].weight, false);
    c.apart("out", a.out, "parts.bias", a.parts[i].bias, false);
    c.apart("out", a.out, "parts.absmax", a.parts[i].absmax, false);
    c.apart("out", a.out, "parts.nestedAbsmax", a.parts[i].nested_absmax, false);
    c.apart("out", a.out, "parts.nestedCode", a.parts[i].nested_code, false);
    c.apart("out", a.out, "parts.offset", a.parts[i].offset, false);
  }
}

inline void check(const EagerRopeArgs& a, Check& c) {
  c.integer("tokens", a.tokens, 0, 2147483647);
  c.integer("numHeads", a.num_heads, 0, 2147483647);
  c.integer("numKvHeads", a.num_kv_heads, 1, 2147483647);
  c.integer("headDim", a.head_dim, 1, 2147483647);
  c.integer("rotaryDim", a.rotary_dim, 2, 2147483647);
  c.integer("rotaryOffset", a.rotary_offset, 0, 2147483647);
  c.integer("interleaved", a.interleaved, 0, 2147483647);
  c.integer("perSequence", a.per_sequence, 0, 2147483647);
  c.integer("scalingLength", a.scaling_length, 1, 2147483647);
  c.integer("qOffset", a.q_offset, 0, 2147483647);
  c.integer("qGroupStride", a.q_group_stride, 0, 2147483647);
  c.integer("kOffset", a.k_offset, 0, 2147483647);
  c.integer("kvStride", a.kv_stride, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("dtype", a.dtype, 0, 2);
  c.tensor("qkv", a.qkv, Kind::act, (Size{a.tokens} * Size{a.row_stride}), false);
  c.tensor("positions", a.positions, Kind::i32, Size{a.tokens}, false);
  c.tensor("sequenceOf", a.sequence_of, Kind::i32, Size{a.tokens}, false);
  c.tensor("inverseFrequencies", a.inverse_frequencies, Kind::f32, (Size{a.rotary_dim} / Size{2}), false);
  c.where((Size{a.num_kv_heads}.value > Size{0}.value) && ((Size{a.num_heads} % Size{a.num_kv_heads}).value == Size{0}.value), "numHeads must be a multiple of numKvHeads");
  c.where((Size{a.q_offset} + strided(Size{a.num_kv_heads}, Size{a.q_group_stride}, ((Size{a.num_heads} / Size{a.num_kv_heads}) * Size{a.head_dim}))).value <= Size{a.row_stride}.value, "qOffset and qGroupStride lead the queries past their row");
  c.where((Size{a.k_offset} + strided(Size{a.num_kv_heads}, Size{a.kv_stride}, Size{a.head_dim})).value <= Size{a.row_stride}.value, "kOffset and kvStride lead the keys past their row");
  c.where(((Size{a.rotary_dim} % Size{2}).value == Size{0}.value) && ((Size{a.rotary_offset} + Size{a.rotary_dim}).value <= Size{a.head_dim}.value), "rotaryDim must be even, and at most headDim with rotaryOffset");
  c.apart("qkv", a.qkv, "positions", a.positions, false);
  c.apart("qkv", a.qkv, "sequenceOf", a.sequence_of, false);
  c.apart("qkv", a.qkv, "inverseFrequencies", a.inverse_frequencies, false);
}

inline void check(const EagerHeadNormArgs& a, Check& c) {
  c.integer("rows", a.rows, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("centred", a.centred, 0, 1);
  c.integer("roundFirst", a.round_first, 0, 1);
  c.integer("dtype", a.dtype, 0, 2);
  c.tensor("x", a.x, Kind::act, (Size{a.rows} * Size{a.row_stride}), false);
  c.where(Size{a.parts_count}.value > Size{0}.value, "parts must not be empty");
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const auto& item = a.parts[i];
    c.enter("parts", i);
    c.integer("weightStride", item.weight_stride, 0, 2147483647);
    c.integer("offset", item.offset, 0, 2147483647);
    c.integer("count", item.count, 0, 2147483647);
    c.integer("width", item.width, 1, 2147483647);
    c.integer("group", item.group, 1, 2147483647);
    c.integer("groupStride", item.group_stride, 0, 2147483647);
    c.tensor("weight", item.weight, Kind::floating, strided(Size{item.count}, Size{item.weight_stride}, Size{item.width}), false);
    c.where((Size{item.count} % Size{item.group}).value == Size{0}.value, "count must be a multiple of group");
    c.where((Size{item.count}.value <= Size{item.group}.value) || (Size{item.group_stride}.value >= (Size{item.group} * Size{item.width}).value), "groupStride must keep the groups apart");
    c.where((Size{item.offset} + strided((Size{item.count} / Size{item.group}), Size{item.group_stride}, (Size{item.group} * Size{item.width}))).value <= Size{a.row_stride}.value, "offset and groupStride lead the heads past their row");
    c.leave();
  }
  for (int64_t i = 0; i < a.parts_count; ++i) {
    c.apart("x", a.x, "parts.weight", a.parts[i].weight, false);
  }
}

inline void check(const EagerAttentionArgs& a, Check& c) {
  c.integer("tokens", a.tokens, 0, 2147483647);
  c.integer("sequences", a.sequences, 0, 2147483647);
  c.integer("maxQuery", a.max_query, 0, 2147483647);
  c.integer("maxContext", a.max_context, 0, 2147483647);
  c.integer("numHeads", a.num_heads, 1, 2147483647);
  c.integer("numKvHeads", a.num_kv_heads, 1, 2147483647);
  c.integer("headDim", a.head_dim, 1, 2147483647);
  c.integer("valueDim", a.value_dim, 1, 2147483647);
  c.integer("causal", a.causal, 0, 2147483647);
  c.integer("window", a.window, 0, 2147483647);
  c.integer("distances", a.distances, 0, 1073741824);
  c.integer("biasOffset", a.bias_offset, 0, 1073741824);
  c.integer("qOffset", a.q_offset, 0, 2147483647);
  c.integer("qGroupStride", a.q_group_stride, 0, 2147483647);
  c.integer("rowStride", a.row_stride, 0, 2147483647);
  c.integer("blockSize", a.block_size, 1, 2147483647);
  c.integer("maxBlocks", a.max_blocks, 1, 2147483647);
  c.integer("dtype", a.dtype, 0, 2);
  c.tensor("qkv", a.qkv, Kind::act, (Size{a.tokens} * Size{a.row_stride}), false);
  c.tensor("keyCache", a.key_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.head_dim}), false);
  c.tensor("valueCache", a.value_cache, Kind::floating, ((Size{a.num_kv_heads} * Size{a.block_size}) * Size{a.value_dim}), false);
  c.tensor("out", a.out, Kind::act, ((Size{a.tokens} * Size{a.num_heads}) * Size{a.value_dim}), false);
  c.tensor("sequenceStarts", a.sequence_starts, Kind::i32, (Size{a.sequences} + Size{1}), false);
  c.tensor("contextLengths", a.context_lengths, Kind::i32, Size{a.sequences}, false);
  c.tensor("blockTables", a.block_tables, Kind::i32, (Size{a.sequences} * Size{a.max_blocks}), false);
  c.tensor("alibiSlopes", a.alibi_slopes, Kind::f32, Size{a.num_heads}, false);
  c.tensor("distanceBias", a.distance_bias, Kind::f32, (Size{a.distances} * Size{a.num_heads}), false);
  c.tensor("sinks", a.sinks, Kind::floating, Size{a.num_heads}, false);
  c.where((Size{a.num_kv_heads}.value > Size{0}.value) && ((Size{a.num_heads} % Size{a.num_kv_heads}).value == Size{0}.value), "numHeads must be a multiple of numKvHeads");
  c.where((Size{a.q_offset} + strided(Size{a.num_kv_heads}, Size{a.q_group_stride}, ((Size{a.num_heads} / Size{a.num_kv_heads}) * Size{a.head_dim}))).value <= Size{a.row_stride}.value, "qOffset and qGroupStride lead the queries past their row");
  c.where(((Size{int64_t(a.key_cache.dtype)}.value == Size{int64_t(a.value_cache.dtype)}.value) && ((Size{a.key_cache.bytes} / Size{a.head_dim}).value == (Size{a.value_cache.bytes} / Size{a.value_dim}).value)) && ((Size{a.value_cache.bytes} % Size{a.value_dim}).value == Size{0}.value), "valueCache must be of the dtype of keyCache, with as many rows, of valueDim each");
  if (bool(a.distance_bias)) {
    c.integer("distances", a.distances, 1, 1073741824);
  }
  c.apart("out", a.out, "qkv", a.qkv, false);
  c.apart("out", a.out, "keyCache", a.key_cache, false);
  c.apart("out", a.out, "valueCache", a.value_cache, false);
  c.apart("out", a.out, "sequenceStarts", a.sequence_starts, false);
  c.apart("out", a.out, "contextLengths", a.context_lengths, false);
  c.apart("out", a.out, "blockTables", a.block_tables, false);
  c.apart("out", a.out, "alibiSlopes", a.alibi_slopes, false);
  c.apart("out", a.out, "distanceBias", a.distance_bias, false);
  c.apart("out", a.out, "sinks", a.sinks, false);
}

}  // namespace q
