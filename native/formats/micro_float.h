// Blocks of 4-bit floats (E2M1) with 8-bit float scales. The levels are doubled to be integers, the scales halved.
#pragma once

#include "blocks.h"
#include "formats/grids.h"
#include "formats/scalar_float.h"

namespace quipu {

static inline void unpack_block(const BlockMXFP4 &block, float *out) {
    const float d = e8m0_half_to_f32(block.e);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float(kE2M1DoubledLevels[block.qs[j] & 15]);
        out[j + 16] = d * float(kE2M1DoubledLevels[block.qs[j] >> 4]);
    }
}

static inline void unpack_block(const BlockNVFP4 &block, float *out) {
    for (int group = 0; group < 4; ++group, out += 16) {
        const float d = ue4m3_half_to_f32(block.d[group]);
        const uint8_t *qs = block.qs + 8 * group;
        for (int j = 0; j < 8; ++j) {
            out[j] = d * float(kE2M1DoubledLevels[qs[j] & 15]);
            out[j + 8] = d * float(kE2M1DoubledLevels[qs[j] >> 4]);
        }
    }
}

} // namespace quipu
