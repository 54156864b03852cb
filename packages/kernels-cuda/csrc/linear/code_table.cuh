// The table that turns bytes of 4-bit codes into f16/bf16 pairs: 256 pairs, each copied for the 32 banks of shared
// memory, so that 32 look-ups never meet in a bank, every 256 bytes, so that one byte permute makes the address. The
// second half of each 256 bytes is free.
#pragma once
#include "../quant/codebook.h"
#include "problem.h"
#include "ptx.cuh"
#include "row_shapes.h"

namespace q::cuda {

/// Fills the table: the high nibble (even k) in the low half of a pair. Threads 256 or a multiple, which share an
/// entry, rotated so that a quarter warp fills all banks; the block synchronises after it. codes: LinearProblem::codes;
/// each lane picks one of the 16, where reading a constant that depends on the lane takes a pass for each.
template <int Threads>
__device__ __forceinline__ void build_code_table(uint8_t* table, const uint32_t (&codes)[8]) {
  constexpr int kPieces = 8 * 256 / Threads;  // of 16 bytes, for a thread
  const int entry = threadIdx.x % 256, first = threadIdx.x / 256 * kPieces;
  const auto pick = [&](int bit, uint32_t a, uint32_t b) { return entry >> bit & 1 ? b : a; };
  const uint32_t two = pick(3, pick(2, pick(1, codes[0], codes[1]), pick(1, codes[2], codes[3])),
                            pick(2, pick(1, codes[4], codes[5]), pick(1, codes[6], codes[7])));
  const uint32_t low = entry & 1 ? two >> 16 : two & 0xffff, high = __shfl_sync(0xffffffffu, low, entry >> 4);
  const uint32_t word = high | low << 16;
#pragma unroll
  for (int i = 0; i < kPieces; ++i)
    *reinterpret_cast<uint4*>(table + entry * 256 + ((first + i + entry) & 7) * 16) =
        make_uint4(word, word, word, word);
}

template <int Byte>
__device__ __forceinline__ uint32_t code_pair(const uint8_t* table, uint32_t codes, int lane) {
  return *reinterpret_cast<const uint32_t*>(table + __byte_perm(codes, lane * 4, 0x5504 | Byte << 4));
}

/// 16 rows of 64 values as first operands of mma (ptx.cuh), from 8 bytes of codes of row lane / 4 and of the row 8
/// further.
__device__ __forceinline__ void look_up_codes(uint32_t (&a)[4][4], const uint8_t* table, uint2 w0, uint2 w1, int lane) {
  a[0][0] = code_pair<0>(table, w0.x, lane), a[0][1] = code_pair<0>(table, w1.x, lane),
  a[0][2] = code_pair<1>(table, w0.x, lane), a[0][3] = code_pair<1>(table, w1.x, lane);
  a[1][0] = code_pair<2>(table, w0.x, lane), a[1][1] = code_pair<2>(table, w1.x, lane),
  a[1][2] = code_pair<3>(table, w0.x, lane), a[1][3] = code_pair<3>(table, w1.x, lane);
  a[2][0] = code_pair<0>(table, w0.y, lane), a[2][1] = code_pair<0>(table, w1.y, lane),
  a[2][2] = code_pair<1>(table, w0.y, lane), a[2][3] = code_pair<1>(table, w1.y, lane);
  a[3][0] = code_pair<2>(table, w0.y, lane), a[3][1] = code_pair<2>(table, w1.y, lane),
  a[3][2] = code_pair<3>(table, w0.y, lane), a[3][3] = code_pair<3>(table, w1.y, lane);
}

}  // namespace q::cuda
