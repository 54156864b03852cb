// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): four random words from a counter and a key.
#pragma once
#include <cstdint>

namespace q::cpu {

struct Words4 {
  uint32_t w[4];
};

static inline Words4 philox(Words4 c, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xd2511f53u) * c.w[0], b = uint64_t(0xcd9e8d57u) * c.w[2];
    c = {{uint32_t(b >> 32) ^ c.w[1] ^ key0, uint32_t(b), uint32_t(a >> 32) ^ c.w[3] ^ key1, uint32_t(a)}};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return c;
}

/// A number in (0, 1) from a word.
static inline double unit(uint32_t word) { return (double(word) + 0.5) / 4294967296.0; }

}  // namespace q::cpu
