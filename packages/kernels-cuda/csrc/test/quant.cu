// q_test_quant --goldens DIR: quantization commands against bitsandbytes' goldens, bit for bit, and odd tails against
// themselves. --mean FILE: means of torch (safetensors with tensors `x.NAME` and `mean.NAME`, f32) against the offset
// of quantizeAbsmax.
#include <string>
#include "linear_harness.cuh"
#include "safetensors.h"

using namespace q;
using namespace q::cuda;
using namespace q::cuda::test;

namespace {

int g_failures = 0, g_checks = 0;

/// Counts differing elements of `size` bytes.
void equal(const std::string& what, const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, size_t size) {
  size_t different = got.size() == want.size() ? 0 : 1 + want.size();
  if (got.size() == want.size())
    for (size_t i = 0; i < got.size(); i += size) different += std::memcmp(&got[i], &want[i], size) != 0;
  ++g_checks;
  if (different) {
    ++g_failures;
    std::printf("FAIL %s: %zu of %zu differ\n", what.c_str(), different, want.size() / size);
  }
}

DType dtype_of(const StoredTensor& t) {
  return t.dtype == "F32" ? DType::f32 : t.dtype == "F16" ? DType::f16 : DType::bf16;
}

void blockwise(Device& device, const std::string& directory) {
  const auto t = read_safetensors(directory + "/blockwise_4bit.safetensors");
  Buffer book(t.at("nested_code").bytes);
  for (const auto& [name, packed] : t) {
    if (name.size() < 7 || name.compare(name.size() - 7, 7, ".packed") != 0) continue;
    const std::string key = name.substr(0, name.size() - 7);
    const bool nested = key.find(".nested") != std::string::npos;
    const int64_t block = std::atoi(key.c_str() + key.find(".b", key.find("4.")) + 2),
                  type = key.find(".fp4") != std::string::npos;
    const StoredTensor& w = t.at(key.substr(0, key.find('.', key.find('.') + 1)) + ".weight");
    const DType dtype = dtype_of(w);
    const int64_t count = w.count(), blocks = (count + block - 1) / block;
    Buffer x(w.bytes), codes((count + 1) / 2), absmax(blocks * 4), small(blocks),
        nested_absmax((blocks + 255) / 256 * 4), offset(4), out(w.bytes.size());
    device.run(
        Quantize4bitArgs{x.tensor(dtype), codes.tensor(DType::u8), absmax.tensor(DType::f32), count, block, type});
    Dequantize4bitArgs d{
        codes.tensor(DType::u8), absmax.tensor(DType::f32), {}, {}, {}, out.tensor(dtype), count, block, 256, type};
    if (nested) {
      device.run(QuantizeAbsmaxArgs{absmax.tensor(DType::f32), small.tensor(DType::u8),
                                    nested_absmax.tensor(DType::f32), book.tensor(DType::f32),
                                    offset.tensor(DType::f32), blocks, 256});
      d.absmax = small.tensor(DType::u8), d.nested_absmax = nested_absmax.tensor(DType::f32),
      d.nested_code = book.tensor(DType::f32), d.offset = offset.tensor(DType::f32);
    }
    device.run(d);
    device.wait();
    equal(key + ".packed", codes.read<uint8_t>(), packed.bytes, 1);
    if (nested) {
      equal(key + ".offset", offset.read<uint8_t>(), t.at(key + ".offset").bytes, 4);
      equal(key + ".nested_absmax", nested_absmax.read<uint8_t>(), t.at(key + ".nested_absmax").bytes, 4);
      equal(key + ".absmax", small.read<uint8_t>(), t.at(key + ".absmax").bytes, 1);
    } else {
      equal(key + ".absmax", absmax.read<uint8_t>(), t.at(key + ".absmax").bytes, 4);
    }
    equal(key + ".dequant", out.read<uint8_t>(), t.at(key + ".dequant").bytes, size_of(dtype));
    if (!codes.guard_intact() || !absmax.guard_intact() || !out.guard_intact())
      std::printf("FAIL %s wrote beyond\n", key.c_str()), ++g_failures;
  }
}

void int8(Device& device, const std::string& directory) {
  const auto t = read_safetensors(directory + "/llm_int8.safetensors");
  const int64_t n = t.at("weight").shape[0], k = t.at("weight").shape[1];
  Buffer w(t.at("weight").bytes), cb(n * k), scb(n * 4), out(n * k * 4);
  device.run(QuantizeInt8Args{w.tensor(DType::f16), cb.tensor(DType::i8), scb.tensor(DType::f32), n, k});
  device.run(DequantizeInt8Args{cb.tensor(DType::i8), scb.tensor(DType::f32), out.tensor(DType::f32), n, k});
  const int64_t rows = t.at("x").count() / k;
  Buffer x(t.at("x").bytes), ca(rows * k), sca(rows * 4);
  device.run(QuantizeInt8Args{x.tensor(DType::f16), ca.tensor(DType::i8), sca.tensor(DType::f32), rows, k});
  device.wait();
  equal("CB", cb.read<uint8_t>(), t.at("weight.CB").bytes, 1);
  equal("SCB", scb.read<uint8_t>(), t.at("weight.SCB").bytes, 4);
  equal("CA", ca.read<uint8_t>(), t.at("t0.CA").bytes, 1);
  equal("SCA", sca.read<uint8_t>(), t.at("t0.SCA").bytes, 4);
  const std::vector<float> got = out.read<float>(), scales = scb.read<float>();
  const std::vector<int8_t> codes = cb.read<int8_t>();
  for (int64_t i = 0; i < n * k; ++i) {
    const float product = codes[i] * scales[i / k];
    if (got[i] == product * 0.007874015748031496f) continue;
    std::printf("FAIL dequantizeInt8 at %lld\n", static_cast<long long>(i));
    ++g_failures;
    break;
  }
}

void means(Device& device, const std::string& file) {
  const auto t = read_safetensors(file);
  Buffer book(std::vector<float>(256, 0.f));
  for (const auto& [name, x] : t) {
    if (name.compare(0, 2, "x.") != 0) continue;
    const int64_t count = x.count();
    Buffer d(x.bytes), out(count), nested((count + 255) / 256 * 4), offset(4);
    device.run(QuantizeAbsmaxArgs{d.tensor(DType::f32), out.tensor(DType::u8), nested.tensor(DType::f32),
                                  book.tensor(DType::f32), offset.tensor(DType::f32), count, 256});
    device.wait();
    equal("mean of " + std::to_string(count), offset.read<uint8_t>(), t.at("mean." + name.substr(2)).bytes, 4);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Device device;
    for (int i = 1; i + 1 < argc; ++i) {
      if (std::string(argv[i]) == "--goldens") blockwise(device, argv[i + 1]), int8(device, argv[i + 1]);
      if (std::string(argv[i]) == "--mean") means(device, argv[i + 1]);
    }
  } catch (const std::exception& e) {
    std::printf("FAIL %s\n", e.what());
    return 1;
  }
  std::printf("quant: %d checks, %d failures\n", g_checks, g_failures);
  return g_failures != 0;
}
