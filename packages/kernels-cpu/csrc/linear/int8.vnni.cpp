// LLM.int8 with AVX-512 VNNI; see int8_dot.h.
#include "int8_dot.h"
