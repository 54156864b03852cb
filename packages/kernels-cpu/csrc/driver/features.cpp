// See features.h.
#include "features.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace q::cpu {
namespace {

#if defined(__x86_64__)

struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Leaf leaf(unsigned number, unsigned sub = 0) {
  Leaf l;
  __get_cpuid_count(number, sub, &l.a, &l.b, &l.c, &l.d);
  return l;
}

uint64_t saved_state() {
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

constexpr bool bit(unsigned word, int at) { return word >> at & 1; }

/// Linux gives the AMX tile registers only to processes that ask.
bool amx_granted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

#endif

}  // namespace

CpuFeatures detect_features() {
  CpuFeatures f{};
  f.isa = Isa::scalar;
#if defined(__x86_64__)
  const Leaf one = leaf(1), seven = leaf(7), seven1 = leaf(7, 1);
  (void)seven1;
  const uint64_t state = bit(one.c, 27) ? saved_state() : 0;
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
  const bool avx2 = ymm && bit(one.c, 12) && bit(one.c, 28) && bit(one.c, 29) && bit(seven.b, 5) && bit(seven.b, 3) &&
                    bit(seven.b, 8);
  const bool avx512 =
      avx2 && zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 28) && bit(seven.b, 30) && bit(seven.b, 31);
  f.isa = avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::scalar;
  f.avx512_vnni = avx512 && bit(seven.c, 11);
  f.avx512_vbmi = avx512 && bit(seven.c, 1);
  f.avx512_bf16 = avx512 && bit(seven1.a, 5);
  f.avx512_fp16 = avx512 && bit(seven.d, 23);
  f.amx_tile = avx512 && tiles && bit(seven.d, 24) && amx_granted();
  f.amx_bf16 = f.amx_tile && bit(seven.d, 22);
  f.amx_int8 = f.amx_tile && bit(seven.d, 25);
#endif
  return f;
}

const char* isa_name(Isa isa) {
  if (isa == Isa::avx512) return "avx512";
  if (isa == Isa::avx2) return "avx2";
#if defined(__aarch64__)
  return "neon";
#else
  return "scalar";
#endif
}

std::string cpu_name() {
#if defined(__x86_64__)
  if (leaf(0x80000000).a < 0x80000004) return "x86-64";
  std::string name;
  for (unsigned i = 0; i < 3; ++i) {
    const Leaf l = leaf(0x80000002 + i);
    const unsigned words[] = {l.a, l.b, l.c, l.d};
    name.append(reinterpret_cast<const char*>(words), 16);
  }
  name = name.c_str();
  const size_t first = name.find_first_not_of(' ');
  return first == std::string::npos ? "x86-64" : name.substr(first, name.find_last_not_of(' ') - first + 1);
#elif defined(__APPLE__)
  char name[128] = {};
  size_t size = sizeof name - 1;
  return sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0 ? name : "CPU";
#else
  return "CPU";
#endif
}

int physical_cores() {
  int cores = int(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__APPLE__)
  int count = 0;
  size_t size = sizeof count;
  if (sysctlbyname("hw.perflevel0.physicalcpu", &count, &size, nullptr, 0) == 0 && count > 0) return count;
  if (sysctlbyname("hw.physicalcpu", &count, &size, nullptr, 0) == 0 && count > 0) return count;
#elif defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::string> siblings;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      std::string list;
      if (!(file >> list)) list = std::to_string(cpu);
      siblings.insert(list);
    }
    cores = std::max(1, int(siblings.size()));
  }
  std::ifstream quota("/sys/fs/cgroup/cpu.max");
  double most, period;
  if (quota >> most >> period && period > 0) cores = std::min(cores, std::max(1, int(std::ceil(most / period))));
#endif
  return cores;
}

}  // namespace q::cpu
