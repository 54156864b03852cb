// Which memory the kernels that may still run write. Some kernels load early, before those ahead of them have ended
// (launch.h): what the command table marks so. That is right only when none of the kernels ahead writes it.
#pragma once
#include <cstdint>
#include <map>
#include "q_ops.h"

namespace q::cuda {

/// Memory that commands named since a kernel last waited for all kernels before it. What they load early is not
/// counted: it is only read.
class Unsettled {
 public:
  /// Whether a command may load early what is marked so. If not, it must wait for all kernels before it
  /// (Context::settled), and the count starts anew.
  template <class Args>
  bool allows(const Args& args) {
    bool settled = true;
    if constexpr (Args::kLoadsEarly) {
      settled = ranges_.size() <= kMostRanges;
      args.each_tensor([&](const Tensor& t, bool early) { settled = settled && !(early && overlaps(t)); });
      if (!settled) ranges_.clear();
    }
    args.each_tensor([&](const Tensor& t, bool early) {
      if (!early) add(t);
    });
    return settled;
  }
  void clear() { ranges_.clear(); }

 private:
  static constexpr size_t kMostRanges = 4096;
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
  bool overlaps(const Tensor& t) const {
    if (!t || t.bytes == 0) return false;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data);
    const auto at = ranges_.lower_bound(begin + static_cast<uintptr_t>(t.bytes));
    return at != ranges_.begin() && std::prev(at)->second > begin;
  }

  std::map<uintptr_t, uintptr_t> ranges_;  // begin → end, apart from each other
};

}  // namespace q::cuda
