// All kernels for the avx512bf16 instruction set: those of avx512, but BF16 weights meet
// activations that are rounded to bfloat16: twice the multiplications per instruction, at the price of accuracy (about
// 3 decimal digits per activation). It is never chosen by itself.
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

#define QUIPU_ISA avx512bf16
#include "simd/avx2/vec.h"

#include "simd/avx2/vec_formats.h"

#define QUIPU_TILES "simd/avx512bf16/tiles.inl"
#define QUIPU_FLOAT_TILES // has kernels of floats too
#include "ops/table.inl"
