// Which kernel computes the attention of a sequence: a function of that sequence alone, so that a row's bits depend
// neither on the batch nor on the number of threads. Tested in src/choice.test.ts.
#pragma once
#include <cstdint>

namespace q::cpu {

/// Rows that the key-split kernel takes at a time, and keys of one split. Fixed: they decide the order of sums.
constexpr int64_t kSplitRows = 8, kSplitKeys = 512;

/// split: keys cut at multiples of kSplitKeys, whose parts are combined; lanes: blocks of rows side by side.
enum class AttentionKernel { split, lanes };
constexpr const char* kAttentionKernelNames[] = {"split", "lanes"};

struct AttentionChoice {
  AttentionKernel kernel;
  const char* reason;
};

/// group: query heads of a key head; their rows are computed together.
inline AttentionChoice choose_attention(int64_t queries, int64_t group) {
  if (queries == 1) return {AttentionKernel::split, "one query"};
  if (queries * group <= kSplitRows) return {AttentionKernel::split, "few rows"};
  return {AttentionKernel::lanes, "many rows"};
}

}  // namespace q::cpu
