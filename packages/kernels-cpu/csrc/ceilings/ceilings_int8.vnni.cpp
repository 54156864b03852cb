// u8 x i8 products with VNNI. See ceilings.h.
#include <immintrin.h>
#include "ceilings.h"

namespace q::cpu::avx512_vnni {

constexpr int kChains = 12;
extern const int64_t ops_per_round = kChains * 128;

float products(int64_t repeat) {
  __m512i a[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) a[j] = _mm512_set1_epi32(j);
  const __m512i x = _mm512_set1_epi32(3), y = _mm512_set1_epi32(77);
  for (int64_t i = 0; i < repeat; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) a[j] = _mm512_dpbusd_epi32(a[j], x, y);
    asm volatile("" ::"v"(a[0]));
  }
  int sum = 0;
#pragma GCC unroll 12
  for (const __m512i& v : a) sum += _mm512_reduce_add_epi32(v);
  return float(sum);
}

}  // namespace q::cpu::avx512_vnni
