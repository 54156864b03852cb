// One table of functions per instruction set: NAME.isa.cpp defines `const Type table` in each namespace, Q_ISA_TABLE
// declares them and gives `const Type& table(Isa)`.
#pragma once
#include "context.h"

#ifdef Q_X86
#define Q_ISA_TABLE(Type, table)                                                                \
  namespace scalar {                                                                            \
  extern const Type table;                                                                      \
  }                                                                                             \
  namespace avx2 {                                                                              \
  extern const Type table;                                                                      \
  }                                                                                             \
  namespace avx512 {                                                                            \
  extern const Type table;                                                                      \
  }                                                                                             \
  static inline const Type& table(Isa isa) {                                                    \
    return isa == Isa::avx512 ? avx512::table : isa == Isa::avx2 ? avx2::table : scalar::table; \
  }
#else
#define Q_ISA_TABLE(Type, table) \
  namespace scalar {             \
  extern const Type table;       \
  }                              \
  static inline const Type& table(Isa) { return scalar::table; }
#endif
