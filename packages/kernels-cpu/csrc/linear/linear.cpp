// The linear command: brings x into the layouts the parts need, and gives each thread an equal
// share of the columns of all parts. A thread takes its columns in blocks; a block is multiplied for up to kRowBlock
// rows and then finished (bias, activation, gate, residual) while it is in cache. Which instructions are used is said
// by context.features alone.
#include <algorithm>
#include <cstring>
#include <string>
#include "../common/bnb_codes.h"
#include "../common/float_types.h"
#include "plan.h"

namespace q::cpu {
namespace {
using namespace linear;

constexpr int64_t kRowBlock = 512;
/// Work below which a second thread costs more than it brings: about 5 us.
constexpr int64_t kGrainBytes = 64 << 10, kGrainProducts = 256 << 10;

const FloatKernels& float_kernels(Isa isa) {
#ifdef Q_X86
  if (isa == Isa::avx512) return avx512::float_kernels;
  if (isa == Isa::avx2) return avx2::float_kernels;
#endif
  return scalar::float_kernels;
}

const Int8Kernels& int8_kernels(Int8Kernel kernel) {
#ifdef Q_X86
  if (kernel == Int8Kernel::amx) return avx512_amx::int8_kernels;
  if (kernel == Int8Kernel::vnni) return avx512_vnni::int8_kernels;
  if (kernel == Int8Kernel::avx512) return avx512::int8_kernels;
  if (kernel == Int8Kernel::avx2) return avx2::int8_kernels;
#endif
  return scalar::int8_kernels;
}

const float* as_f32(const Tensor& t, int64_t count, Scratch& scratch) {
  if (t.dtype == DType::f32) return t.as<float>();
  float* out = scratch.take_array<float>(size_t(count));
  if (t.dtype == DType::bf16)
    for (int64_t i = 0; i < count; ++i) out[i] = to_float(t.as<BF16>()[i]);
  else
    for (int64_t i = 0; i < count; ++i) out[i] = to_float(t.as<F16>()[i]);
  return out;
}

void resolve_nibble(Part& p, const LinearArgsItem& item) {
  p.blocks = (p.n * p.k + item.block_size - 1) / item.block_size;
  p.block_size = item.block_size;
  p.code = item.quant_type == int64_t(QuantType::nf4) ? kNf4 : kFp4;
  if (item.nested_absmax) {
    p.nested = item.absmax.as<uint8_t>();
    p.nested_absmax = item.nested_absmax.as<float>();
    p.nested_code = item.nested_code.as<float>();
    p.offset = *item.offset.as<float>();
    p.nested_block_size = item.nested_block_size;
  } else {
    p.absmax = item.absmax.as<float>();
  }
  while (p.shift < 32 && (kChunk << p.shift) < p.block_size) ++p.shift;
}

Part resolve(const LinearArgsItem& item, int64_t k, int64_t column, Scratch& scratch) {
  Part p{};
  p.n = item.n;
  p.k = k;
  p.column = column;
  p.weight = item.weight.data;
  if (item.bias) p.bias = as_f32(item.bias, p.n, scratch);
  const auto kind = WeightKind(item.kind);
  p.format = choose_format(kind, item.weight.dtype, k, item.block_size).kernel;
  if (kind == WeightKind::bnb4) resolve_nibble(p, item);
  if (kind == WeightKind::int8) p.scb = item.absmax.as<float>();
  return p;
}

/// Rows of x over the threads, in whole tiles of 16.
template <class Body>
void over_rows(const Plan& plan, Context& context, const Body& body) {
  const int64_t tiles = (plan.rows + 15) / 16, grain = std::max<int64_t>(1, kGrainProducts / (16 * plan.k));
  if (tiles <= grain) return body(0, plan.rows);
  context.workers.parallel(tiles, grain,
                           [&](int64_t begin, int64_t end, int) { body(begin * 16, std::min(end * 16, plan.rows)); });
}

QuantizedRows* quantize_rows(const Plan& plan, float threshold, const Int8Kernels& kernels, Context& context) {
  Scratch& scratch = context.scratch;
  QuantizedRows* q = scratch.take_array<QuantizedRows>(1);
  *q = {};
  q->rows = plan.rows;
  q->k = plan.k;
  q->ld = (plan.k + 63) / 64 * 64;
  q->codes = scratch.take_array<int8_t>(size_t((plan.rows + 15) / 16 * 16 * q->ld));
  q->sums = scratch.take_array<int32_t>(size_t(plan.rows));
  q->absmax = scratch.take_array<float>(size_t(plan.rows));
  q->first = scratch.take_array<int64_t>(size_t(plan.rows + 1));
  q->first[0] = 0;
  over_rows(plan, context, [&](int64_t r0, int64_t r1) { kernels.measure(plan, *q, threshold, r0, r1); });
  for (int64_t r = 0; r < plan.rows; ++r) q->first[r + 1] += q->first[r];
  const int64_t outliers = q->first[plan.rows];
  q->columns = scratch.take_array<int32_t>(size_t(outliers));
  q->values = scratch.take_array<float>(size_t(outliers));
  over_rows(plan, context, [&](int64_t r0, int64_t r1) { kernels.quantize(plan, *q, threshold, r0, r1); });
  if (outliers) {
    int32_t* place = scratch.take_array<int32_t>(size_t(plan.k));
    std::fill(place, place + plan.k, -1);
    for (int64_t i = 0; i < outliers; ++i) place[q->columns[i]] = 0;
    q->distinct = scratch.take_array<int32_t>(size_t(std::min(plan.k, outliers)));
    for (int64_t k = 0; k < plan.k; ++k) {
      if (place[k] == 0) q->distinct[q->distinct_count] = int32_t(k), place[k] = int32_t(q->distinct_count++);
    }
    for (int64_t i = 0; i < outliers; ++i) q->columns[i] = place[q->columns[i]];
  }
  return q;
}

/// x with rows of whole vectors, the rest zeros; for panels also with kPad between rows. And once more in the order of
/// the nibbles when a part wants it.
void prepare_x(Plan& plan, const LinearArgs& args, const FloatKernels& kernels, Context& context) {
  const float* x = args.x.as<float>();
  const auto any = [&](auto test) { return std::any_of(plan.parts, plan.parts + plan.parts_count, test); };
  const bool panels = plan.rows > kernels.max_direct_rows,
             ordered = any([](const Part& p) { return p.format == Format::nibble; });
  const bool plain = any([](const Part& p) { return p.format != Format::nibble && p.format != Format::int8; });
  const int64_t whole = (plan.k + kernels.lanes - 1) / kernels.lanes * kernels.lanes, pad = panels ? kPad : 0;
  plan.x = x;
  plan.ldx = plan.k;
  if (plain && whole + pad != plan.k) {
    plan.ldx = whole + pad;
    float* out = context.scratch.take_array<float>(size_t(plan.rows * plan.ldx));
    plan.x = out;
    over_rows(plan, context, [&](int64_t r0, int64_t r1) {
      for (int64_t r = r0; r < r1; ++r) {
        std::memcpy(out + r * plan.ldx, x + r * plan.k, size_t(plan.k) * 4);
        std::fill(out + r * plan.ldx + plan.k, out + (r + 1) * plan.ldx, 0.0f);
      }
    });
  }
  if (ordered) {
    plan.ld_nibble = plan.k + pad;
    float* out = context.scratch.take_array<float>(size_t(plan.rows * plan.ld_nibble));
    plan.x_nibble = out;
    over_rows(plan, context, [&](int64_t r0, int64_t r1) {
      for (int64_t r = r0; r < r1; ++r) kernels.order_nibbles(x + r * plan.k, out + r * plan.ld_nibble, plan.k);
    });
  }
}

struct Share {
  const Plan& plan;
  const FloatKernels& floats;
  const Int8Kernels& ints;
  const Workers& workers;
  int64_t columns;  // of a block

  void multiply(const Part& p, const Block& b, const Panel& panel) const {
    if (p.format == Format::int8)
      ints.block(p, b, panel);
    else
      floats.block(p, plan, b, panel);
  }

  /// Columns [n0, n1) of part i (and of the next one when gated).
  void run(int i, int64_t n0, int64_t n1, float* y, const Panel& panel) const {
    for (int64_t row = 0; row < plan.rows; row += kRowBlock) {
      const int64_t row1 = std::min(plan.rows, row + kRowBlock);
      for (int64_t n = n0; n < n1 && !workers.cancelled(); n += columns) {
        Block b{row, row1, n, std::min(n1, n + columns), y, columns};
        multiply(plan.parts[i], b, panel);
        float* up = nullptr;
        if (plan.gated) {
          up = y + (row1 - row) * columns;
          Block second = b;
          second.y = up;
          multiply(plan.parts[i + 1], second, panel);
        }
        floats.finish(plan, i, b, up);
      }
    }
  }
};

int64_t part_bytes(const Part& p) {
  const int64_t bits = p.format == Format::f32                               ? 32
                       : p.format == Format::int8                            ? 8
                       : p.format == Format::f16 || p.format == Format::bf16 ? 16
                                                                             : 5;
  return (p.k * bits + 7) / 8;
}

}  // namespace

void run(const LinearArgs& args, Context& context) {
  if (args.rows == 0) return;
  Scratch& scratch = context.scratch;
  Plan plan{};
  plan.rows = args.rows;
  plan.k = args.k;
  plan.gated = args.gated != 0;
  plan.activation = ActivationKind(args.activation);
  plan.limit = plan.gated ? float(args.limit) : 0.f;
  plan.up_offset = plan.gated ? float(args.up_offset) : 0.f;
  plan.parts_count = int(args.parts_count);
  int64_t columns = 0, units = 0;
  for (int i = 0; i < plan.parts_count; ++i) {
    plan.parts[i] = resolve(args.parts[i], args.k, columns, scratch);
    if (!plan.gated || i == 0) columns += args.parts[i].n, units += (args.parts[i].n + kUnit - 1) / kUnit;
  }
  plan.ldo = columns;
  plan.residual = args.residual.as<float>();
  plan.out = args.out.as<float>();

  const FloatKernels& floats = float_kernels(context.features.isa);
  const Int8Kernels& ints = int8_kernels(choose_int8(context.features, args.rows).kernel);
  prepare_x(plan, args, floats, context);
  int64_t distinct = 0, bytes = 0, chunk_blocks = 0;
  double threshold = -1;
  const QuantizedRows* rows = nullptr;
  for (int i = 0; i < plan.parts_count; ++i) {
    Part& p = plan.parts[i];
    if (p.format == Format::int8) {
      if (args.parts[i].threshold != threshold)
        rows = quantize_rows(plan, float(threshold = args.parts[i].threshold), ints, context);
      p.rows = rows;
      distinct = std::max(distinct, rows->distinct_count);
    }
    if (p.code) chunk_blocks = std::max(chunk_blocks, 4 * absmax_per_row(p.block_size));
    bytes = std::max(bytes, part_bytes(p) * (plan.gated ? 2 : 1));
  }

  const Share share{plan, floats, ints, context.workers, choose_columns(args.rows, floats.max_direct_rows).count};
  const int64_t row_block = std::min(plan.rows, kRowBlock);
  const int threads = context.workers.threads();
  Panel* panels = scratch.take_array<Panel>(size_t(threads));
  float** sums = scratch.take_array<float*>(size_t(threads));
  for (int t = 0; t < threads; ++t) {
    panels[t].weights = scratch.take_array<float>(size_t(share.columns * kPanelStride));
    panels[t].absmax = scratch.take_array<float>(size_t(chunk_blocks));
    panels[t].outliers = scratch.take_array<float>(size_t(distinct * share.columns));
    sums[t] = scratch.take_array<float>(size_t(row_block * share.columns * (plan.gated ? 2 : 1)));
  }
  const int64_t grain =
      std::max<int64_t>(1, std::min(kGrainBytes / (kUnit * bytes), kGrainProducts / (kUnit * plan.rows * plan.k)));
  context.workers.parallel(units, grain, [&](int64_t begin, int64_t end, int thread) {
    int64_t first = 0;  // unit of part i
    for (int i = 0; i < plan.parts_count && first < end; ++i) {
      const int64_t count = (plan.parts[i].n + kUnit - 1) / kUnit;
      const int64_t u0 = std::max(begin, first) - first, u1 = std::min(end, first + count) - first;
      if (u0 < u1) share.run(i, u0 * kUnit, std::min(u1 * kUnit, plan.parts[i].n), sums[thread], panels[thread]);
      first += count;
      if (plan.gated) break;
    }
  });
}

}  // namespace q::cpu
