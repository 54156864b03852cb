// bitsandbytes' blockwise 4-bit and row-wise 8-bit quantization, bit for bit.
// math     4 bit: v = x * (1 / absmax of the block); nf4 code = how many cuts lie below v, fp4 the same for |v|, plus 8
//          when x < 0. A block of zeros gives v = NaN and code 0, as there. absmax codes: v = (absmax - offset) * (1 /
//          block absmax), nearest of 256. 8 bit: round_to_even(x * (127 * (1 / absmax))).
// layout   two codes a byte, high nibble first, blocks over the flattened tensor; an odd count pads with the code of 0
// exact    for float input; on a GPU 1 / absmax is approximate, so a value that falls exactly between two codes (16-bit
//          weights have such) may go the other way: 20 of 690224 fp4 bytes of the shared data, none of nf4, 138 of 3.2
//          million int8 values
// floor    bytes in and out at the read bandwidth; 4 bit: 15 compares a value, about 2 cycles a value with AVX-512
// ref      bitsandbytes 0.50.2 quantize_4bit, int8_vectorwise_quant       bench  csrc/bench/linear.cpp
#include <algorithm>
#include <bit>
#include <cmath>
#include "../common/bnb_codes.h"
#include "../common/simd.h"
#include "quant.h"

namespace q::cpu::Q_ISA {
namespace {

constexpr int64_t kStep = 1024;  // values that are handled at a time, on the stack

template <class T>
void widen(const T* x, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i));
  for (; i < count; ++i) out[i] = to_float(x[i]);
}

void widen(const Tensor& x, int64_t at, int64_t count, float* out) {
  if (x.dtype == DType::f32) std::copy(x.as<float>() + at, x.as<float>() + at + count, out);
  if (x.dtype == DType::f16) widen(x.as<F16>() + at, count, out);
  if (x.dtype == DType::bf16) widen(x.as<BF16>() + at, count, out);
}

void narrow(const float* x, int64_t count, const Tensor& out, int64_t at) {
  if (out.dtype == DType::f32) std::copy(x, x + count, out.as<float>() + at);
  if (out.dtype == DType::f16)
    for (int64_t i = 0; i < count; ++i) put_float(out.as<F16>()[at + i], x[i]);
  if (out.dtype == DType::bf16)
    for (int64_t i = 0; i < count; ++i) put_float(out.as<BF16>()[at + i], x[i]);
}

/// Bits of |x|, which order as |x| does; NaN is above infinity, so that the largest of a block with NaN is NaN.
uint32_t magnitude(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

float largest(const float* x, int64_t count) {
  uint32_t lanes[kLanes] = {}, most = 0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = std::max(lanes[j], magnitude(x[i + j]));
  }
  for (; i < count; ++i) most = std::max(most, magnitude(x[i]));
  for (uint32_t lane : lanes) most = std::max(most, lane);
  return std::bit_cast<float>(most);
}

float largest(const Tensor& x, int64_t at, int64_t count) {
  if (x.dtype == DType::f32) return largest(x.as<float>() + at, count);
  float values[kStep];
  uint32_t most = 0;
  for (int64_t i = 0; i < count; i += kStep) {
    const int64_t n = std::min(kStep, count - i);
    widen(x, at + i, n, values);
    most = std::max(most, magnitude(largest(values, n)));
  }
  return std::bit_cast<float>(most);
}

void nf4_codes(const float* x, int64_t count, float scale, int32_t* codes) {
  float cuts[15];
  for (int i = 0; i < 15; ++i) cuts[i] = float((double(kNf4[i]) + double(kNf4[i + 1])) / 2);
  for (int64_t i = 0; i < count; ++i) {
    const float v = x[i] * scale;
    int32_t code = 0;
    for (float cut : cuts) code += v > cut;
    codes[i] = code;
  }
}

void fp4_codes(const float* x, int64_t count, float scale, int32_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const float v = x[i] * scale, magnitude = std::fabs(v);
    int32_t rank = 0;
    for (float cut : kFp4Cuts) rank += magnitude > cut;
    codes[i] = (0x32547610 >> (4 * rank) & 7) | (v < 0 ? 8 : 0);  // kFp4Order as nibbles
  }
}

void quantize4(const Quantize4bitArgs& a, int64_t block0, int64_t block1) {
  uint8_t* out = a.codes.as<uint8_t>();
  const auto encode = a.quant_type == int64_t(QuantType::nf4) ? nf4_codes : fp4_codes;
  float values[kStep];
  int32_t codes[kStep];
  for (int64_t b = block0; b < block1; ++b) {
    const int64_t start = b * a.block_size, end = std::min(a.count, start + a.block_size);
    const float absmax = largest(a.x, start, end - start);
    a.absmax.as<float>()[b] = absmax;
    for (int64_t i = start; i < end; i += kStep) {
      const int64_t count = std::min(kStep, end - i), pairs = (count + 1) / 2;
      widen(a.x, i, count, values);
      if (count % 2) values[count] = 0;
      encode(values, 2 * pairs, 1.0f / absmax, codes);
      for (int64_t j = 0; j < pairs; ++j) out[i / 2 + j] = uint8_t(codes[2 * j] << 4 | codes[2 * j + 1]);
    }
  }
}

void dequantize4(const Dequantize4bitArgs& a, int64_t block0, int64_t block1) {
  const float* code = a.quant_type == int64_t(QuantType::nf4) ? kNf4 : kFp4;
  const uint8_t* codes = a.codes.as<uint8_t>();
  float values[kStep], scaled[16];
  for (int64_t b = block0; b < block1; ++b) {
    float absmax;
    if (a.nested_absmax) {
      const float product =
          a.nested_code.as<float>()[a.absmax.as<uint8_t>()[b]] * a.nested_absmax.as<float>()[b / a.nested_block_size];
      std::memcpy(&absmax, &product, 4);
      absmax += *a.offset.as<float>();
    } else {
      absmax = a.absmax.as<float>()[b];
    }
    for (int i = 0; i < 16; ++i) scaled[i] = code[i] * absmax;
    const int64_t end = std::min(a.count, (b + 1) * a.block_size);
    for (int64_t i = b * a.block_size; i < end; i += kStep) {
      const int64_t count = std::min(kStep, end - i);
      for (int64_t j = 0; j < count; ++j) values[j] = scaled[codes[(i + j) / 2] >> ((i + j) % 2 ? 0 : 4) & 15];
      narrow(values, count, a.out, i);
    }
  }
}

void quantize_absmax(const QuantizeAbsmaxArgs& a, const float* cuts, int64_t block0, int64_t block1) {
  const float* x = a.x.as<float>();
  const float offset = *a.offset.as<float>();
  for (int64_t b = block0; b < block1; ++b) {
    const int64_t start = b * a.block_size, end = std::min(a.count, start + a.block_size);
    float absmax = 0;
    for (int64_t i = start; i < end; ++i) absmax = std::max(absmax, std::fabs(x[i] - offset));
    a.nested_absmax.as<float>()[b] = absmax;
    const float scale = 1.0f / absmax;
    for (int64_t i = start; i < end; ++i) {
      const float v = (x[i] - offset) * scale;
      int code = 0;
      for (int half = 128; half; half /= 2) code += v > cuts[code + half - 1] ? half : 0;
      a.out.as<uint8_t>()[i] = uint8_t(code);
    }
  }
}

void quantize8(const QuantizeInt8Args& a, int64_t row0, int64_t row1) {
  float values[kStep];
  for (int64_t r = row0; r < row1; ++r) {
    const float absmax = largest(a.x, r * a.width, a.width), scale = absmax > 0 ? 127.0f * (1.0f / absmax) : 0.0f;
    a.absmax.as<float>()[r] = absmax;
    for (int64_t i = 0; i < a.width; i += kStep) {
      const int64_t count = std::min(kStep, a.width - i);
      int8_t* out = a.codes.as<int8_t>() + r * a.width + i;
      widen(a.x, r * a.width + i, count, values);
      for (int64_t j = 0; j < count; ++j)
        out[j] = int8_t(int32_t((values[j] * scale + 12582912.0f) - 12582912.0f));  // rounds to even
    }
  }
}

void dequantize8(const DequantizeInt8Args& a, int64_t row0, int64_t row1) {
  float values[kStep];
  for (int64_t r = row0; r < row1; ++r) {
    const float absmax = a.absmax.as<float>()[r];
    for (int64_t i = 0; i < a.width; i += kStep) {
      const int64_t count = std::min(kStep, a.width - i);
      const int8_t* codes = a.codes.as<int8_t>() + r * a.width + i;
      for (int64_t j = 0; j < count; ++j) values[j] = float(codes[j]) * absmax * (1.0f / 127.0f);
      narrow(values, count, a.out, r * a.width + i);
    }
  }
}

}  // namespace

const quant::Kernels quant_kernels = {quantize4, dequantize4, quantize_absmax, quantize8, dequantize8};

}  // namespace q::cpu::Q_ISA
