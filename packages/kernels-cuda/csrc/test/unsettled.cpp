// What may load early (runtime/unsettled.h), by the marks of the command table. Host only; run by src/choice.test.ts.
#include "runtime/unsettled.h"
#include <cstdio>

using namespace q;
using namespace q::cuda;

namespace {

int failures = 0;
void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("FAIL %s\n", what);
  ++failures;
}

char memory[4096];
Tensor at(int64_t offset, int64_t bytes = 64) { return {memory + offset, DType::f16, bytes}; }

LinearArgs linear(int64_t weight, int64_t x, int64_t out) {
  LinearArgs a{};
  a.x = at(x);
  a.out = at(out);
  a.parts_count = 1;
  a.parts[0].weight = at(weight);
  return a;
}

CopyArgs copy(int64_t from, int64_t to) {
  CopyArgs a{};
  a.src = at(from);
  a.out = at(to);
  return a;
}

}  // namespace

int main() {
  Unsettled unsettled;
  expect(unsettled.allows(linear(0, 1024, 2048)), "nothing was named before");
  expect(unsettled.allows(linear(64, 2048, 1024)), "what was named, the weight beside it and x are something else");
  expect(unsettled.allows(copy(512, 128)), "a command that loads nothing early always may");
  expect(!unsettled.allows(linear(128, 1024, 2048)), "the copy wrote this weight");
  expect(unsettled.allows(linear(128, 1024, 2048)), "everything ended before the last one");
  expect(unsettled.allows(copy(512, 256)), "again");
  expect(!unsettled.allows(linear(316, 1024, 2048)), "the last four bytes of the copy's output");
  expect(unsettled.allows(copy(512, 256)), "again");
  expect(unsettled.allows(linear(320, 1024, 2048)), "memory behind it");
  unsettled.clear();
  AttentionArgs attention{};
  attention.context_lengths = at(256);
  expect(unsettled.allows(copy(0, 256)), "writes lengths");
  expect(!unsettled.allows(attention), "reads lengths early");
  attention.context_lengths = {};
  attention.qkv = at(256);
  expect(unsettled.allows(copy(0, 256)), "writes qkv");
  expect(unsettled.allows(attention), "reads qkv after the kernels before it");

  RmsNormArgs norm{};
  norm.rows = 16;
  norm.out = at(0);
  LinearArgs next = linear(64, 0, 128);
  expect(may_wait(norm) && meets(norm, next), "a norm waits for the linear that reads it");
  next.x = at(64);
  expect(!meets(norm, next), "another linear");
  norm.rows = 17;
  expect(!may_wait(norm), "too many rows");
  norm.rows = 1;
  norm.residual = at(192);
  expect(!may_wait(norm), "with a residual");
  static_assert(kJoins<RmsNormArgs, LinearArgs> && !kJoins<LayerNormArgs, LinearArgs>);
  static_assert(LinearArgs::kLoadsEarly && RopeKvWriteArgs::kLoadsEarly && !AddArgs::kLoadsEarly);
  if (failures == 0) std::printf("ok\n");
  return failures != 0;
}
