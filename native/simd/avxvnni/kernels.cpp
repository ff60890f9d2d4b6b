// All kernels for the avxvnni instruction set: the vocabulary of AVX2, with dot products of
// four bytes (AVX-VNNI) in the place of two multiplications and an addition.
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

#define QUIPU_ISA avxvnni
#include "simd/avx2/vec.h"

#include "simd/avx2/vec_formats.h"

#define QUIPU_TILES "ops/tiles_fours.inl"
#include "ops/table.inl"
