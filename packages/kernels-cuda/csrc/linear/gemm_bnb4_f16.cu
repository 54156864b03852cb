// gemm_bnb4: act and compute dtype f16.
#include "gemm_bnb4.cuh"

namespace q::cuda {

template <>
void launch_gemm_bnb4<half_t>(Context& context, const Bnb4Params& p, int tr, int warpgroups, int blocks) {
  launch_bnb4_rows<half_t>(context, p, tr, warpgroups, blocks);
}

int bnb4_clusters(int size) {
  constexpr int bytes = bnb4_shared_bytes(128);
  auto kernel = gemm_bnb4_kernel<half_t, 128>;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "linear (bnb4)");
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = size;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(size * 1024);
  config.blockDim = dim3(kBnb4Warpgroups * 128);
  config.dynamicSmemBytes = bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "linear (bnb4)");
  return clusters;
}

}  // namespace q::cuda
