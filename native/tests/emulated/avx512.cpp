// The kernels of set avx512 with its instructions in plain C++.
#include "tests/emulated/avx512.h"

#define avx512 emulated_avx512
#include "simd/avx512/kernels.cpp"
