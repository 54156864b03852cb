// Copies from one device's memory to another's. The copy runs on the target's stream; events order it among the
// commands of both:
//   source  ... earlier commands, [ready] ------------- waits for [done], later commands ...
//   target  ... earlier commands, waits for [ready], copy, [done], later commands ...
// A buffer of the source that is given back, or overwritten, right after the call is so only after the copy. Where a
// worker is busy, its part goes through it and waits there for the other side's; each part waits only for one that was
// queued before it, so no two wait for each other.
#include "runtime/device.h"
#include "runtime/handoff.h"

namespace q::cuda {

void Device::copy_from(Device& source, int64_t source_buffer, int64_t source_offset, int64_t buffer, int64_t offset,
                       int64_t bytes) {
  source.enter();
  enter();
  if (capturing_ || source.capturing_)
    throw Failure("command", "copyFrom may not be called between beginCapture and endCapture");
  const char* from = source.range(source_buffer, source_offset, bytes, "copyFrom");
  char* to = range(buffer, offset, bytes, "copyFrom");
  if (bytes == 0) return;
  const auto ready = std::make_shared<Handoff>(), done = std::make_shared<Handoff>();
  const bool first = source.facts_.index != facts_.index && source.opened_to_.insert(facts_.index).second;

  source.enter();
  source.in_order("copyFrom", false, [&source, ready] { ready->record(source.compute_); });

  enter();
  // Opening memory to another device may take long, so the worker does it. The source lives: its own queue waits for
  // `done`.
  in_order("copyFrom", first || !ready->is_settled(), [this, &source, ready, done, first, from, to, bytes] {
    try {
      ready->wait(compute_);
      if (first) source.memory_->open_to(facts_.index);
      check_device(
          cudaMemcpyPeerAsync(to, facts_.index, from, source.facts_.index, static_cast<size_t>(bytes), compute_),
          "a copy between devices");
      done->record(compute_);
    } catch (...) {
      if (!done->is_settled()) done->abandon();
      throw;
    }
  });

  source.enter();
  source.in_order("copyFrom", !done->is_settled(), [&source, done] { done->wait(source.compute_); });
}

void PoolMemory::open_to(int device) {
  int possible = 0;
  if (cudaDeviceCanAccessPeer(&possible, device, facts_.index) == cudaSuccess && possible) {
    if (pool_) {
      cudaMemAccessDesc access{};
      access.location = {cudaMemLocationTypeDevice, device};
      access.flags = cudaMemAccessFlagsProtReadWrite;
      cudaMemPoolSetAccess(pool_, &access, 1);
    } else {
      cudaDeviceEnablePeerAccess(facts_.index, 0);
    }
  }
  cudaGetLastError();  // without direct access the copy is staged by the driver
}

}  // namespace q::cuda
