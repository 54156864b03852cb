// Which kernels compute attention, and rope: functions of shape, dtypes, alignment and machine, tested without a device
// (src/choice.test.ts). A sequence with one query takes the split-KV kernel, one with more a flash kernel, whatever
// else is in the batch, so that no row depends on its neighbours.
#pragma once
#include "machine.h"
#include "q_ops.h"

namespace q::cuda {

enum class AttentionKernel : int {
  none,    // no sequence needs it
  any,     // one warp a query and head: every dtype and head size to 512
  mma,     // prefill.cu
  hopper,  // prefill_hopper.cu
  split,   // decode.cu
};
constexpr const char* kAttentionKernelNames[] = {"none", "any", "mma", "hopper", "split"};

struct AttentionFacts {
  DType act, cache;
  int64_t sequences, max_query, head_dim, value_dim;
  bool aligned;  // heads and rows of qkv lie at multiples of 8 values, tensors at multiples of 16 bytes
};
AttentionFacts facts_of(const AttentionArgs& args);

struct AttentionPick {
  AttentionKernel kernel;
  const char* reason;
  int width = 0;  // head size that the instance is for, at least headDim and valueDim
};
/// Both `any`: one launch of it for all.
struct AttentionChoice {
  AttentionPick prefill;  // for sequences with more than one query
  AttentionPick decode;   // for those with one
};
AttentionChoice choose_attention(const AttentionFacts& facts, const Machine& machine);

enum class RopeKernel : int { pairs, singles };  // two neighbouring values of a lane at a time, or one
constexpr const char* kRopeKernelNames[] = {"pairs", "singles"};

struct RopeFacts {
  int64_t tokens, num_heads, num_kv_heads, head_dim, rotary_dim;
  bool interleaved;
  int64_t units;  // all offsets, strides and sizes in values, or-ed: what divides it divides each
  bool aligned;   // tensors, to 16 bytes
};
RopeFacts facts_of(const RopeKvWriteArgs& args);

struct RopeChoice {
  RopeKernel kernel;
  const char* reason;
  int lane_values;   // rotated by a lane: 2, or 8 for long rotary parts
  int heads_a_warp;  // that share sines and cosines
};
RopeChoice choose_rope(const RopeFacts& facts, const Machine& machine);

}  // namespace q::cuda
