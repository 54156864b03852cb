// embedding, selectRows, scatterRows: one block a row. concatColumns: blocks of a row and part.
// floor   rows * width * (bytes read + bytes written)      launch  grid rows (folded over x and y), 256 threads
// needs   nothing; 16-byte access where rows and pointers are aligned        ref  tensor/src/driver/schema.ts
#include "device.cuh"
#include "launch.h"

namespace q::cuda {
namespace {

constexpr int kThreads = 256;

template <class W, class T>
__global__ void embedding_kernel(const W* table, const int32_t* ids, T* out, int64_t width, int64_t vocab, float scale,
                                 DeviceError* error) {
  pdl_begin();
  const int64_t row = blockIdx.x;
  const int64_t id = ids[row];
  const bool known = id >= 0 && id < vocab;  // -1, which sampling gives for broken logits, makes a row of zeros
  if (!known && id != -1 && threadIdx.x == 0) report_error(error, Command::embedding, id, vocab);
  T* to = out + row * width;
  const W* from = table + (known ? id * width : 0);
  constexpr int N = 16 / (sizeof(W) > sizeof(T) ? sizeof(W) : sizeof(T));
  const bool wide = width % N == 0 && (reinterpret_cast<uintptr_t>(table) | reinterpret_cast<uintptr_t>(out)) % 16 == 0;
  for (int64_t i = threadIdx.x; wide && i < width / N; i += blockDim.x) {
    float v[N];
    load(v, from + i * N);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = known ? v[j] * scale : 0.f;
    store(to + i * N, v);
  }
  for (int64_t i = threadIdx.x; !wide && i < width; i += blockDim.x)
    to[i] = from_float<T>(known ? to_float(from[i]) * scale : 0.f);
}

/// Rows of `units` words of type U; row i of one side is row indices[i] of the other. Rows outside 0 to limit - 1 are
/// reported and left out.
template <class U, bool SCATTER>
__global__ void rows_kernel(const U* x, const int32_t* indices, U* out, int64_t units, int64_t limit,
                            DeviceError* error) {
  pdl_begin();
  const int64_t row = blockIdx.x, other = indices[row];
  if (other < 0 || other >= limit) {
    if (threadIdx.x == 0) report_error(error, SCATTER ? Command::scatterRows : Command::selectRows, other, limit);
    return;
  }
  const U* from = x + (SCATTER ? row : other) * units;
  U* to = out + (SCATTER ? other : row) * units;
  for (int64_t i = threadIdx.x; i < units; i += blockDim.x) to[i] = from[i];
}

template <bool SCATTER>
void move_rows(const Tensor& x, const Tensor& indices, const Tensor& out, int64_t rows, int64_t width, const char* what,
               Context& c) {
  if (rows == 0) return;
  const int64_t bytes = width * dtype_bytes(x.dtype);
  const int64_t limit = (SCATTER ? out.bytes : x.bytes) / bytes;
  const auto go = [&](auto unit) {
    using U = decltype(unit);
    launch(c, what, rows_kernel<U, SCATTER>, dim3(static_cast<unsigned>(rows)), kThreads, 0, x.as<const U>(),
           indices.as<const int32_t>(), out.as<U>(), bytes / static_cast<int64_t>(sizeof(U)), limit, c.device_error);
  };
  const uintptr_t together =
      reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(out.data) | static_cast<uintptr_t>(bytes);
  if (together % 16 == 0) return go(uint4{});
  if (together % 4 == 0) return go(uint32_t{});
  go(uint8_t{});
}

struct ColumnPieces {
  const void* x;
  int64_t x_offset, x_stride, x_row_stride, offset, stride;
  unsigned width;  // of a piece, in units
  int64_t units;   // of all pieces of a row
};
struct ConcatParams {
  ColumnPieces part[kMaxRepeat];
  void* out;
  int64_t row_stride;
};

/// Block (row, part); U: unit of the copy, which divides every size and offset.
template <class U>
__global__ void __launch_bounds__(kThreads) concat_kernel(const __grid_constant__ ConcatParams p) {
  pdl_begin();
  const ColumnPieces& part = p.part[blockIdx.y];
  const U* from = static_cast<const U*>(part.x) + blockIdx.x * part.x_row_stride + part.x_offset;
  U* to = static_cast<U*>(p.out) + blockIdx.x * p.row_stride + part.offset;
  for (int64_t i = threadIdx.x; i < part.units; i += kThreads) {
    const int64_t piece = i < (int64_t(1) << 32) ? int64_t(static_cast<unsigned>(i) / part.width) : i / part.width;
    const int64_t j = i - piece * part.width;
    to[piece * part.stride + j] = from[piece * part.x_stride + j];
  }
}

}  // namespace

void run(const EmbeddingArgs& a, Context& c) {
  if (a.rows == 0) return;
  with_float(a.table.dtype, "embedding", [&](auto w0) {
    with_float(a.out.dtype, "embedding", [&](auto t0) {
      using W = decltype(w0);
      using T = decltype(t0);
      launch(c, "embedding", embedding_kernel<W, T>, dim3(static_cast<unsigned>(a.rows)), kThreads, 0,
             a.table.as<const W>(), a.ids.as<const int32_t>(), a.out.as<T>(), a.width, a.vocab,
             static_cast<float>(a.scale), c.device_error);
    });
  });
}

void run(const SelectRowsArgs& a, Context& c) {
  move_rows<false>(a.x, a.indices, a.out, a.rows, a.width, "selectRows", c);
}
void run(const ScatterRowsArgs& a, Context& c) {
  move_rows<true>(a.x, a.indices, a.out, a.rows, a.width, "scatterRows", c);
}

void run(const ConcatColumnsArgs& a, Context& c) {
  if (a.rows == 0) return;
  const int64_t bytes = dtype_bytes(a.out.dtype);
  int64_t together = reinterpret_cast<int64_t>(a.out.data) | a.row_stride * bytes;
  for (int64_t i = 0; i < a.parts_count; ++i) {
    const ConcatColumnsArgsItem& part = a.parts[i];
    together |= reinterpret_cast<int64_t>(part.x.data) |
                (part.x_offset | part.x_stride | part.x_row_stride | part.offset | part.stride | part.width) * bytes;
  }
  const auto go = [&](auto unit) {
    using U = decltype(unit);
    const int64_t each = static_cast<int64_t>(sizeof(U)) / bytes;  // values of a unit
    ConcatParams p{};
    p.out = a.out.data;
    p.row_stride = a.row_stride / each;
    for (int64_t i = 0; i < a.parts_count; ++i) {
      const ConcatColumnsArgsItem& part = a.parts[i];
      const int64_t width = part.width / each;
      p.part[i] = {part.x.data,        part.x_offset / each, part.x_stride / each,         part.x_row_stride / each,
                   part.offset / each, part.stride / each,   static_cast<unsigned>(width), width * part.count};
    }
    launch(c, "concatColumns", concat_kernel<U>,
           dim3(static_cast<unsigned>(a.rows), static_cast<unsigned>(a.parts_count)), kThreads, 0, p);
  };
  if (together % 16 == 0) return go(uint4{});
  if (together % 4 == 0) return go(uint32_t{});
  go(uint16_t{});
}

}  // namespace q::cuda
