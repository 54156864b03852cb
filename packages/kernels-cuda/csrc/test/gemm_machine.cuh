// The GPU that the tests and benches of linears with many rows run on, with workspace.
#pragma once
#include "linear/cublaslt.h"
#include "linear/gemm.h"
#include "gemm_reference.cuh"

namespace q::reference {

struct GemmMachine {
  TestWorkspace workspace{size_t(3) << 30};
  cuda::Context context;
  explicit GemmMachine(cuda::CublasLt* lt) : context{nullptr, 0, 0, 0, 0, workspace, lt, false} {
    cudaDeviceProp d;
    REQUIRE(cudaGetDeviceProperties(&d, 0));
    REQUIRE(cudaStreamCreateWithFlags(&context.stream, cudaStreamNonBlocking));
    context.compute_capability = d.major * 10 + d.minor;
    context.multiprocessors = d.multiProcessorCount;
    context.shared_bytes_per_block = d.sharedMemPerBlockOptin;
  }
};

}  // namespace q::reference
