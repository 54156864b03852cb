// Host side of gemm_tma and gemm_bnb4: tensor maps, tile width and split by the fewest whole waves.
#include <cudaTypedefs.h>
#include <algorithm>
#include <array>
#include "gemm_bnb4.cuh"
#include "gemm_plan.h"
#include "gemm_quantize.cuh"
#include "gemm_tma.cuh"

namespace q::cuda {
namespace {

int up(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

/// -1 when it is no power of two.
int log2_of(int64_t size) {
  for (int s = 0; s < 31; ++s) {
    if (size == int64_t(1) << s) return s;
  }
  return -1;
}

/// Row-major [rows, columns] read in boxes; elements outside the matrix come as zeros.
CUtensorMap tensor_map(DType dtype, const void* base, int64_t rows, int64_t columns, int64_t pitch, int box_rows,
                       int box_columns, bool swizzle) {
  static const auto encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found),
          "linear: cuTensorMapEncodeTiled");
    if (!f) throw CommandError("linear: this driver has no cuTensorMapEncodeTiled; it needs CUDA 12 or newer");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f);
  }();
  const bool byte = dtype == DType::i8 || dtype == DType::u8;
  const CUtensorMapDataType type = byte                  ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                   : dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                         : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)},
                   strides[1] = {static_cast<cuuint64_t>(pitch * (byte ? 1 : 2))};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)},
                   steps[2] = {1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, type, 2, const_cast<void*>(base), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw CommandError("linear: no tensor map for [" + std::to_string(rows) + ", " + std::to_string(columns) +
                       "] with rows of " + std::to_string(pitch) + ": driver error " + std::to_string(status));
  }
  return map;
}

/// Tiles along the outputs for tiles `width` wide (of one part when gated); notes where each part begins.
int column_tiles(Finish& f, int width) {
  int tiles = 0;
  for (int i = 0; i < f.parts; ++i) {
    f.part[i].first_tile = f.gated ? 0 : tiles;
    tiles += up(f.part[i].n, width);
  }
  return f.gated ? tiles / 2 : tiles;
}

int total_columns(const Finish& f) { return f.part[f.parts - 1].column + f.part[f.parts - 1].n; }

}  // namespace

void multiply_tma(Context& context, const Product& p) {
  TmaParams t{};
  t.finish = p.finish;
  const bool int8 = p.kind == WeightKind::int8;
  const int64_t elements = int8 ? 128 : 64;
  t.k_steps = up(p.k, elements);
  const int cluster = p.rows <= 128 ? 1 : 2;
  t.row_tiles = up(p.rows, 128 * cluster);
  // Time of a width: whole waves of tiles, each as long as it is wide plus what a tile costs whatever its width (about
  // 24 columns' worth).
  int width = 128;
  int64_t least = INT64_MAX;
  for (int candidate : {256, 240, 224, 192, 128}) {
    if (cluster == 1 && candidate != 128) continue;
    const int64_t tiles =
        static_cast<int64_t>(column_tiles(t.finish, t.finish.gated ? candidate / 2 : candidate)) * t.row_tiles;
    const int64_t cost = up(tiles, context.multiprocessors / cluster) * static_cast<int64_t>(candidate + 24);
    if (cost < least) {
      least = cost;
      width = candidate;
    }
  }
  t.tiles = column_tiles(t.finish, t.finish.gated ? width / 2 : width) * t.row_tiles;
  if (int8) {
    const Int8Activations a = quantize_activations(context, *p.args, true);
    t.x = tensor_map(DType::i8, a.codes, p.rows, p.k, a.pitch, 128, 128, true);
    t.int8.row_scale = a.scale;
    t.int8.groups = a.groups;
    for (int i = 0; i < p.parts; ++i) t.int8.scale[i] = p.args->parts[i].absmax.as<float>();
    if (a.groups) {
      t.x_extra = tensor_map(p.dtype, a.x_extra, p.rows, a.room, a.room, 128, 64, true);
      t.weight_extra =
          tensor_map(p.dtype, a.weight_extra, total_columns(p.finish), a.room, a.room, width / 2, 64, true);
    }
  } else {
    t.x = tensor_map(p.dtype, p.x, p.rows, p.k, p.k, 128, 64, true);
  }
  for (int i = 0; i < p.parts; ++i) {
    t.weight[i] = tensor_map(int8 ? DType::i8 : p.dtype, p.weight[i], p.finish.part[i].n, p.k, p.k, width / 2,
                             static_cast<int>(elements), true);
  }
  if (p.dtype == DType::f16)
    int8 ? launch_gemm_tma<int8_t, half_t>(context, t, width, cluster)
         : launch_gemm_tma<half_t, half_t>(context, t, width, cluster);
  else
    int8 ? launch_gemm_tma<int8_t, bfloat_t>(context, t, width, cluster)
         : launch_gemm_tma<bfloat_t, bfloat_t>(context, t, width, cluster);
}

void multiply_bnb4(Context& context, const Product& p) {
  Bnb4Params b{};
  b.finish = p.finish;
  const LinearArgsItem& first = p.args->parts[0];
  float codes[16];
  code_table(first.quant_type, codes);
  for (int i = 0; i < 16; ++i) b.table[i] = __float2half_rn(codes[i]);
  b.blocks_per_row = p.k / first.block_size;
  b.steps_shift = log2_of(first.block_size / 64);
  b.nested_shift = first.nested_block_size > 0 ? log2_of(first.nested_block_size) : 0;
  b.k_steps = static_cast<int>(p.k / 64);
  b.row_tiles = up(p.rows, 128);
  const int tr = up(up(p.rows, b.row_tiles), 32) * 32;
  static const std::array<int, 9> fit = [] {  // a fact of the machine, asked for once
    std::array<int, 9> f{};
    for (int size = 1; size <= 8; ++size) f[size] = std::max(1, bnb4_clusters(size));
    return f;
  }();
  const bool gated = p.finish.gated;
  const auto tiles_of = [&](int warpgroups) {
    return column_tiles(b.finish, warpgroups * (gated ? 32 : 64)) * b.row_tiles;
  };
  // Cycles of a shape, from times on an H200 (11008 x 4096, 32 to 128 rows): whole waves of blocks, each its K steps,
  // and what a block costs besides: filling the pipeline, the epilogue, and for a split the sums that come from other
  // multiprocessors (12 bytes a cycle, and each of them in its turn: 4096 x 4096 took 22 us in clusters of five, 12,000
  // cycles more than its steps).
  int warpgroups = 1;
  int64_t least = INT64_MAX;
  for (int groups = kBnb4Warpgroups; groups >= 1; --groups) {
    const int64_t step = 310 + tr * 7 / 10 + groups * (112 + tr);
    for (int split = 1; split <= std::min(8, b.k_steps); ++split) {
      const int64_t cost =
          up(tiles_of(groups), fit[split]) *
          (up(b.k_steps, split) * step + 10000 + 24 * groups * tr * (split - 1) / split + 2000 * (split - 1));
      if (cost < least) {
        least = cost;
        b.split = split;
        warpgroups = groups;
      }
    }
  }
  const int tiles = tiles_of(warpgroups);
  b.x = tensor_map(p.dtype, p.x, p.rows, p.k, p.k, tr, 64, true);
  for (int i = 0; i < p.parts; ++i) {
    const LinearArgsItem& part = p.args->parts[i];
    b.codes[i] =
        tensor_map(DType::u8, part.weight.data, part.n, p.k / 2, p.k / 2, gated ? 32 : 64 * warpgroups, 128, true);
    b.quant[i] = {part.absmax.data, part.nested_absmax.as<float>(), part.nested_code.as<float>(),
                  part.offset.as<float>()};
  }
  if (p.dtype == DType::f16)
    launch_gemm_bnb4<half_t>(context, b, tr, warpgroups, tiles * b.split);
  else
    launch_gemm_bnb4<bfloat_t>(context, b, tr, warpgroups, tiles * b.split);
}

}  // namespace q::cuda
