// Formats with blocks of 32 to 128 values.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

struct WeightsQ4_1 : EightDefaults {
    using Block = BlockQ4_1;
    static constexpr int kGroups = 1, kMaxCode = 15;
    static constexpr bool kOffsets = true;
    static EightScales scales(const Block *b) {
        const F32x8 minima = gather_f16(&b->m, sizeof(Block));
        return {.scales = gather_f16(&b->d, sizeof(Block)), .offsets = zero_f32() - minima};
    }
    template <int G> static EightCodes codes(const Block *b, const State &) { return {split_nibbles(b[G].qs)}; }
};

struct WeightsQ5_1 : EightDefaults {
    using Block = BlockQ5_1;
    static constexpr int kGroups = 1, kMaxCode = 31, kCentre = 16;
    static constexpr bool kOffsets = true;
    static EightScales scales(const Block *b) {
        const F32x8 d = gather_f16(&b->d, sizeof(Block)), minima = gather_f16(&b->m, sizeof(Block));
        return {.scales = d, .offsets = zero_f32() - fma(d, splat(kCentre), minima)};
    }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {split_nibbles(b[G].qs) | expand_bits(b[G].qh, 16)};
    }
};

template <size_t N> constexpr std::array<int8_t, N> table_of(const int8_t (&levels)[N], int shift) {
    std::array<int8_t, N> table{};
    for (size_t i = 0; i < N; i++)
        table[i] = static_cast<int8_t>(levels[i] + shift);
    return table;
}
inline constexpr auto kIQ4Table = table_of(kIQ4NLLevels, 0);
inline constexpr auto kE2M1Table = table_of(kE2M1DoubledLevels, 12);

inline EightCodes iq4_codes(const uint8_t *qs) {
    const B8x32 levels = lookup_levels(kIQ4Table, split_nibbles(qs));
    return {abs_b8(levels), levels};
}

struct WeightsIQ4_NL : EightDefaults {
    using Block = BlockIQ4_NL;
    static constexpr int kGroups = 1, kMaxCode = 127;
    static constexpr bool kMagnitudes = true;
    static EightScales scales(const Block *b) { return {.scales = gather_f16(&b->d, sizeof(Block))}; }
    template <int G> static EightCodes codes(const Block *b, const State &) { return iq4_codes(b[G].qs); }
};

struct WeightsMXFP4 : EightDefaults {
    using Block = BlockMXFP4;
    static constexpr int kGroups = 1, kMaxCode = 24, kCentre = 12;
    static EightScales scales(const Block *b) { return {.scales = gather_e8m0_halves(&b->e, sizeof(Block))}; }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {lookup_levels(kE2M1Table, split_nibbles(b[G].qs))};
    }
};

struct WeightsNVFP4 : EightDefaults {
    using Block = BlockNVFP4;
    static constexpr int kGroups = 2, kMaxCode = 24, kCentre = 12;
    static constexpr Scaling kScaling = Scaling::kFloatPairs;
    static EightScales scales(const Block *b) {
        EightScales result;
        gather_ue4m3_halves(b->d, sizeof(Block), result.scales, result.high_scales);
        return result;
    }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {lookup_levels(kE2M1Table, split_nibbles_of_8(b[G / 2].qs + 16 * (G % 2)))};
    }
};

struct WeightsQ1_0 : EightDefaults { // codes 0 and 2 for -1 and 1
    using Block = BlockQ1_0;
    static constexpr int kGroups = 4, kMaxCode = 2, kCentre = 1;
    static EightScales scales(const Block *b) { return {.scales = gather_f16_each<4>(&b->d, sizeof(Block))}; }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {expand_bits(b[G / 4].qs + 4 * (G % 4), 2)};
    }
};

struct WeightsQ2_0 : EightDefaults {
    using Block = BlockQ2_0;
    static constexpr int kGroups = 2, kMaxCode = 3, kCentre = 1;
    static EightScales scales(const Block *b) { return {.scales = gather_f16_each<2>(&b->d, sizeof(Block))}; }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {split_pairs_of_bits(b[G / 2].qs + 8 * (G % 2))};
    }
};

} // namespace
} // namespace quipu::QUIPU_ISA
