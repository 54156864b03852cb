// Who computes which keys in decode.cu: a sequence's keys in splits, and the splits (or whole tiles of heads) of each
// block.
#pragma once
#include "attention/params.h"

namespace q::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kStep = 16 * kWarps;  // keys of a block's step
constexpr int kSplit = 2 * kStep;   // the smallest split
constexpr int kMostSplits = 64;
constexpr int kSplitsASequence = 384;

/// Most splits of a sequence; `units` is the number of tiles of heads (key heads times tiles of 16 of their query
/// heads).
__host__ __device__ inline int most_splits(int units) {
  const int fit = kSplitsASequence / units;
  return fit < 1 ? 1 : fit < kMostSplits ? fit : kMostSplits;
}

struct DecodeWork {
  float* partial;      // [sequences, heads, splits, D]
  float2* statistics;  // [sequences, heads, splits]: largest score (log2 units), sum
  unsigned* counters;  // [sequences, units, warps]
  int splits;          // that max_context allows: the stride of the parts
  int most_splits;     // of a sequence, whatever its context
  int units, tiles;    // tiles of heads: in all, of a key head
  int rows;            // most query heads of a tile
  bool direct;         // a block for each split: (split, unit, sequence)
  bool contiguous;     // 16 rows of a step lie in a row
  float share;         // 1 / blocks
};

/// The splits of a sequence: [first, last) hold visible keys.
struct Splits {
  int context, size, first, last;
  __device__ Splits(const AttentionParams& p, const DecodeWork& work, int sequence) {
    context = p.contexts[sequence];
    const bool one = p.starts[sequence + 1] - p.starts[sequence] == 1;
    const int first_key = p.first_key(context - 1);
    if (context <= kSplit * work.most_splits) {  // no divisions: these are on the way to the first copy
      size = kSplit;
      first = first_key / kSplit;
      last = (context + kSplit - 1) / kSplit;
    } else {
      const int even = (context + work.most_splits - 1) / work.most_splits;
      size = (even + kStep - 1) / kStep * kStep;
      first = first_key / size;
      last = (context + size - 1) / size;
    }
    if (!one) last = first;
  }
  __device__ int end(int split) const { return (split + 1) * size < context ? (split + 1) * size : context; }
  /// Steps of the splits from `split` on.
  __device__ int steps_from(int split) const { return split < last ? (context - split * size + kStep - 1) / kStep : 0; }
};

/// A split of one tile of heads, in a block's walk over its share.
struct Item {
  Splits in;
  int sequence, unit, split;
  int left;    // steps of the share from this split's start on
  bool whole;  // shares are of whole tiles
  bool live;   // false: the share has ended

  __device__ int steps() const { return (in.end(split) - split * in.size + kStep - 1) / kStep; }
  /// Whether the share holds all splits from this one on.
  __device__ bool reaches_end() const { return whole || (in.last - 1 - split) * (in.size / kStep) < left; }
  __device__ void advance(const AttentionParams& p, const DecodeWork& work) {
    left -= steps();
    if (++split < in.last) {
      live = whole || left > 0;
      return;
    }
    live = left > 0;
    if (!live) return;
    if (++unit == work.units) {
      unit = 0;
      do in = Splits(p, work, ++sequence);
      while (in.last == in.first);
    }
    split = in.first;
  }
};

/// The first split of this block. All steps of all sequences, their tiles and splits are in one order; a block's share
/// are the splits (or whole tiles, which need no adding up between blocks, when none is much longer than a share) that
/// start in its even part of them. That is below 2^31 steps, for 64 keys take 2 KiB and more. The whole warp calls.
__device__ Item first_item(const AttentionParams& p, const DecodeWork& work) {
  if (work.direct) {
    const int sequence = static_cast<int>(blockIdx.z);
    const Splits in(p, work, sequence);
    Item item{in, sequence, static_cast<int>(blockIdx.y), in.first + static_cast<int>(blockIdx.x), 1, false, false};
    item.live = item.split < in.last;
    return item;
  }
  const int lane = threadIdx.x & 31;
  int longest = 0;
  const auto steps_of = [&](int sequence) {
    if (sequence >= p.sequences) return 0;
    const Splits s(p, work, sequence);
    const int steps = s.steps_from(s.first);
    longest = steps > longest ? steps : longest;
    return steps * work.units;
  };
  int chunk = 0, before = 0, own = steps_of(lane), upto = warp_scan(own), total = __shfl_sync(0xffffffffu, upto, 31);
  for (int later = 32; later < p.sequences; later += 32)
    total += __shfl_sync(0xffffffffu, warp_scan(steps_of(later + lane)), 31);
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) longest = max(longest, __shfl_xor_sync(0xffffffffu, longest, o));
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int from = static_cast<int>(total * (block * work.share)),
            to = block + 1 == blocks ? total : static_cast<int>(total * ((block + 1) * work.share));
  const bool whole = longest <= 4 || 3ll * total >= static_cast<long long>(longest) * blocks;
  Item item{Splits(p, work, 0), 0, 0, 0, 0, whole, false};
  if (from == to) return item;
  unsigned reached;
  while (!(reached = __ballot_sync(0xffffffffu, before + upto > from))) {
    before += __shfl_sync(0xffffffffu, upto, 31);
    chunk += 32;
    own = steps_of(chunk + lane);
    upto = warp_scan(own);
  }
  const int owner = __ffs(reached) - 1;
  item.sequence = chunk + owner;
  before += __shfl_sync(0xffffffffu, upto - own, owner);
  item.in = Splits(p, work, item.sequence);
  const int each = item.in.steps_from(item.in.first), within = from - before;
  item.unit = within / each;
  const int rest = within - item.unit * each, of_split = item.in.size / kStep,
            skipped = whole ? (rest > 0 ? each : 0) : (rest + of_split - 1) / of_split;
  item.split = item.in.first + skipped;
  if (item.split < item.in.last) {
    item.left = to - from + rest - skipped * of_split;
    item.live = item.left > 0;
    return item;
  }
  // The share starts after the last start in a tile: on to the next tile.
  item.split = item.in.last - 1;
  item.left = to - from + rest - each + item.steps();
  item.advance(p, work);
  return item;
}

}  // namespace
}  // namespace q::cuda
