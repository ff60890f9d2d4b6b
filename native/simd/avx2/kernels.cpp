// All kernels for the avx2 instruction set: its vector vocabulary, then the ops written against it.
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

#define QUIPU_ISA avx2
#include "simd/avx2/vec.h"

#include "simd/avx2/vec_formats.h"

#include "ops/table.inl"
