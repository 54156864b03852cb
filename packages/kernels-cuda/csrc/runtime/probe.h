// Which devices there are, and why there are none.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace q::cuda {

struct DeviceFacts {
  int index;
  std::string problem;  // why nothing else is known; empty: all is
  std::string name;
  int64_t total_bytes;
  int compute_capability;  // 90 for 9.0
  int multiprocessors;
  int64_t l2_bytes;
  int64_t shared_bytes_per_block;  // opt-in limit
  int driver_version;              // 13000 for 13.0
  int runtime_version;
  std::string peers;  // "cuda:1, cuda:2": devices whose memory it reaches directly
};

/// What the CUDA runtime answers. What follows from it is decided in src/probe.ts, where it is tested without a GPU.
struct Probe {
  std::string status, status_text;  // name and words of the answer when asked for devices
  std::string library_problem;      // why the driver's library cannot be loaded; empty: it can
  int driver_version = 0;           // the newest CUDA that the driver supports; 0 without one
  int runtime_version = 0;
  std::vector<DeviceFacts> devices;
};

/// Looks without creating contexts; never throws.
Probe probe_devices();

std::string version_text(int version);  // 13000 -> "13.0"

}  // namespace q::cuda
