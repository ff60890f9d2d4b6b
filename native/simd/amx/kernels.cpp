// All kernels for the amx instruction set: those of avx512, with AMX matrix registers for tiles.
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

#define QUIPU_ISA amx
#include "simd/avx2/vec.h"

#include "simd/avx2/vec_formats.h"

#define QUIPU_TILES "simd/amx/tiles.inl"
#define QUIPU_FLOAT_TILES      // has kernels of floats too
#define QUIPU_MAX_ROW_TOKENS 4 // a matrix product pays from the fifth token on
#include "ops/table.inl"
