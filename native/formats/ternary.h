// Super-blocks of the values -d, 0 and d.
#pragma once

#include "blocks.h"
#include "formats/scalar_float.h"

namespace quipu {

// Unpacks `num_bytes` bytes of `num_digits` base-3 digits each: first the first digit of all bytes, then the second ...
// A byte is ceil(number * 256 / 243), a fraction: multiplied by 3, its next digit is what overflows.
static inline float *unpack_trits(const uint8_t *bytes, int num_bytes, int num_digits, float d, float *out) {
    unsigned power = 1;
    for (int digit = 0; digit < num_digits; ++digit, power *= 3, out += num_bytes)
        for (int j = 0; j < num_bytes; ++j)
            out[j] = d * float(int((bytes[j] * power & 255) * 3 >> 8) - 1);
    return out;
}

static inline void unpack_block(const BlockTQ1_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    out = unpack_trits(block.qs, 32, 5, d, out);
    out = unpack_trits(block.qs + 32, 16, 5, d, out);
    unpack_trits(block.qh, 4, 4, d, out);
}

static inline void unpack_block(const BlockTQ2_0 &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int half = 0; half < 2; ++half)
        for (int shift = 0; shift < 8; shift += 2, out += 32)
            for (int j = 0; j < 32; ++j)
                out[j] = d * float((block.qs[32 * half + j] >> shift & 3) - 1);
}

} // namespace quipu
