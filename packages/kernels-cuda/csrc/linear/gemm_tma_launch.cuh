// Instances of gemm_tma for one pair of operand and act types; each .cu that includes this makes one.
#pragma once
#include "gemm_tma.cuh"

namespace q::cuda {

template <class E, class T, int TN, int Cluster>
void launch_tma_instance(Context& context, const TmaParams& p) {
  auto kernel = gemm_tma_kernel<E, T, TN, Cluster>;
  constexpr int bytes = tma_shared_bytes(TN);
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "linear (tma)");
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = Cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  const int most = context.multiprocessors / Cluster, clusters = p.tiles < most ? p.tiles : most;
  config.gridDim = dim3(clusters * Cluster);
  config.blockDim = dim3(kTmaThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  check(cudaLaunchKernelEx(&config, kernel, p), "linear (tma)");
}

template <class E, class T>
void launch_gemm_tma(Context& context, const TmaParams& p, int tn, int cluster) {
  if (cluster == 1) return launch_tma_instance<E, T, 128, 1>(context, p);
  switch (tn) {
    case 128:
      return launch_tma_instance<E, T, 128, 2>(context, p);
    case 192:
      return launch_tma_instance<E, T, 192, 2>(context, p);
    case 224:
      return launch_tma_instance<E, T, 224, 2>(context, p);
    case 240:
      return launch_tma_instance<E, T, 240, 2>(context, p);
    case 256:
      return launch_tma_instance<E, T, 256, 2>(context, p);
    default:
      throw CommandError("linear (tma): no instance " + std::to_string(tn) + " columns wide");
  }
}

}  // namespace q::cuda
