// Super-blocks of 256 values whose groups have small integer scales. The numpy definition is src/quipu/quant/decode.py;
// products are rounded before a minimum is subtracted, so these files are compiled without contraction to fma.
#pragma once

#include "blocks.h"
#include "formats/grids.h"
#include "formats/scalar_float.h"

namespace quipu {

struct ScaleAndMinimum {
    int scale, minimum; // 0 to 63
};

// Group 0 to 7 of the 12 bytes in Q4_K and Q5_K: the first four bytes hold scales 0 to 3, the next four minima 0 to 3,
// in the low six bits; the last four hold the low nibbles of scales and minima 4 to 7, whose high bits are the top bits
// of the first eight bytes.
static inline ScaleAndMinimum scale_and_minimum(const uint8_t *packed, int group) {
    if (group < 4)
        return {packed[group] & 63, packed[group + 4] & 63};
    const uint8_t low = packed[group + 4];
    return {(low & 15) | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4};
}

static inline void unpack_block(const BlockQ2_K &block, float *out) {
    const float d = f16_to_f32(block.d);
    const float dmin = f16_to_f32(block.dmin);
    for (int group = 0; group < 16; ++group, out += 16) {
        const float scale = d * float(block.scales[group] & 15);
        const float minimum = dmin * float(block.scales[group] >> 4);
        const uint8_t *qs = block.qs + 32 * (group / 8) + 16 * (group % 2);
        const int shift = group / 2 % 4 * 2;
        for (int j = 0; j < 16; ++j)
            out[j] = scale * float(qs[j] >> shift & 3) - minimum;
    }
}

// The third bit of a code is inverted: codes run from -4 (bit clear, low bits 0) to 3.
static inline void unpack_block(const BlockQ3_K &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 16; ++group, out += 16) {
        const int low_scale = block.scales[group % 8] >> (group / 8 * 4) & 15;
        const int high_scale = block.scales[8 + group % 4] >> (group / 4 * 2) & 3;
        const float scale = d * float((low_scale | high_scale << 4) - 32);
        const uint8_t *qs = block.qs + 32 * (group / 8) + 16 * (group % 2);
        const uint8_t *hmask = block.hmask + 16 * (group % 2);
        const int shift = group / 2 % 4 * 2;
        for (int j = 0; j < 16; ++j)
            out[j] = scale * float((qs[j] >> shift & 3) + (hmask[j] >> (group / 2) & 1) * 4 - 4);
    }
}

static inline void unpack_block(const BlockQ4_K &block, float *out) {
    const float d = f16_to_f32(block.d);
    const float dmin = f16_to_f32(block.dmin);
    for (int group = 0; group < 8; ++group, out += 32) {
        const ScaleAndMinimum packed = scale_and_minimum(block.scales, group);
        const float scale = d * float(packed.scale);
        const float minimum = dmin * float(packed.minimum);
        const uint8_t *qs = block.qs + 32 * (group / 2);
        const int shift = group % 2 * 4;
        for (int j = 0; j < 32; ++j)
            out[j] = scale * float(qs[j] >> shift & 15) - minimum;
    }
}

static inline void unpack_block(const BlockQ5_K &block, float *out) {
    const float d = f16_to_f32(block.d);
    const float dmin = f16_to_f32(block.dmin);
    for (int group = 0; group < 8; ++group, out += 32) {
        const ScaleAndMinimum packed = scale_and_minimum(block.scales, group);
        const float scale = d * float(packed.scale);
        const float minimum = dmin * float(packed.minimum);
        const uint8_t *qs = block.qs + 32 * (group / 2);
        const int shift = group % 2 * 4;
        for (int j = 0; j < 32; ++j)
            out[j] = scale * float((qs[j] >> shift & 15) | (block.qh[j] >> group & 1) << 4) - minimum;
    }
}

static inline void unpack_block(const BlockQ6_K &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 16; ++group, out += 16) {
        const float scale = d * float(block.scales[group]);
        const int half = group / 8; // each half of the values: 64 bytes of low nibbles, 32 bytes of high pairs
        const uint8_t *ql = block.ql + 64 * half + 16 * (group % 4);
        const uint8_t *qh = block.qh + 32 * half + 16 * (group % 2);
        const int low_shift = group / 4 % 2 * 4;
        const int high_shift = group / 2 % 4 * 2;
        for (int j = 0; j < 16; ++j)
            out[j] = scale * float(((ql[j] >> low_shift & 15) | (qh[j] >> high_shift & 3) << 4) - 32);
    }
}

static inline void unpack_block(const BlockIQ4_XS &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 8; ++group, out += 32) {
        const int low_scale = block.scales_l[group / 2] >> (group % 2 * 4) & 15;
        const int high_scale = block.scales_h >> (2 * group) & 3;
        const float scale = d * float((low_scale | high_scale << 4) - 32);
        const uint8_t *qs = block.qs + 16 * group;
        for (int j = 0; j < 16; ++j) {
            out[j] = scale * float(kIQ4NLLevels[qs[j] & 15]);
            out[j + 16] = scale * float(kIQ4NLLevels[qs[j] >> 4]);
        }
    }
}

} // namespace quipu
