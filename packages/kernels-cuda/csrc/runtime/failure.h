// How the runtime reports: the fields of DriverFailure (tensor/src/driver/driver.ts).
#pragma once
#include <cuda_runtime_api.h>
#include <cstdint>
#include <exception>
#include <string>

namespace q::cuda {

struct Failure : std::exception {
  std::string code;  // out_of_memory, file, command, closed, device
  std::string message;
  std::string command;        // empty: none
  int64_t wanted_bytes = -1;  // -1: not said
  int64_t free_bytes = -1;
  Failure(std::string code, std::string message, std::string command = "")
      : code(std::move(code)), message(std::move(message)), command(std::move(command)) {}
  const char* what() const noexcept override { return message.c_str(); }
};

/// Throws Failure 'device' unless status is success.
inline void check_device(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Failure("device",
                std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

}  // namespace q::cuda
