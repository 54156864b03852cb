// Which memory the kernels that may still run write. Some kernels load early, before those ahead of them have ended
// (launch.h): products their weights, rope and attention where tokens and keys are. That is right only when none of the
// kernels ahead writes it.
#pragma once
#include <cstdint>
#include <map>
#include "commands.h"

namespace q::cuda {

/// f(t, early) for all memory of a command that loads some of it early.
template <class F>
void each_tensor(const LinearArgs& a, F f) {
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const LinearArgsItem& p = a.parts[i];
    for (const Tensor& t : {p.weight, p.absmax, p.nested_absmax, p.nested_code, p.offset}) f(t, true);
  }
  for (const Tensor& t : {a.x, a.out, a.residual}) f(t, false);
}
template <class F>
void each_tensor(const RopeKvWriteArgs& a, F f) {
  for (const Tensor& t : {a.positions, a.sequence_of, a.block_tables, a.inverse_frequencies}) f(t, true);
  for (const Tensor& t : {a.qkv, a.key_cache, a.value_cache}) f(t, false);
}
template <class F>
void each_tensor(const AttentionArgs& a, F f) {
  for (const Tensor& t : {a.sequence_starts, a.context_lengths, a.block_tables}) f(t, true);
  for (const Tensor& t : {a.qkv, a.key_cache, a.value_cache, a.alibi_slopes, a.distance_bias, a.out}) f(t, false);
}

/// Memory that commands named since a kernel last waited for all kernels before it. What they load early is not
/// counted: it is only read.
class Unsettled {
 public:
  /// Whether a command may load early. If not, it must wait for all kernels before it (Context::settled), and the count
  /// starts anew.
  template <class Args>
  bool allows(const Args& args) {
    bool settled = ranges_.size() <= kMostRanges;
    each_tensor(args, [&](const Tensor& t, bool early) { settled = settled && !(early && overlaps(t)); });
    if (!settled) ranges_.clear();
    each_tensor(args, [&](const Tensor& t, bool early) {
      if (!early) add(t);
    });
    return settled;
  }
  void add(const Tensor& t) {
    if (!t || t.bytes == 0) return;
    uintptr_t begin = reinterpret_cast<uintptr_t>(t.data), end = begin + static_cast<uintptr_t>(t.bytes);
    auto at = ranges_.upper_bound(begin);
    if (at != ranges_.begin() && std::prev(at)->second >= begin) --at;
    while (at != ranges_.end() && at->first <= end) {
      begin = begin < at->first ? begin : at->first;
      end = end > at->second ? end : at->second;
      at = ranges_.erase(at);
    }
    ranges_[begin] = end;
  }
  void clear() { ranges_.clear(); }

 private:
  static constexpr size_t kMostRanges = 4096;
  bool overlaps(const Tensor& t) const {
    if (!t || t.bytes == 0) return false;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data);
    const auto at = ranges_.lower_bound(begin + static_cast<uintptr_t>(t.bytes));
    return at != ranges_.begin() && std::prev(at)->second > begin;
  }

  std::map<uintptr_t, uintptr_t> ranges_;  // begin → end, apart from each other
};

}  // namespace q::cuda
