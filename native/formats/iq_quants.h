// Super-blocks of 256 values that store indices into a grid of 4 or 8 magnitudes, and signs apart. The numpy definition
// is src/quipu/quant/decode.py; the order of the float operations is the same here.
#pragma once

#include "blocks.h"
#include "formats/grids.h"
#include "formats/scalar_float.h"

#include <array>
#include <bit>
#include <cstddef>

namespace quipu {

// A grid with its codes replaced by the values they stand for: entry i is the kWidth values of index i.
template <int kWidth, size_t kEntries> using ExpandedGrid = std::array<std::array<int8_t, kWidth>, kEntries>;

template <int kWidth, int kCodeBits, size_t kEntries, size_t kLevels>
static constexpr ExpandedGrid<kWidth, kEntries> expand_grid(const uint16_t (&codes)[kEntries],
                                                            const int8_t (&levels)[kLevels]) {
    ExpandedGrid<kWidth, kEntries> grid{};
    for (size_t i = 0; i < kEntries; ++i)
        for (int j = 0; j < kWidth; ++j)
            grid[i][j] = levels[codes[i] >> (j * kCodeBits) & ((1 << kCodeBits) - 1)];
    return grid;
}

inline constexpr auto kIQ1SGrid = expand_grid<8, 2>(kIQ1SCodes, kIQ1SLevels);
inline constexpr auto kIQ2XXSGrid = expand_grid<8, 2>(kIQ2XXSCodes, kIQ2XXSLevels);
inline constexpr auto kIQ2XSGrid = expand_grid<8, 2>(kIQ2XSCodes, kIQ2XSLevels);
inline constexpr auto kIQ2SGrid = expand_grid<8, 2>(kIQ2SCodes, kIQ2SLevels);
inline constexpr auto kIQ3XXSGrid = expand_grid<4, 3>(kIQ3XXSCodes, kIQ3XXSLevels);
inline constexpr auto kIQ3SGrid = expand_grid<4, 3>(kIQ3SCodes, kIQ3SLevels);

// Row i: +1 or -1 for the 8 bits of i, lowest first; a set bit means minus. A table, since gcc vectorises loads but not
// bits.
static constexpr std::array<std::array<int8_t, 8>, 256> sign_table() {
    std::array<std::array<int8_t, 8>, 256> table{};
    for (int bits = 0; bits < 256; ++bits)
        for (int j = 0; j < 8; ++j)
            table[bits][j] = bits >> j & 1 ? -1 : 1;
    return table;
}
inline constexpr auto kSigns = sign_table();

// The 8 signs of a byte, and of a sign word of 7 bits: its eighth sign makes the number of minus signs even.
static inline const int8_t *signs_of(uint8_t bits) {
    return kSigns[bits].data();
}
static inline const int8_t *even_signs_of(uint32_t word) {
    word &= 127;
    return signs_of(uint8_t(word | (std::popcount(word) & 1) << 7));
}

// out = scale * magnitude * sign for the values of one grid entry.
template <size_t kWidth>
static inline void unpack_entry(const std::array<int8_t, kWidth> &entry, const int8_t *signs, float scale, float *out) {
    for (size_t j = 0; j < kWidth; ++j)
        out[j] = scale * float(entry[j] * signs[j]);
}

static inline void unpack_block(const BlockIQ2_XXS &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 8; ++group) {
        const uint32_t indices = block.qs[2 * group];
        const uint32_t words = block.qs[2 * group + 1];
        const float scale = d * (float(words >> 28) + 0.5f) * 0.25f;
        for (int i = 0; i < 4; ++i, out += 8)
            unpack_entry(kIQ2XXSGrid[indices >> (8 * i) & 255], even_signs_of(words >> (7 * i)), scale, out);
    }
}

static inline void unpack_block(const BlockIQ2_XS &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < 32; ++i, out += 8) {
        const int code = block.scales[i / 4] >> (i / 2 % 2 * 4) & 15;
        const float scale = d * (float(code) + 0.5f) * 0.25f;
        const uint16_t word = block.qs[i];
        unpack_entry(kIQ2XSGrid[word & 511], even_signs_of(word >> 9), scale, out);
    }
}

static inline void unpack_block(const BlockIQ2_S &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < 32; ++i, out += 8) {
        const int code = block.scales[i / 4] >> (i / 2 % 2 * 4) & 15;
        const float scale = d * (float(code) + 0.5f) * 0.25f;
        const int high = block.qh[i / 4] >> (i % 4 * 2) & 3;
        unpack_entry(kIQ2SGrid[block.qs[i] | high << 8], signs_of(block.signs[i]), scale, out);
    }
}

static inline void unpack_block(const BlockIQ3_XXS &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int group = 0; group < 8; ++group) {
        const uint32_t words = block.signs[group];
        const float scale = d * (float(words >> 28) + 0.5f) * 0.5f;
        for (int i = 0; i < 4; ++i, out += 8) {
            const uint8_t *indices = block.qs + 8 * group + 2 * i;
            const int8_t *signs = even_signs_of(words >> (7 * i));
            unpack_entry(kIQ3XXSGrid[indices[0]], signs, scale, out);
            unpack_entry(kIQ3XXSGrid[indices[1]], signs + 4, scale, out + 4);
        }
    }
}

static inline void unpack_block(const BlockIQ3_S &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < 64; ++i, out += 4) {
        const int code = block.scales[i / 16] >> (i / 8 % 2 * 4) & 15;
        const float scale = d * float(2 * code + 1);
        const int high = block.qh[i / 8] >> (i % 8) & 1;
        unpack_entry(kIQ3SGrid[block.qs[i] | high << 8], signs_of(block.signs[i / 2]) + i % 2 * 4, scale, out);
    }
}

// The 8 ternary values at `index`, shifted up (or, with `minus`, down) by an eighth.
static inline void unpack_shifted(int index, bool minus, float scale, float *out) {
    const float shift = minus ? -kIQ1Shift : kIQ1Shift;
    for (int j = 0; j < 8; ++j)
        out[j] = scale * (float(kIQ1SGrid[index][j]) + shift);
}

static inline void unpack_block(const BlockIQ1_S &block, float *out) {
    const float d = f16_to_f32(block.d);
    for (int i = 0; i < 32; ++i, out += 8) {
        const int qh = block.qh[i / 4];
        const float scale = d * float((qh >> 12 & 7) * 2 + 1);
        const int high = qh >> (i % 4 * 3) & 7;
        unpack_shifted(block.qs[i] | high << 8, qh >> 15, scale, out);
    }
}

static inline void unpack_block(const BlockIQ1_M &block, float *out) {
    // The four top nibbles of the scale words, lowest first, are the f16 scale of the block.
    uint32_t bits = 0;
    for (int i = 0; i < 4; ++i)
        bits |= uint32_t(block.scales[i] >> 12) << (4 * i);
    const float d = f16_to_f32(uint16_t(bits));
    for (int i = 0; i < 32; ++i, out += 8) {
        const int code = block.scales[i / 8] >> (i / 2 % 4 * 3) & 7;
        const float scale = d * float(2 * code + 1);
        const int high = block.qh[i / 2] >> (i % 2 * 4) & 15;
        unpack_shifted(block.qs[i] | (high & 7) << 8, high >> 3, scale, out);
    }
}

} // namespace quipu
