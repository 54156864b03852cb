// LLM.int8 for scalar, AVX2 and AVX-512 (BW); see int8_dot.h.
#include "int8_dot.h"
