// The kernels of set avxvnni with its instructions in plain C++.
#include "tests/emulated/avx512.h"

#define avxvnni emulated_avxvnni
#include "simd/avxvnni/kernels.cpp"
