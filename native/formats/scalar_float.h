// Exact conversions of the small float formats to float32, one value at a time.
//
// Everything here has internal linkage on purpose: these functions are compiled into translation units of several
// instruction sets, and the linker must not keep an AVX2 copy for a machine without AVX2.
#pragma once

#include <bit>
#include <cstdint>

namespace quipu {

// IEEE half. A subnormal, which has no implicit leading one, is given one and then rid of it by an exact subtraction.
// So no intermediate is a float32 subnormal, which some processor modes flush to zero, and loops vectorise.
[[maybe_unused]] static constexpr float f16_to_f32(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1Fu;
    const uint32_t mantissa = bits & 0x3FFu;
    const bool is_subnormal = exponent == 0;
    const uint32_t biased = exponent == 31 ? 255u : exponent + (127 - 15) + is_subnormal;
    const float leading_one = is_subnormal ? 0x1p-14f : 0.0f;
    const float magnitude = std::bit_cast<float>((biased << 23) | (mantissa << 13)) - leading_one;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

// The nearest half, ties to even, as the vector instruction rounds; a NaN stays NaN.
[[maybe_unused]] static constexpr uint16_t f32_to_f16(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u)
        return static_cast<uint16_t>(sign | 0x7E00u);
    if (magnitude >= 0x477FF000u) // rounds to 65520 or more
        return static_cast<uint16_t>(sign | 0x7C00u);
    if (magnitude < 0x38800000u) { // subnormal half: adding 0.5 leaves the value in units of 2^-24 in the low bits
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
    }
    const uint32_t rounded = magnitude + 0x0FFFu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// bfloat16: the upper half of a float32.
[[maybe_unused]] static constexpr float bf16_to_f32(uint16_t bits) {
    return std::bit_cast<float>(uint32_t(bits) << 16);
}

// The nearest bfloat16, ties to even; a NaN stays NaN.
[[maybe_unused]] static constexpr uint16_t f32_to_bf16(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    return static_cast<uint16_t>((is_nan ? bits | 1u << 22 : bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// E8M0 (OCP Microscaling v1.0) halved: 2^(bits - 128), to be multiplied with doubled E2M1 values, which are integers.
// The two smallest are float32 subnormals. The NaN code 255 reads as 2^127, as ggml reads it.
[[maybe_unused]] static constexpr float e8m0_half_to_f32(uint8_t bits) {
    return std::bit_cast<float>(bits < 2 ? 0x00200000u << bits : uint32_t(bits - 1) << 23);
}

// Unsigned E4M3 (bias 7) halved, for the same doubled E2M1 values. The code of NaN, 0x7F, reads as zero, as ggml reads
// it; the unused top bit is ignored, except that 0xFF is then not that code.
[[maybe_unused]] static constexpr float ue4m3_half_to_f32(uint8_t bits) {
    const uint32_t exponent = (bits >> 3) & 0xFu;
    const uint32_t mantissa = bits & 7u;
    const uint32_t normal = ((exponent + (127 - 7 - 1)) << 23) | (mantissa << 20);
    const float value = exponent == 0 ? float(int(mantissa)) * 0x1p-10f : std::bit_cast<float>(normal);
    return bits == 0x7F ? 0.0f : value;
}

} // namespace quipu
