// See ceilings.h. Built with AVX-512, VNNI and AMX flags; a caller asks only for what the machine has.
#include "ceilings.h"
#include <immintrin.h>
#include <ctime>

namespace q::cpu::bench {
namespace {

template <class Body>
double seconds(Workers& workers, const Body& body) {
  const clockid_t clock = workers.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;  // as the bench
  timespec start, end;
  clock_gettime(clock, &start);
  workers.parallel(workers.threads(), 1, [&](int64_t begin, int64_t end, int) { for (int64_t i = begin; i < end; ++i) body(i); });
  clock_gettime(clock, &end);
  return double(end.tv_sec - start.tv_sec) + double(end.tv_nsec - start.tv_nsec) * 1e-9;
}

volatile float sink;
constexpr int kChains = 12;

}  // namespace

double read_bandwidth(Workers& workers, const void* data, int64_t bytes) {
  const int64_t share = bytes / workers.threads() / 256 * 256;
  const double s = seconds(workers, [&](int64_t i) {
    const char* p = static_cast<const char*>(data) + i * share;
    __m512 sums[4] = {};
    for (int64_t at = 0; at < share; at += 256) {
      for (int j = 0; j < 4; ++j) {
        _mm_prefetch(p + at + 4096 + 64 * j, _MM_HINT_T0);
        sums[j] = _mm512_add_ps(sums[j], _mm512_loadu_ps(p + at + 64 * j));
      }
    }
    sink = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
  });
  return double(share) * workers.threads() / s / 1e9;
}

double fma_peak(Workers& workers) {
  constexpr int kRepeat = 5000000;
  const double s = seconds(workers, [&](int64_t) {
    __m512 a[kChains];
    
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) a[j] = _mm512_set1_ps(float(j));
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.5f);
    for (int i = 0; i < kRepeat; ++i) {
#pragma GCC unroll 12
      for (int j = 0; j < kChains; ++j) a[j] = _mm512_fmadd_ps(a[j], x, y);
      asm volatile("" ::"v"(a[0]));
    }
    float sum = 0;
#pragma GCC unroll 12
    for (const __m512& v : a) sum += _mm512_reduce_add_ps(v);
    sink = sum;
  });
  return double(kRepeat) * kChains * 32 * workers.threads() / s / 1e9;
}

double vnni_peak(Workers& workers) {
  constexpr int kRepeat = 5000000;
  const double s = seconds(workers, [&](int64_t) {
    __m512i a[kChains];
    
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) a[j] = _mm512_set1_epi32(j);
    const __m512i x = _mm512_set1_epi32(3), y = _mm512_set1_epi32(77);
    for (int i = 0; i < kRepeat; ++i) {
#pragma GCC unroll 12
      for (int j = 0; j < kChains; ++j) a[j] = _mm512_dpbusd_epi32(a[j], x, y);
      asm volatile("" ::"v"(a[0]));
    }
    int sum = 0;
#pragma GCC unroll 12
    for (const __m512i& v : a) sum += _mm512_reduce_add_epi32(v);
    sink = float(sum);
  });
  return double(kRepeat) * kChains * 128 * workers.threads() / s / 1e9;
}

double amx_peak(Workers& workers) {
  constexpr int kRepeat = 1000000;
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const double s = seconds(workers, [&](int64_t) {
    static constexpr Config config;  // static: the compiler does not see that the instruction reads all of it
    _tile_loadconfig(&config);
    for (int i = 0; i < kRepeat; ++i) {
      _tile_dpbssd(0, 4, 5);
      _tile_dpbssd(1, 4, 6);
      _tile_dpbssd(2, 7, 5);
      _tile_dpbssd(3, 7, 6);
    }
    _tile_release();
  });
  return double(kRepeat) * 4 * 16 * 16 * 64 * 2 * workers.threads() / s / 1e9;
}

}  // namespace q::cpu::bench
