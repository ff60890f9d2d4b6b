// The kernels of set avx512bf16 with its instructions in plain C++.
#include "tests/emulated/avx512.h"

#define avx512bf16 emulated_avx512bf16
#include "simd/avx512bf16/kernels.cpp"
