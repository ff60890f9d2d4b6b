// All kernels for the neon instruction set: the baseline of every 64-bit ARM processor.
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

#define QUIPU_ISA neon
#include "simd/neon/vec.h"

#include "simd/neon/vec_formats.h"

#define QUIPU_TILES "ops/tiles_fours.inl"
#include "ops/table.inl"
