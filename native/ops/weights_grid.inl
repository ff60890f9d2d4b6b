// Formats that index a grid: entries are loaded by index from tables of bytes that fit the first-level cache, and signs
// are applied to 32 values at a time. `prepare` makes plain arrays of indices and sign bits for 256 values.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// A grid of magnitudes halved, or of values shifted up by one.
template <int kDivisor, int kShift, size_t kWidth, size_t kEntries>
constexpr ExpandedGrid<kWidth, kEntries> changed_grid(ExpandedGrid<kWidth, kEntries> grid) {
    for (auto &entry : grid)
        for (int8_t &value : entry)
            value = static_cast<int8_t>(value / kDivisor + kShift);
    return grid;
}
alignas(64) inline constexpr auto kHalvedIQ3XXSGrid = changed_grid<2, 0>(kIQ3XXSGrid);
alignas(64) inline constexpr auto kShiftedIQ1Grid = changed_grid<1, 1>(kIQ1SGrid);

// Bytes of 7 sign bits (the eighth bit zero) get the eighth, which makes their number even.
inline B8x32 complete_signs(B8x32 bits) {
    static constexpr std::array<int8_t, 16> kOddNibbles = {0,    -128, -128, 0,    -128, 0,    0,    -128,
                                                           -128, 0,    0,    -128, 0,    -128, -128, 0};
    return bits | lookup_levels(kOddNibbles, (bits ^ shift_right<4>(bits)) & splat_b8(0x0F));
}

// Words of four sign fields of 7 bits, the top four bits ignored, as 32 sign bytes.
inline B8x32 even_signs(I32x8 words) {
    const I32x8 fields = (words & splat_i32(0x7F)) | (shift_left<1>(words) & splat_i32(0x7F00)) |
                         (shift_left<2>(words) & splat_i32(0x7F0000)) | (shift_left<3>(words) & splat_i32(0x7F000000));
    return complete_signs(as_bytes(fields));
}

struct SignState {
    B8x32 signs[2]; // bytes 0 to 15 twice, then bytes 16 to 31 twice
};
struct IndexState {
    alignas(32) uint16_t indices[32];
};

// d / 4 * (code + 1/2), the scale of the types with two bits per value, as d / 8 times an odd integer.
inline I16x16 odd_scales(const uint8_t *nibbles) {
    const I16x16 codes = interleave_nibbles(nibbles);
    return codes + codes + splat_i16(1);
}

// The scales of eight groups, 2 * code + 1 each.
template <int Shift> inline BlockScales odd_block_scales(I32x8 codes, float scale) {
    const I32x8 integers = shift_left<Shift>((codes + codes) + splat_i32(1));
    return {pack_words(integers, zero_i32()), splat(scale), zero_f32()};
}

struct WeightsIQ2_XXS : EightDefaults {
    using Block = BlockIQ2_XXS;
    static constexpr int kMaxCode = 43;
    static constexpr bool kMagnitudes = true;
    using State = SignState;
    static constexpr int kMaxLevel = 43, kMaxScale = 31;
    static EightScales scales(const Block *b) {
        const F32x8 codes = to_f32(shift_right<28>(load_odd_words(b->qs)));
        return {.scales = (codes + codes + splat(1.0f)) * splat(f16_to_f32(b->d) * 0.125f)};
    }
    static void prepare(const Block *b, State &s) { repeat_halves(even_signs(load_odd_words(b->qs)), s.signs); }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return odd_block_scales<Shift>(shift_right<28>(load_odd_words(b.qs)), f16_to_f32(b.d) * 0.125f);
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        return {load_entries(kIQ2XXSGrid, reinterpret_cast<const uint8_t *>(b->qs) + 8 * G), expand_signs<G>(s.signs)};
    }
};

struct WeightsIQ2_XS : EightDefaults {
    using Block = BlockIQ2_XS;
    static constexpr int kMaxCode = 43;
    static constexpr bool kMagnitudes = true;
    static constexpr Scaling kScaling = Scaling::kIntPairs;
    struct State : SignState, IndexState {};
    static constexpr int kMaxLevel = 43, kMaxScale = 31;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) {
        return {.scales = splat(f16_to_f32(b->d) * 0.125f), .pair_scales = odd_scales(b->scales)};
    }
    static void prepare(const Block *b, State &s) {
        const I16x16 low = load_i16(b->qs), high = load_i16(b->qs + 16), mask = splat_i16(511);
        store_i16(s.indices, low & mask);
        store_i16(s.indices + 16, high & mask);
        repeat_halves(complete_signs(pack_bytes(shift_right<9>(low), shift_right<9>(high))), s.signs);
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {shift_left<Shift>(odd_scales(b.scales)), splat(f16_to_f32(b.d) * 0.125f), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *, const State &s) {
        return {load_entries(kIQ2XSGrid, s.indices + 4 * G), expand_signs<G>(s.signs)};
    }
};

// Bits of `spread` moved up to start at bit 8, `step` bits further for each next lane of four or eight.
alignas(32) inline constexpr uint16_t kUpBy1[16] = {256, 128, 64, 32, 16, 8, 4, 2, 256, 128, 64, 32, 16, 8, 4, 2};
alignas(32) inline constexpr uint16_t kUpBy2[16] = {256, 64, 16, 4, 256, 64, 16, 4, 256, 64, 16, 4, 256, 64, 16, 4};
alignas(32) inline constexpr uint16_t kUpBy3[16] = {512, 64, 8, 1, 512, 64, 8, 1, 512, 64, 8, 1, 512, 64, 8, 1};
alignas(32) inline constexpr uint16_t kUpBy4[16] = {256, 16, 256, 16, 256, 16, 256, 16,
                                                    256, 16, 256, 16, 256, 16, 256, 16};

struct WeightsIQ2_S : EightDefaults {
    using Block = BlockIQ2_S;
    static constexpr int kMaxCode = 43;
    static constexpr bool kMagnitudes = true;
    static constexpr Scaling kScaling = Scaling::kIntPairs;
    using State = IndexState;
    static constexpr int kMaxLevel = 43, kMaxScale = 31;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) {
        return {.scales = splat(f16_to_f32(b->d) * 0.125f), .pair_scales = odd_scales(b->scales)};
    }
    static void prepare(const Block *b, State &s) {
        for (int half = 0; half < 2; half++) {
            const I16x16 high = (spread_bytes<4>(b->qh + 4 * half) * load_i16(kUpBy2)) & splat_i16(0x300);
            store_i16(s.indices + 16 * half, widen_u8(b->qs + 16 * half) | high);
        }
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {shift_left<Shift>(odd_scales(b.scales)), splat(f16_to_f32(b.d) * 0.125f), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        return {load_entries(kIQ2SGrid, s.indices + 4 * G), expand_signs(b->signs + 4 * G)};
    }
};

struct WeightsIQ3_XXS : EightDefaults { // with magnitudes and so the scale's divisor halved: all are even
    using Block = BlockIQ3_XXS;
    static constexpr int kMaxCode = 31;
    static constexpr bool kMagnitudes = true;
    using State = SignState;
    static constexpr int kMaxLevel = 31, kMaxScale = 31;
    static EightScales scales(const Block *b) {
        const F32x8 codes = to_f32(shift_right<28>(load_i32(b->signs)));
        return {.scales = (codes + codes + splat(1.0f)) * splat(f16_to_f32(b->d) * 0.5f)};
    }
    static void prepare(const Block *b, State &s) { repeat_halves(even_signs(load_i32(b->signs)), s.signs); }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return odd_block_scales<Shift>(shift_right<28>(load_i32(b.signs)), f16_to_f32(b.d) * 0.5f);
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        return {load_entries(kHalvedIQ3XXSGrid, b->qs + 8 * G), expand_signs<G>(s.signs)};
    }
};

struct WeightsIQ3_S : EightDefaults {
    using Block = BlockIQ3_S;
    static constexpr int kMaxCode = 15;
    static constexpr bool kMagnitudes = true;
    struct State {
        alignas(32) uint16_t indices[64];
    };
    static constexpr int kMaxLevel = 15, kMaxScale = 31;
    static EightScales scales(const Block *b) {
        uint32_t packed;
        std::memcpy(&packed, b->scales, 4);
        const F32x8 codes = to_f32(spread_fields<4>(packed) & splat_i32(15));
        return {.scales = (codes + codes + splat(1.0f)) * splat(f16_to_f32(b->d))};
    }
    static void prepare(const Block *b, State &s) {
        for (int i = 0; i < 4; i++) {
            const I16x16 high = (spread_bytes<8>(b->qh + 2 * i) * load_i16(kUpBy1)) & splat_i16(0x100);
            store_i16(s.indices + 16 * i, widen_u8(b->qs + 16 * i) | high);
        }
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        uint32_t packed;
        std::memcpy(&packed, b.scales, 4);
        return odd_block_scales<Shift>(spread_fields<4>(packed) & splat_i32(15), f16_to_f32(b.d));
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        return {load_entries(kIQ3SGrid, s.indices + 8 * G), expand_signs(b->signs + 4 * G)};
    }
};

// Eighths: 8 * level -+ 1 for the shift of a group, plus 9.
struct WeightsIQ1_S : EightDefaults {
    using Block = BlockIQ1_S;
    static constexpr int kMaxCode = 18, kCentre = 9, kMaxLevel = 9, kMaxScale = 15;
    static constexpr bool kHalves = true;
    using State = IndexState;
    static_assert(kIQ1Shift == 0.125f);
    static I32x8 odd_scales(const Block &b) {
        const I32x8 codes = shift_right<12>(widen_u16(b.qh)) & splat_i32(7);
        return (codes + codes) + splat_i32(1);
    }
    static EightScales scales(const Block *b) {
        return {.scales = to_f32(odd_scales(*b)) * splat(f16_to_f32(b->d) * 0.125f)};
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        const I32x8 scales = shift_left<Shift>(odd_scales(b));
        return {as_words(scales | shift_left<16>(scales)), splat(f16_to_f32(b.d) * 0.125f), zero_f32()};
    }
    static void prepare(const Block *b, State &s) {
        for (int half = 0; half < 2; half++) {
            const I16x16 high = shift_right<1>(spread_words(b->qh + 4 * half) * load_i16(kUpBy3)) & splat_i16(0x700);
            store_i16(s.indices + 16 * half, widen_u8(b->qs + 16 * half) | high);
        }
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        const B8x32 shift = splat_b8(b->qh[G] >> 15 ? 0 : 2);
        return {shift_left<3>(load_entries(kShiftedIQ1Grid, s.indices + 4 * G)) | shift};
    }
};

// Eighths: 8 * level -+ 1 for a shift of every 8 values, plus 9.
struct WeightsIQ1_M : EightDefaults {
    using Block = BlockIQ1_M;
    static constexpr int kMaxCode = 18, kCentre = 9;
    static constexpr Scaling kScaling = Scaling::kIntPairs;
    using State = IndexState;
    static constexpr int kMaxLevel = 9, kMaxScale = 15;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) {
        // The four top nibbles of the scale words, lowest first, are the f16 scale of the block.
        const uint32_t d =
            b->scales[0] >> 12 | (b->scales[1] >> 8 & 0xF0) | (b->scales[2] >> 4 & 0xF00) | (b->scales[3] & 0xF000);
        const I16x16 codes = shift_right<9>(spread_words(b->scales) * load_i16(kUpBy3)) & splat_i16(7);
        return {.scales = splat(f16_to_f32(static_cast<uint16_t>(d)) * 0.125f),
                .pair_scales = codes + codes + splat_i16(1)};
    }
    static void prepare(const Block *b, State &s) {
        for (int half = 0; half < 2; half++) {
            const I16x16 high = (spread_bytes<2>(b->qh + 8 * half) * load_i16(kUpBy4)) & splat_i16(0x700);
            store_i16(s.indices + 16 * half, widen_u8(b->qs + 16 * half) | high);
        }
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        const EightScales s = scales(&b);
        return {shift_left<Shift>(s.pair_scales), s.scales, zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *b, const State &s) {
        return {shift_left<3>(load_entries(kShiftedIQ1Grid, s.indices + 4 * G)) | expand_nibble_tops(b->qh + 2 * G, 2)};
    }
};

} // namespace
} // namespace quipu::QUIPU_ISA
