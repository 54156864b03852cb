// Prints which kernels a case takes, for src/choice.test.ts: one line in, one line out.
//   int8 ISA vnni|- amx|- ROWS · format KIND DTYPE K BLOCK · columns ROWS DIRECT · attention QUERIES GROUP
// out: kernel <tab> reason
#include <iostream>
#include <sstream>
#include <string>
#include "../attention/choice.h"
#include "../linear/choice.h"

using namespace q;
using namespace q::cpu;

namespace {

template <class T, size_t N>
T named(const std::string& name, const char* const (&names)[N]) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return T(i);
  }
  throw std::runtime_error("no " + name);
}

void answer(std::istream& words) {
  std::string family, first, second, third;
  words >> family;
  int64_t a = 0, b = 0;
  const auto print = [](const char* kernel, const char* reason) { std::cout << kernel << '\t' << reason << '\n'; };
  if (family == "int8") {
    constexpr const char* kIsas[] = {"scalar", "avx2", "avx512"};
    words >> first >> second >> third >> a;
    CpuFeatures f{};
    f.isa = named<Isa>(first, kIsas);
    f.avx512_vnni = second == "vnni";
    f.amx_tile = f.amx_int8 = third == "amx";
    const auto c = linear::choose_int8(f, a);
    return print(linear::kInt8KernelNames[int(c.kernel)], c.reason);
  }
  if (family == "format") {
    constexpr const char* kKinds[] = {"dense", "bnb4", "int8"};
    words >> first >> second >> a >> b;
    const auto c = linear::choose_format(named<WeightKind>(first, kKinds), named<DType>(second, kDTypeNames), a, b);
    return print(linear::kFormatNames[int(c.kernel)], c.reason);
  }
  words >> a >> b;
  if (family == "columns") {
    const auto c = linear::choose_columns(a, b);
    return print(std::to_string(c.count).c_str(), c.reason);
  }
  const auto c = choose_attention(a, b);
  print(kAttentionKernelNames[int(c.kernel)], c.reason);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    answer(words);
  }
}
