// All kernels for the neon_i8mm instruction set: NEON with products of 2 x 8 by 8 x 2 bytes.
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

#define QUIPU_ISA neon_i8mm
#include "simd/neon/vec.h"

#include "simd/neon/vec_formats.h"

#define QUIPU_TILES "simd/neon/tiles.inl"
#include "ops/table.inl"
