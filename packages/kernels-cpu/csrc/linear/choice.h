// Which kernels compute a linear: functions of shape, weights and instruction sets, tested on any machine
// (src/choice.test.ts). Sums have the same bits for any number of rows.
#pragma once
#include "../common/context.h"

namespace q::cpu::linear {

/// Values of a 4-bit row that the fast kernels take at a time; absmax must be constant over them.
constexpr int64_t kChunk = 64;

/// A set of functions that int8 weights are multiplied by.
enum class Int8Kernel { scalar, avx2, avx512, vnni, amx };
constexpr const char* kInt8KernelNames[] = {"scalar", "avx2", "avx512", "vnni", "amx"};

/// How the weights of a part are read. nibble_any: one value after the other.
enum class Format { f32, f16, bf16, nibble, nibble_any, int8 };
constexpr const char* kFormatNames[] = {"f32", "f16", "bf16", "nibble", "nibble_any", "int8"};

template <class Kernel>
struct Choice {
  Kernel kernel;
  const char* reason;
};

/// The sums are exact, so that the choice changes no bit.
inline Choice<Int8Kernel> choose_int8(const CpuFeatures& f, int64_t rows) {
  if (f.isa == Isa::scalar) return {Int8Kernel::scalar, "no vectors that this process may use"};
  if (f.isa == Isa::avx2) return {Int8Kernel::avx2, "AVX2"};
  if (!f.avx512_vnni) return {Int8Kernel::avx512, "AVX-512 without VNNI"};
  if (!f.amx_tile || !f.amx_int8) return {Int8Kernel::vnni, "no AMX"};
  if (rows <= 16) return {Int8Kernel::vnni, "AMX loses below one tile of rows"};
  return {Int8Kernel::amx, "more rows than a tile"};
}

inline Choice<Format> choose_format(WeightKind kind, DType weight, int64_t k, int64_t block_size) {
  if (kind == WeightKind::int8) return {Format::int8, "int8 weights"};
  if (kind == WeightKind::dense) {
    if (weight == DType::f32) return {Format::f32, "dense weights"};
    return {weight == DType::f16 ? Format::f16 : Format::bf16, "dense weights"};
  }
  if (k % kChunk != 0) return {Format::nibble_any, "rows that are no whole chunks"};
  int64_t chunks = kChunk;
  while (chunks < block_size && chunks < kChunk << 32) chunks *= 2;
  if (chunks != block_size) return {Format::nibble_any, "blocks that are no power of two of chunks"};
  return {Format::nibble, "whole chunks of one absmax"};
}

struct BlockColumns {
  int64_t count;
  const char* reason;
};
/// Columns that a thread multiplies before it finishes them. Few rows: small blocks, for the sums stay close. Many: as
/// many columns as fit the second cache with room for x. direct: the most rows whose weights are unpacked into
/// registers.
inline BlockColumns choose_columns(int64_t rows, int64_t direct) {
  if (rows <= direct) return {256, "weights go straight into registers"};
  if (rows <= 32) return {16, "few rows, weights through a panel"};
  return {128, "many rows, weights through a panel"};
}

}  // namespace q::cpu::linear
