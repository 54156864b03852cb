// Which memory the kernels that may still run write. A streaming product loads its weights before they have ended (launch.h), which is right only when
// none of them writes these weights.
#pragma once
#include <cstdint>
#include <map>
#include "commands.h"

namespace q::cuda {

/// Memory that commands named since a kernel last waited for all kernels before it. Weights of products are not counted: products only read them.
class Unsettled {
 public:
  /// Whether a product may load its weights early. If not, it must wait for all kernels before it (Context::settled), and the count starts anew.
  bool allows(const LinearArgs& args) {
    bool settled = ranges_.size() <= kMostRanges;
    for (int64_t i = 0; i < args.parts_count; ++i) {
      const LinearArgsItem& p = args.parts[i];
      for (const Tensor& t : {p.weight, p.absmax, p.nested_absmax, p.nested_code, p.offset}) settled = settled && !overlaps(t);
    }
    if (!settled) ranges_.clear();
    for (const Tensor& t : {args.x, args.out, args.residual}) add(t);
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
