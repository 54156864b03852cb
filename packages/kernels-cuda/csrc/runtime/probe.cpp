#include "runtime/probe.h"
#include <cuda_runtime_api.h>
#include <dlfcn.h>

namespace q::cuda {
namespace {

/// What the driver itself says, as the runtime does not answer under a driver that is too old for it.
void ask_driver(Probe& probe) {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    probe.library_problem = why ? why : "not found";
    return;
  }
  using GetVersion = int (*)(int*);
  if (auto get = reinterpret_cast<GetVersion>(dlsym(library, "cuDriverGetVersion"))) get(&probe.driver_version);
  dlclose(library);
}

int attribute(cudaDeviceAttr what, int device) {
  int value = 0;
  cudaDeviceGetAttribute(&value, what, device);
  return value;
}

std::string peers_of(int device, int count) {
  std::string peers;
  for (int other = 0; other < count; ++other) {
    int possible = 0;
    if (other != device && cudaDeviceCanAccessPeer(&possible, device, other) == cudaSuccess && possible)
      peers += (peers.empty() ? "cuda:" : ", cuda:") + std::to_string(other);
  }
  return peers.empty() && count > 1 ? "none" : peers;
}

DeviceFacts facts_of(int index, int count, const Probe& probe) {
  DeviceFacts facts{};
  facts.index = index;
  cudaDeviceProp properties{};
  if (const cudaError_t failed = cudaGetDeviceProperties(&properties, index); failed != cudaSuccess) {
    facts.problem = cudaGetErrorString(failed);
    cudaGetLastError();
    return facts;
  }
  facts.name = properties.name;
  facts.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  facts.compute_capability = properties.major * 10 + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.l2_bytes = properties.l2CacheSize;
  facts.shared_bytes_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  facts.driver_version = probe.driver_version;
  facts.runtime_version = probe.runtime_version;
  facts.peers = peers_of(index, count);
  return facts;
}

}  // namespace

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Probe probe_devices() {
  Probe probe;
  ask_driver(probe);
  cudaRuntimeGetVersion(&probe.runtime_version);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  probe.status = cudaGetErrorName(status);
  probe.status_text = cudaGetErrorString(status);
  if (status != cudaSuccess) count = 0;
  for (int i = 0; i < count; ++i) probe.devices.push_back(facts_of(i, count, probe));
  cudaGetLastError();
  return probe;
}

}  // namespace q::cuda
