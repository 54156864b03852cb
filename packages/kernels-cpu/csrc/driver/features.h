// What this machine's processor can do, asked at run time.
#pragma once
#include <string>
#include "../common/context.h"

namespace q::cpu {

/// Instruction sets that the processor has and the system saves (CPUID and XGETBV); AMX only after the system granted
/// it.
CpuFeatures detect_features();
const char* isa_name(Isa isa);
std::string cpu_name();
/// Physical cores this process may run on, a container's share included; at least 1.
int physical_cores();

}  // namespace q::cpu
