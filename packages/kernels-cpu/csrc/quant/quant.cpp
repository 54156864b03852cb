// The quantization commands: checks, the mean of the absmax values, and blocks or rows over the threads.
#include <algorithm>
#include <string>
#include "../common/float_types.h"
#include "quant.h"

namespace q::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values worth a thread

const quant::Kernels& kernels(const Context& context) {
#ifdef Q_X86
  if (context.features.isa == Isa::avx512) return avx512::quant_kernels;
  if (context.features.isa == Isa::avx2) return avx2::quant_kernels;
#endif
  return scalar::quant_kernels;
}

[[noreturn]] void refuse(const char* op, const std::string& what) {
  throw CommandError("[" + std::string(op) + "] " + what);
}

void require(const char* op, const char* what, const Tensor& t, DType dtype, int64_t bytes) {
  if (!t || t.dtype != dtype || t.bytes < bytes) {
    refuse(op, std::string(what) + " must be of element type " + std::to_string(int(dtype)) + " and hold " +
                   std::to_string(bytes) + " bytes; got type " + std::to_string(int(t.dtype)) + ", " +
                   std::to_string(t.bytes) + " bytes");
  }
}

void require_float(const char* op, const char* what, const Tensor& t, int64_t count) {
  if (t.dtype != DType::f32 && t.dtype != DType::f16 && t.dtype != DType::bf16)
    refuse(op, std::string(what) + " must be f32, f16 or bf16");
  require(op, what, t, t.dtype, count * (t.dtype == DType::f32 ? 4 : 2));
}

int64_t blocks_of(const char* op, int64_t count, int64_t block_size) {
  if (count < 0 || block_size < 2 || block_size % 2)
    refuse(op,
           "count " + std::to_string(count) + ", blockSize " + std::to_string(block_size) + ": blockSize must be even");
  return (count + block_size - 1) / block_size;
}

template <class Args, class Kernel>
void over(Context& context, int64_t items, int64_t values_per_item, const Args& args, Kernel kernel) {
  if (items == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values_per_item));
  context.workers.parallel(items, grain, [&](int64_t begin, int64_t end, int) { kernel(args, begin, end); });
}

int64_t power_below(int64_t n) {
  int64_t p = 1;
  while (2 * p <= n) p *= 2;
  return p;
}

/// The mean of n values, added in the order of torch's CUDA reduction with one thread block (of up to 512 threads, each
/// with four sums), so that the offset of nested absmax is the same bits; from 32768 values on the order there depends
/// on the GPU.
float mean(const float* x, int64_t n) {
  float sums[512];
  const bool vectors = n >= 128;
  const int64_t threads = std::min<int64_t>(512, power_below(std::max<int64_t>(1, vectors ? n / 4 : n)));
  const int64_t inner = vectors ? 1 : threads,
                outer = vectors ? 4 : 1;  // steps from one of the four sums, one thread, to the next
  for (int64_t t = 0; t < threads; ++t) {
    float four[4] = {};
    int64_t i = t;
    for (; i * outer + 3 * inner < n; i += vectors ? threads : 4 * threads) {
      for (int64_t j = 0; j < 4; ++j) four[j] += x[i * outer + j * inner];
    }
    if (vectors) {
      if (n - n % 4 + t < n) four[0] += x[n - n % 4 + t];
    } else {
      for (int64_t j = 0; i < n; i += threads) four[j++] += x[i];
    }
    sums[t] = ((four[0] + four[1]) + four[2]) + four[3];
  }
  for (int64_t half = threads / 2; half; half /= 2) {
    for (int64_t t = 0; t < half; ++t) sums[t] += sums[t + half];
  }
  return sums[0] * (1.0f / float(n));
}

}  // namespace

void run(const Quantize4bitArgs& a, Context& context) {
  const char* op = "quantize4bit";
  const int64_t blocks = blocks_of(op, a.count, a.block_size);
  if (a.quant_type != int64_t(QuantType::nf4) && a.quant_type != int64_t(QuantType::fp4))
    refuse(op, "unknown quantType " + std::to_string(a.quant_type));
  require_float(op, "x", a.x, a.count);
  require(op, "codes", a.codes, DType::u8, (a.count + 1) / 2);
  require(op, "absmax", a.absmax, DType::f32, blocks * 4);
  over(context, blocks, a.block_size, a, kernels(context).quantize4);
}

void run(const Dequantize4bitArgs& a, Context& context) {
  const char* op = "dequantize4bit";
  const int64_t blocks = blocks_of(op, a.count, a.block_size);
  if (a.quant_type != int64_t(QuantType::nf4) && a.quant_type != int64_t(QuantType::fp4))
    refuse(op, "unknown quantType " + std::to_string(a.quant_type));
  require_float(op, "out", a.out, a.count);
  require(op, "codes", a.codes, DType::u8, (a.count + 1) / 2);
  if (a.nested_absmax) {
    if (a.nested_block_size < 1) refuse(op, "nestedBlockSize must be positive");
    require(op, "absmax", a.absmax, DType::u8, blocks);
    require(op, "nestedAbsmax", a.nested_absmax, DType::f32,
            (blocks + a.nested_block_size - 1) / a.nested_block_size * 4);
    require(op, "nestedCode", a.nested_code, DType::f32, 1024);
    require(op, "offset", a.offset, DType::f32, 4);
  } else {
    require(op, "absmax", a.absmax, DType::f32, blocks * 4);
  }
  over(context, blocks, a.block_size, a, kernels(context).dequantize4);
}

void run(const QuantizeAbsmaxArgs& a, Context& context) {
  const char* op = "quantizeAbsmax";
  const int64_t blocks = blocks_of(op, a.count, a.block_size);
  require(op, "x", a.x, DType::f32, a.count * 4);
  require(op, "out", a.out, DType::u8, a.count);
  require(op, "nestedAbsmax", a.nested_absmax, DType::f32, blocks * 4);
  require(op, "nestedCode", a.nested_code, DType::f32, 1024);
  require(op, "offset", a.offset, DType::f32, 4);
  if (a.count == 0) return;
  *a.offset.as<float>() = mean(a.x.as<float>(), a.count);
  const float* code = a.nested_code.as<float>();
  float cuts[255];
  for (int i = 0; i < 255; ++i) cuts[i] = float((double(code[i]) + double(code[i + 1])) / 2);
  over(context, blocks, a.block_size, a, [&](const QuantizeAbsmaxArgs& args, int64_t b0, int64_t b1) {
    kernels(context).quantize_absmax(args, cuts, b0, b1);
  });
}

void run(const QuantizeInt8Args& a, Context& context) {
  const char* op = "quantizeInt8";
  require_float(op, "x", a.x, a.rows * a.width);
  require(op, "codes", a.codes, DType::i8, a.rows * a.width);
  require(op, "absmax", a.absmax, DType::f32, a.rows * 4);
  over(context, a.rows, a.width, a, kernels(context).quantize8);
}

void run(const DequantizeInt8Args& a, Context& context) {
  const char* op = "dequantizeInt8";
  require_float(op, "out", a.out, a.rows * a.width);
  require(op, "codes", a.codes, DType::i8, a.rows * a.width);
  require(op, "absmax", a.absmax, DType::f32, a.rows * 4);
  over(context, a.rows, a.width, a, kernels(context).dequantize8);
}

}  // namespace q::cpu
