// Which kernel computes a norm: a function of shape, alignment and machine, tested without a device
// (src/choice.test.ts).
#pragma once
#include "machine.h"
#include "q_ops.h"

namespace q::cuda {

/// Packs of 8 values that a thread keeps in registers; `any`: it reads its values again.
enum class NormKernel : int { any, one_pack, two_packs, four_packs };
constexpr const char* kNormKernelNames[] = {"any", "one_pack", "two_packs", "four_packs"};

struct NormShape {
  int64_t rows, width;
  bool aligned;  // all tensors that there are, to 16 bytes
};
/// Args: of rmsNorm or layerNorm.
template <class Args>
NormShape shape_of(const Args& a) {
  NormShape s{a.rows, a.width, true};
  a.each_tensor([&](const Tensor& t, bool) { s.aligned = s.aligned && aligned16(t.data); });
  return s;
}

struct NormChoice {
  NormKernel kernel;
  const char* reason;
  unsigned threads;  // of a block, which takes a row
};

inline NormChoice choose_norm(const NormShape& s, const Machine& m) {
  if (s.width % 8 != 0) return {NormKernel::any, "width is no multiple of 8", 256};
  if (s.width > 32768) return {NormKernel::any, "more than registers hold", 256};
  if (!s.aligned) return {NormKernel::any, "tensors that are not aligned", 256};
  const int64_t packs = s.width / 8;
  const auto with = [&](NormKernel kernel, int each, const char* reason) {
    return NormChoice{kernel, reason, static_cast<unsigned>(((packs + each - 1) / each + 31) / 32 * 32)};
  };
  if (packs > 2048) return with(NormKernel::four_packs, 4, "width over 16384");
  if (packs > 1024) return with(NormKernel::two_packs, 2, "width over 8192");
  if (s.rows > m.multiprocessors && packs > 256)
    return with(NormKernel::two_packs, 2, "many rows: more of them fit on a multiprocessor");
  return with(NormKernel::one_pack, 1, "the most threads a row, for latency");
}

}  // namespace q::cuda
