// Short blocks with one scale, and for some a minimum. The numpy definition is src/quipu/quant/decode.py; the order of
// the float operations is the same here.
#pragma once

#include "blocks.h"
#include "formats/grids.h"
#include "formats/scalar_float.h"

namespace quipu {

// Bit `index` of a little-endian bit string.
static inline int bit_at(const uint8_t *bits, int index) {
    return bits[index / 8] >> (index % 8) & 1;
}

static inline void unpack_block(const BlockQ4_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float((block.qs[j] & 15) - 8);
        out[j + 16] = d * float((block.qs[j] >> 4) - 8);
    }
}

static inline void unpack_block(const BlockQ4_1 &block, float *out) {
    const float d = f16_to_f32(block.d);
    const float m = f16_to_f32(block.m);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float(block.qs[j] & 15) + m;
        out[j + 16] = d * float(block.qs[j] >> 4) + m;
    }
}

static inline void unpack_block(const BlockQ5_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float(((block.qs[j] & 15) | bit_at(block.qh, j) << 4) - 16);
        out[j + 16] = d * float(((block.qs[j] >> 4) | bit_at(block.qh, j + 16) << 4) - 16);
    }
}

static inline void unpack_block(const BlockQ5_1 &block, float *out) {
    const float d = f16_to_f32(block.d);
    const float m = f16_to_f32(block.m);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float((block.qs[j] & 15) | bit_at(block.qh, j) << 4) + m;
        out[j + 16] = d * float((block.qs[j] >> 4) | bit_at(block.qh, j + 16) << 4) + m;
    }
}

static inline void unpack_block(const BlockQ8_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 32; ++j)
        out[j] = d * float(block.qs[j]);
}

static inline void unpack_block(const BlockIQ4_NL &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 16; ++j) {
        out[j] = d * float(kIQ4NLLevels[block.qs[j] & 15]);
        out[j + 16] = d * float(kIQ4NLLevels[block.qs[j] >> 4]);
    }
}

static inline void unpack_block(const BlockQ1_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < 16; ++i, out += 8)
        for (int j = 0; j < 8; ++j)
            out[j] = block.qs[i] & 1 << j ? d : -d;
}

static inline void unpack_block(const BlockQ2_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int j = 0; j < 64; ++j)
        out[j] = d * float((block.qs[j / 4] >> (2 * (j % 4)) & 3) - 1);
}

} // namespace quipu
