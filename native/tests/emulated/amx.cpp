// The kernels of set amx with its instructions in plain C++.
#include "tests/emulated/amx.h"

#define amx emulated_amx
#include "simd/amx/kernels.cpp"
