// See ceilings.h.
#include "ceilings.h"
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace q::cpu {
namespace {

constexpr int64_t kReadBytes = int64_t(1) << 30;  // in all; beyond the last cache of most machines
constexpr int kPasses = 6;
constexpr int64_t kRounds = 3'000'000;

const ceilings::Kernels& kernels(Isa isa) {
#ifdef Q_X86
  if (isa == Isa::avx512) return avx512::ceiling_kernels;
  if (isa == Isa::avx2) return avx2::ceiling_kernels;
#endif
  (void)isa;
  return scalar::ceiling_kernels;
}

volatile float sink;  // keeps the sums alive

/// Seconds of the fastest pass in which every thread does body(thread) once.
template <class Body>
double fastest(Workers& workers, int passes, const Body& body) {
  double best = 1e300;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    workers.parallel(workers.threads(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) sink = body(i);
    });
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(Workers& workers, const CpuFeatures& features) {
  const ceilings::Kernels& k = kernels(features.isa);
  const double threads = workers.threads();
  Ceilings result{};
  {
    const std::unique_ptr<char, decltype(&std::free)> data(static_cast<char*>(std::aligned_alloc(1 << 21, kReadBytes)),
                                                           &std::free);
    if (!data) throw std::bad_alloc();
    const int64_t share = kReadBytes / workers.threads() / 4096 * 4096;
    workers.parallel(workers.threads(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) std::memset(data.get() + i * share, 1, size_t(share));
    });
    result.read_bytes = double(share) * threads /
                        fastest(workers, kPasses, [&](int64_t i) { return k.read(data.get() + i * share, share); });
  }
  result.f32_flops = double(k.flops_per_round) * kRounds * threads /
                     fastest(workers, 3, [&](int64_t) { return k.multiply_add(kRounds); });
#ifdef Q_X86
  if (features.avx512_vnni)
    result.vnni_ops = double(avx512_vnni::ops_per_round) * kRounds * threads /
                      fastest(workers, 3, [](int64_t) { return avx512_vnni::products(kRounds); });
  if (features.amx_int8)
    result.amx_ops = double(avx512_amx::ops_per_round) * (kRounds / 4) * threads /
                     fastest(workers, 3, [](int64_t) { return avx512_amx::products(kRounds / 4); });
#endif
  return result;
}

}  // namespace q::cpu
