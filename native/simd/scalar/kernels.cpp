// All kernels for the scalar instruction set: its vector vocabulary, then the ops written against it.
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

#define QUIPU_ISA scalar
#define QUIPU_PLAIN_SET
#include "simd/scalar/vec.h"

#include "simd/portable_formats.h"

#include "ops/table.inl"
