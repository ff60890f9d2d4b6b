// Types without blocks: floats and integers of fixed width.
#pragma once

#include "formats/scalar_float.h"

#include <cstdint>
#include <cstring>

namespace quipu {

static inline float to_f32_f16(uint16_t bits) {
    return f16_to_f32(bits);
}
static inline float to_f32_bf16(uint16_t bits) {
    return bf16_to_f32(bits);
}
template <class Number> static inline float to_f32_number(Number number) {
    return static_cast<float>(number);
}

// Reads `count` values of type Number, at any alignment, and converts each.
template <class Number, float (*convert)(Number)>
static void unpack_numbers(const uint8_t *bytes, float *out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        Number number;
        std::memcpy(&number, bytes + i * int64_t(sizeof number), sizeof number);
        out[i] = convert(number);
    }
}

} // namespace quipu
