// Which devices there are, and why there are none.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace q::cuda {

struct DeviceFacts {
  int index;
  std::string name;
  int64_t total_bytes;
  int compute_capability;  // 90 for 9.0
  int multiprocessors;
  int64_t l2_bytes;
  int64_t shared_bytes_per_block;  // opt-in limit
  int driver_version;              // 13000 for 13.0
  int runtime_version;
};

struct Probe {
  std::vector<DeviceFacts> devices;  // those this build has code for
  std::string problem;               // empty: none
};

/// Looks without creating contexts; never throws.
Probe probe_devices();

std::string version_text(int version);  // 13000 -> "13.0"

}  // namespace q::cuda
