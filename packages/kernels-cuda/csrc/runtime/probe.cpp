#include "runtime/probe.h"
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <algorithm>
#include <sstream>

namespace q::cuda {
namespace {

/// Whether machine code for one of `list` ("80,90a") or PTX of the newest runs on compute capability `cc`.
bool has_code(const std::string& list, int cc) {
  std::stringstream entries(list);
  [[maybe_unused]] int newest = 0;
  for (std::string entry; std::getline(entries, entry, ',');) {
    const int arch = std::stoi(entry);
    newest = std::max(newest, arch);
    if (entry.back() == 'a' ? arch == cc : (arch / 10 == cc / 10 && arch <= cc)) return true;
  }
#ifdef Q_CUDA_PTX
  return cc >= newest;
#else
  return false;
#endif
}

std::string no_driver_problem() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    return std::string("no NVIDIA driver: libcuda.so.1 cannot be loaded (") + (why ? why : "not found") + ")";
  }
  int supported = 0, runtime = 0;
  using GetVersion = int (*)(int*);
  if (auto get = reinterpret_cast<GetVersion>(dlsym(library, "cuDriverGetVersion"))) get(&supported);
  dlclose(library);
  cudaRuntimeGetVersion(&runtime);
  return "the NVIDIA driver is too old: it supports CUDA " + version_text(supported) + ", this build needs " + version_text(runtime);
}

std::string count_problem(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver: return no_driver_problem();
    case cudaErrorNoDevice: return "the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)";
    default: return std::string("CUDA cannot start: ") + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  }
}

int attribute(cudaDeviceAttr what, int device) {
  int value = 0;
  cudaDeviceGetAttribute(&value, what, device);
  return value;
}

}  // namespace

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

Probe probe_devices() {
  Probe probe;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    probe.problem = count_problem(status == cudaSuccess ? cudaErrorNoDevice : status);
    cudaGetLastError();
    return probe;
  }
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, i); failed != cudaSuccess) {
      probe.problem = "device " + std::to_string(i) + " cannot be used: " + cudaGetErrorString(failed);
      cudaGetLastError();
      continue;
    }
    const int cc = properties.major * 10 + properties.minor;
    if (!has_code(Q_CUDA_ARCH_LIST, cc)) {
      probe.problem = std::string(properties.name) + " (device " + std::to_string(i) + ") has compute capability " +
                      std::to_string(properties.major) + "." + std::to_string(properties.minor) + "; this build has code for " Q_CUDA_ARCH_LIST;
      continue;
    }
    probe.devices.push_back({i, properties.name, static_cast<int64_t>(properties.totalGlobalMem), cc, properties.multiProcessorCount,
                             properties.l2CacheSize, attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, i), driver, runtime});
  }
  return probe;
}

}  // namespace q::cuda
