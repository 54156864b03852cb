// i8 x i8 products of AMX tiles. See ceilings.h.
#include <immintrin.h>
#include "ceilings.h"

namespace q::cpu::avx512_amx {

extern const int64_t ops_per_round = 4 * 16 * 16 * 64 * 2;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

float products(int64_t repeat) {
  static constexpr TileConfig config;  // static: the compiler does not see that the instruction reads all of it
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < repeat; ++i) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 6);
    _tile_dpbssd(2, 7, 5);
    _tile_dpbssd(3, 7, 6);
  }
  _tile_release();
  return 0;
}

}  // namespace q::cpu::avx512_amx
