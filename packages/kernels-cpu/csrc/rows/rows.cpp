// embedding    out f32 [rows, width] = table[ids] * scale; every id is checked before any row is read; id -1, which
//              sampling gives for broken logits, makes a row of zeros
// selectRows   out[i] = x[indices[i]]       scatterRows  out[indices[i]] = x[i]; rows of bytes, any dtype
// concatColumns  pieces of rows, at their places in other rows
// floor   twice the bytes of the rows moved         ref  tensor/src/reference/commands.ts
#include <cstring>
#include "../common/checks.h"
#include "rows.h"

namespace q::cpu {
namespace {

constexpr int32_t kNoToken = -1;

/// `least`: the smallest index that is taken.
void check_indices(const Tensor& indices, int64_t rows, int64_t least, int64_t limit, const char* what) {
  const int32_t* index = indices.as<int32_t>();
  for (int64_t i = 0; i < rows; ++i) {
    if (index[i] < least || index[i] >= limit)
      refuse(std::string(what) + " " + std::to_string(index[i]) + " at " + std::to_string(i) +
             " is outside the table of " + std::to_string(limit) + " rows");
  }
}

}  // namespace

void run(const EmbeddingArgs& a, Context& context) {
  check_indices(a.ids, a.rows, kNoToken, a.vocab, "token id");
  const auto scaled_row = row_kernels(context.features.isa).scaled_row;
  const int64_t row_bytes = a.width * dtype_bytes(a.table.dtype);
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t id = a.ids.as<int32_t>()[i];
      float* out = a.out.as<float>() + i * a.width;
      if (id == kNoToken)
        std::memset(out, 0, size_t(a.width) * 4);
      else
        scaled_row(a.table.as<char>() + id * row_bytes, a.table.dtype, out, a.width, float(a.scale));
    }
  });
}

void run(const SelectRowsArgs& a, Context& context) {
  const int64_t row_bytes = a.width * dtype_bytes(a.x.dtype);
  check_indices(a.indices, a.rows, 0, a.x.bytes / row_bytes, "row");
  context.workers.parallel(a.rows, rows_grain(a.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(a.out.as<char>() + i * row_bytes, a.x.as<char>() + a.indices.as<int32_t>()[i] * row_bytes,
                  size_t(row_bytes));
  });
}

void run(const ScatterRowsArgs& a, Context&) {
  const int64_t row_bytes = a.width * dtype_bytes(a.x.dtype);
  check_indices(a.indices, a.rows, 0, a.out.bytes / row_bytes, "row");
  // One thread: an index that comes twice keeps its last row.
  for (int64_t i = 0; i < a.rows; ++i)
    std::memcpy(a.out.as<char>() + a.indices.as<int32_t>()[i] * row_bytes, a.x.as<char>() + i * row_bytes,
                size_t(row_bytes));
}

void run(const ConcatColumnsArgs& a, Context& context) {
  for (int64_t p = 0; p < a.parts_count; ++p) {
    const ConcatColumnsArgsItem& part = a.parts[p];
    context.workers.parallel(a.rows, rows_grain(part.count * part.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = part.x.as<float>() + row * part.x_row_stride + part.x_offset;
        float* to = a.out.as<float>() + row * a.row_stride + part.offset;
        for (int64_t i = 0; i < part.count; ++i)
          std::memcpy(to + i * part.stride, from + i * part.x_stride, size_t(part.width) * 4);
      }
    });
  }
}

}  // namespace q::cpu
