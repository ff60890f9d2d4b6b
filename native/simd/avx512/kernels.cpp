// All kernels for the avx512 instruction set: the vocabulary of AVX2 with VNNI, 32 registers
// of 256 bits, and tiles of 16 tokens in registers of 512 bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "blocks.h"
#include "formats/encode.h"
#include "formats/formats.h"
#include "formats/grids.h"
#include "formats/iq_quants.h"
#include "formats/scalar_float.h"
#include "kernels.h"

#define QUIPU_ISA avx512
#include "simd/avx2/vec.h"

#include "simd/avx2/vec_formats.h"

#define QUIPU_TILES "simd/avx512/tiles.inl"
#define QUIPU_FLOAT_TILES // has kernels of floats too
#include "ops/table.inl"
