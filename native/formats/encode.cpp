// The numpy definition is src/quipu/quant/encoders.py; the order of the float operations is the same here.
#include "formats/encode.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "blocks.h"
#include "formats/formats.h"
#include "formats/grids.h"
#include "formats/scalar_float.h"

namespace quipu {
namespace {

constexpr int kValues = kCacheBlock;

bool all_finite(const float *x) {
    uint32_t largest = 0;
    for (int i = 0; i < kValues; i++) {
        const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest < 0x7F800000u;
}

float largest_magnitude(const float *x) {
    float largest = 0.0f;
    for (int i = 0; i < kValues; i++)
        largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    return largest;
}

// The first value of largest magnitude, with its sign.
float largest_value(const float *x) {
    const float largest = largest_magnitude(x);
    for (int i = 0; i < kValues; i++)
        if (std::fabs(x[i]) == largest)
            return x[i];
    return 0.0f;
}

// 1 / scale, or zero where that is not finite: such values are below what a half scale can express.
float reciprocal(float scale) {
    const float r = 1.0f / scale;
    return std::fabs(r) <= std::numeric_limits<float>::max() ? r : 0.0f;
}

template <class Block> void store_codes(const uint8_t *codes, Block &block) {
    for (int j = 0; j < kValues / 2; j++)
        block.qs[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + kValues / 2] & 15) << 4);
    if constexpr (requires { block.qh; }) {
        uint32_t bits = 0;
        for (int j = 0; j < kValues; j++)
            bits |= uint32_t(codes[j] >> 4) << j;
        std::memcpy(block.qh, &bits, sizeof(bits));
    }
}

// x times the reciprocal; where there is none, zero even for an overflowed x.
float scaled(float x, float inverse) {
    return inverse == 0.0f ? 0.0f : x * inverse;
}

// x / d + half, truncated: x / d is at least -half - rounding, so the sum with half a step is not negative.
template <int Half, class Block> void encode_symmetric(const float *x, Block &block) {
    const float d = largest_value(x) / float(-Half), inverse = reciprocal(d);
    uint8_t codes[kValues];
    for (int i = 0; i < kValues; i++) {
        const int code = static_cast<int>(scaled(x[i], inverse) + (Half + 0.5f));
        codes[i] = static_cast<uint8_t>(code < 2 * Half - 1 ? code : 2 * Half - 1);
    }
    block.d = f32_to_f16(d);
    store_codes(codes, block);
}

template <int Most, class Block> void encode_affine(const float *x, Block &block) {
    float lowest = x[0], highest = x[0];
    for (int i = 1; i < kValues; i++) {
        lowest = x[i] < lowest ? x[i] : lowest;
        highest = x[i] > highest ? x[i] : highest;
    }
    const float d = (highest - lowest) / float(Most), inverse = reciprocal(d);
    uint8_t codes[kValues];
    for (int i = 0; i < kValues; i++) {
        const int code = static_cast<int>(scaled(x[i] - lowest, inverse) + 0.5f);
        codes[i] = static_cast<uint8_t>(code < Most ? code : Most);
    }
    block.d = f32_to_f16(d);
    block.m = f32_to_f16(lowest);
    store_codes(codes, block);
}

void encode(const float *x, BlockQ8_0 &block) {
    const float d = largest_magnitude(x) / 127.0f, inverse = reciprocal(d);
    for (int i = 0; i < kValues; i++) {
        const float signed_code = x[i] * inverse, magnitude = std::fabs(signed_code);
        int code = static_cast<int>(magnitude); // at most 127 and a rounding error
        code += magnitude - float(code) >= 0.5f;
        block.qs[i] = static_cast<int8_t>(signed_code < 0.0f ? -code : code);
    }
    block.d = f32_to_f16(d);
}

void encode(const float *x, BlockIQ4_NL &block) {
    const float inverse = reciprocal(largest_value(x) / float(kIQ4NLLevels[0]));
    uint8_t codes[kValues] = {};
    for (int k = 0; k < 15; k++) {
        const float midpoint = 0.5f * float(kIQ4NLLevels[k] + kIQ4NLLevels[k + 1]);
        for (int i = 0; i < kValues; i++)
            codes[i] = static_cast<uint8_t>(codes[i] + (x[i] * inverse >= midpoint));
    }
    float products = 0.0f, squares = 0.0f;
    for (int i = 0; i < kValues; i++) {
        const float level = kIQ4NLLevels[codes[i]], weight = x[i] * x[i];
        products += weight * level * x[i];
        squares += weight * level * level;
    }
    block.d = f32_to_f16(squares > 0.0f ? products / squares : 0.0f);
    store_codes(codes, block);
}

void encode(const float *x, BlockQ4_0 &block) {
    encode_symmetric<8>(x, block);
}
void encode(const float *x, BlockQ5_0 &block) {
    encode_symmetric<16>(x, block);
}
void encode(const float *x, BlockQ4_1 &block) {
    encode_affine<15>(x, block);
}
void encode(const float *x, BlockQ5_1 &block) {
    encode_affine<31>(x, block);
}

// Blocks with a NaN or an infinity decode to NaN; the encoders then see zeros.
template <class Block> void encode_checked(const float *x, uint8_t *bytes) {
    static const float zeros[kValues] = {};
    const bool finite = all_finite(x);
    Block block;
    encode(finite ? x : zeros, block);
    if (!finite)
        block.d = 0x7E00;
    static_assert(sizeof(block) <= kCacheBlockBytes && Block::kValues == kValues);
    std::memcpy(bytes, &block, sizeof(block));
}

} // namespace

void encode_block(int type, const float *x, uint8_t *block) {
    switch (type) {
    case kQ8_0:
        return encode_checked<BlockQ8_0>(x, block);
    case kQ5_1:
        return encode_checked<BlockQ5_1>(x, block);
    case kQ5_0:
        return encode_checked<BlockQ5_0>(x, block);
    case kQ4_1:
        return encode_checked<BlockQ4_1>(x, block);
    case kQ4_0:
        return encode_checked<BlockQ4_0>(x, block);
    case kIQ4_NL:
        return encode_checked<BlockIQ4_NL>(x, block);
    }
}

} // namespace quipu
