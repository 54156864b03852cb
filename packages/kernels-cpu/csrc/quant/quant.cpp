// The quantization commands: the mean of the absmax values, and blocks or rows over the threads.
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

int64_t blocks_of(int64_t count, int64_t block_size) { return count / block_size + (count % block_size != 0); }

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
  const int64_t blocks = blocks_of(a.count, a.block_size);
  over(context, blocks, a.block_size, a, kernels(context).quantize4);
}

void run(const Dequantize4bitArgs& a, Context& context) {
  const int64_t blocks = blocks_of(a.count, a.block_size);
  over(context, blocks, a.block_size, a, kernels(context).dequantize4);
}

void run(const QuantizeAbsmaxArgs& a, Context& context) {
  const int64_t blocks = blocks_of(a.count, a.block_size);
  if (a.count == 0) return;
  *a.offset.as<float>() = mean(a.x.as<float>(), a.count);
  const float* code = a.nested_code.as<float>();
  float cuts[255];
  for (int i = 0; i < 255; ++i) cuts[i] = float((double(code[i]) + double(code[i + 1])) / 2);
  over(context, blocks, a.block_size, a, [&](const QuantizeAbsmaxArgs& args, int64_t b0, int64_t b1) {
    kernels(context).quantize_absmax(args, cuts, b0, b1);
  });
}

void run(const QuantizeInt8Args& a, Context& context) { over(context, a.rows, a.width, a, kernels(context).quantize8); }

void run(const DequantizeInt8Args& a, Context& context) {
  over(context, a.rows, a.width, a, kernels(context).dequantize8);
}

}  // namespace q::cpu
