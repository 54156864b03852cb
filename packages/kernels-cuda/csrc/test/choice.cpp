// Prints which kernel a case takes, for src/choice.test.ts: one line in, one line out. Host only: needs no CUDA.
//   linear rows=1 k=4096 act=f16 bnb4:n=4096,block=64 bnb4:n=1024        what is not said has a default (below)
//   joined ...  many want=tma ...  few ...  attention ...  rope ...  norm ...  rows ...
// out: kernel <tab> reason <tab> further fields of the choice
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>
#include "attention/choice.h"
#include "linear/choice.h"
#include "experts/choice.h"
#include "norm/choice.h"
#include "quant/choice.h"

using namespace q;
using namespace q::cuda;

namespace {

struct Fields {
  std::map<std::string, std::string> values;
  int64_t number(const char* name, int64_t otherwise) const {
    const auto at = values.find(name);
    return at == values.end() ? otherwise : std::stoll(at->second);
  }
  double real(const char* name, double otherwise) const {
    const auto at = values.find(name);
    return at == values.end() ? otherwise : std::stod(at->second);
  }
  DType dtype(const char* name, DType otherwise) const {
    const auto at = values.find(name);
    if (at == values.end()) return otherwise;
    for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
      if (at->second == kDTypeNames[i]) return static_cast<DType>(i);
    }
    throw std::runtime_error("no dtype " + at->second);
  }
};

void read(Fields& fields, const std::string& word) {
  const size_t is = word.find('=');
  if (is == std::string::npos) throw std::runtime_error("not a field: " + word);
  fields.values[word.substr(0, is)] = word.substr(is + 1);
}

Machine machine_from(const Fields& f) {
  const int capability = static_cast<int>(f.number("capability", 90));
  return {capability,
          static_cast<int>(f.number("multiprocessors", 132)),
          f.number("shared", capability == 75                       ? 64 << 10
                             : capability == 80                     ? 163 << 10
                             : capability == 86 || capability == 89 ? 99 << 10
                                                                    : 227 << 10),
          f.number("wgmma", capability == 90) != 0,
          f.number("cublas", 1) != 0,
          f.number("counters", 1) != 0};
}

LinearPartFacts part_from(const std::string& word, DType act) {
  const size_t colon = word.find(':');
  const std::string kind = word.substr(0, colon);
  Fields f;
  std::istringstream list(word.substr(colon + 1));
  for (std::string field; std::getline(list, field, ',');) read(f, field);
  LinearPartFacts p{};
  p.kind = kind == "dense" ? WeightKind::dense : kind == "bnb4" ? WeightKind::bnb4 : WeightKind::int8;
  p.n = f.number("n", 4096);
  p.weight = p.kind == WeightKind::dense ? f.dtype("weight", act) : p.kind == WeightKind::bnb4 ? DType::u8 : DType::i8;
  p.biased = f.values.count("bias") > 0;
  p.bias = f.dtype("bias", DType::f32);
  p.compute = f.dtype("compute", act);
  p.quant_type = f.number("fp4", 0) ? QuantType::fp4 : QuantType::nf4;
  p.block_size = f.number("block", 64);
  p.nested_block_size = f.number("nested", 0);
  p.nested = p.nested_block_size > 0;
  p.threshold = static_cast<float>(f.real("threshold", 0));
  p.aligned = f.number("aligned", 1) != 0;
  p.absmax_aligned = f.number("absmaxAligned", 1) != 0;
  return p;
}

LinearFacts linear_from(const Fields& f, const std::vector<std::string>& parts) {
  LinearFacts l{};
  l.act = f.dtype("act", DType::f16);
  l.rows = f.number("rows", 1);
  l.k = f.number("k", 4096);
  l.x_aligned = f.number("aligned", 1) != 0;
  l.gated = f.number("gated", 0) != 0;
  l.activation = static_cast<ActivationKind>(f.number("activation", 0));
  for (const std::string& part : parts) l.part[l.parts++] = part_from(part, l.act);
  return l;
}

LinearKernel wanted_from(const Fields& f) {
  const auto at = f.values.find("want");
  if (at == f.values.end()) return LinearKernel::none;
  for (int i = 0; i <= static_cast<int>(LinearKernel::many_parts); ++i) {
    if (at->second == kLinearKernelNames[i]) return static_cast<LinearKernel>(i);
  }
  throw std::runtime_error("no kernel " + at->second);
}

void print(const LinearChoice& c) {
  std::cout << kLinearKernelNames[static_cast<int>(c.kernel)] << '\t' << c.reason << '\t';
  if (c.passed) std::cout << "passed=" << c.passed << ' ';
  if (c.kernel == LinearKernel::row8) std::cout << "stages=" << c.stages << (c.own ? " own " : " shared ");
  if (c.kernel == LinearKernel::batch4 || c.kernel == LinearKernel::row8) std::cout << "columns=" << c.columns << ' ';
  if (c.row.blocks)
    std::cout << "blocks=" << c.row.blocks << " groups=" << c.row.plan.groups << " tiles=" << c.row.plan.tiles << ' ';
  if (c.dequantized) std::cout << "dequantized ";
  if (c.rounded) std::cout << "rounded ";
  if (c.converted) std::cout << "converted ";
  if (c.otherwise != LinearKernel::none) std::cout << "otherwise=" << kLinearKernelNames[static_cast<int>(c.otherwise)];
}

void print(const AttentionPick& p) {
  std::cout << kAttentionKernelNames[static_cast<int>(p.kernel)] << '\t' << p.reason << '\t' << "width=" << p.width;
}

void answer(const std::string& line) {
  std::istringstream words(line);
  std::string family;
  words >> family;
  Fields f;
  std::vector<std::string> parts;
  for (std::string word; words >> word;) word.find(':') == std::string::npos ? read(f, word) : parts.push_back(word);
  const Machine machine = machine_from(f);
  const bool aligned = f.number("aligned", 1) != 0;
  if (family == "linear") return print(choose_linear(linear_from(f, parts), machine));
  if (family == "few") return print(choose_few_rows(linear_from(f, parts), machine));
  if (family == "many") return print(choose_many_rows(linear_from(f, parts), machine, wanted_from(f)));
  if (family == "joined") {
    const LinearFacts l = linear_from(f, parts);
    const NormFacts n{l.rows, f.number("width", l.k), f.number("sameDtype", 1) != 0, f.number("normAligned", 1) != 0,
                      f.number("overlaps", 0) != 0};
    return print(choose_linear_with_norm(l, n, machine));
  }
  if (family == "prefill" || family == "decode") {
    const DType act = f.dtype("act", DType::f16);
    const AttentionChoice c =
        choose_attention({act, f.dtype("cache", act), f.number("sequences", 1), f.number("maxQuery", 1),
                          f.number("headDim", 128), f.number("valueDim", f.number("headDim", 128)), aligned},
                         machine);
    return print(family == "prefill" ? c.prefill : c.decode);
  }
  if (family == "rope") {
    const RopeChoice c =
        choose_rope({f.number("tokens", 1), f.number("heads", 32), f.number("kvHeads", 32), f.number("headDim", 128),
                     f.number("rotaryDim", 128), f.number("interleaved", 0) != 0, f.number("units", 128), aligned},
                    machine);
    std::cout << kRopeKernelNames[static_cast<int>(c.kernel)] << '\t' << c.reason << '\t' << "lane=" << c.lane_values
              << " heads=" << c.heads_a_warp;
    return;
  }
  if (family == "experts") {
    const std::string kind = f.values.count("kind") ? f.values.at("kind") : "bnb4";
    const DType act = f.dtype("act", DType::f16);
    const ExpertChoice c =
        choose_experts({act, f.number("rows", 1), f.number("choices", 8), f.number("k", 2048), f.number("n", 768),
                        kind == "dense"  ? WeightKind::dense
                        : kind == "bnb4" ? WeightKind::bnb4
                                         : WeightKind::int8,
                        f.dtype("weight", act), f.number("block", 64), aligned},
                       machine);
    std::cout << kExpertKernelNames[static_cast<int>(c.kernel)] << '\t' << c.reason << '\t' << (c.wide ? "wide" : "");
    return;
  }
  if (family == "norm") {
    const NormChoice c = choose_norm({f.number("rows", 1), f.number("width", 4096), aligned}, machine);
    std::cout << kNormKernelNames[static_cast<int>(c.kernel)] << '\t' << c.reason << '\t' << "threads=" << c.threads;
    return;
  }
  if (family == "rows") {
    const auto c = choose_quantize_rows(f.number("width", 4096), aligned);
    std::cout << kQuantizeRowsKernelNames[static_cast<int>(c.kernel)] << '\t' << c.reason << '\t';
    return;
  }
  throw std::runtime_error("no family " + family);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    answer(line);
    std::cout << '\n';
  }
}
