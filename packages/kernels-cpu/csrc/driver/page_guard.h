// What happens when a mapped file is cut short while its pages are in use: the system sends SIGBUS, which would end the
// process. Guarded pages give zeros instead, and a flag is set that the next result looks at.
#pragma once
#include <atomic>
#include <cstddef>

namespace q::cpu {

/// Guards pages of a mapping until `release_guard`; `broken` is set when one of them has gone, and must live as long.
/// Returns a handle, or -1 when too many mappings are guarded: then the pages must not be used.
int guard_pages(void* pages, size_t bytes, std::atomic<bool>* broken);
void release_guard(int handle);

}  // namespace q::cpu
