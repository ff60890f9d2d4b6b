// Formats with blocks of 256 values that need no grid: the rest of the K types, IQ4_XS and the ternary types.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// Field G of two bits of each byte.
template <int G> inline B8x32 pair_of_bits(const uint8_t *qs) {
    return shift_right<2 * G>(load_b8(qs)) & splat_b8(3);
}

struct WeightsQ2_K : EightDefaults {
    using Block = BlockQ2_K;
    static constexpr int kMaxCode = 3;
    static constexpr bool kOffsets = true;
    static constexpr Scaling kScaling = Scaling::kIntPairs;
    static constexpr int kMaxLevel = 3, kMaxScale = 15, kMaxMinimum = 15;
    static constexpr bool kHalves = true, kMinima = true;
    static EightScales scales(const Block *b) {
        const I16x16 packed = widen_u8(b->scales), minima = shift_right<4>(packed);
        const F32x8 dmin = splat(f16_to_f32(b->dmin));
        return {.scales = splat(f16_to_f32(b->d)),
                .offsets = low_f32(minima) * dmin,
                .high_offsets = high_f32(minima) * dmin,
                .pair_scales = packed & splat_i16(15)};
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {shift_left<Shift>(widen_u8(b.scales) & splat_i16(15)), splat(f16_to_f32(b.d)),
                splat(f16_to_f32(b.dmin))};
    }
    static I16x16 minima(const Block &b) { return shift_right<4>(widen_u8(b.scales)); }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {pair_of_bits<G % 4>(b->qs + 32 * (G / 4))};
    }
};

struct WeightsQ3_K : EightDefaults {
    using Block = BlockQ3_K;
    static constexpr int kMaxCode = 7, kCentre = 4;
    static constexpr Scaling kScaling = Scaling::kIntPairs;
    static constexpr int kMaxLevel = 4, kMaxScale = 32;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) {
        return {.scales = splat(f16_to_f32(b->d)), .pair_scales = load_q3_scales(b->scales) - splat_i16(32)};
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {shift_left<Shift>(load_q3_scales(b.scales) - splat_i16(32)), splat(f16_to_f32(b.d)), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        const B8x32 low = pair_of_bits<G % 4>(b->qs + 32 * (G / 4)), high = load_b8(b->hmask);
        if constexpr (G < 2)
            return {low | (shift_left<2 - G>(high) & splat_b8(4))};
        else
            return {low | (shift_right<G - 2>(high) & splat_b8(4))};
    }
};

struct WeightsIQ4_XS : EightDefaults {
    using Block = BlockIQ4_XS;
    static constexpr int kMaxCode = 127;
    static constexpr bool kMagnitudes = true;
    static constexpr int kMaxLevel = 127, kMaxScale = 32;
    static I32x8 integer_scales(const Block &b) {
        uint32_t low_bits;
        std::memcpy(&low_bits, b.scales_l, 4);
        const I32x8 low = spread_fields<4>(low_bits) & splat_i32(15), high = spread_fields<2>(b.scales_h);
        return (low | shift_left<4>(high & splat_i32(3))) + splat_i32(uint32_t(-32));
    }
    static EightScales scales(const Block *b) {
        return {.scales = to_f32(integer_scales(*b)) * splat(f16_to_f32(b->d))};
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {shift_left<Shift>(pack_words(integer_scales(b), zero_i32())), splat(f16_to_f32(b.d)), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *b, const State &) { return iq4_codes(b->qs + 16 * G); }
};

struct WeightsTQ2_0 : EightDefaults {
    using Block = BlockTQ2_0;
    static constexpr int kMaxCode = 3, kCentre = 1; // a code of 3 is not used, but the type gives it a value
    static constexpr int kMaxLevel = 2, kMaxScale = 1;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) { return {.scales = splat(f16_to_f32(b->d))}; }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {splat_i16(1 << Shift), splat(f16_to_f32(b.d)), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *b, const State &) {
        return {pair_of_bits<G % 4>(b->qs + 32 * (G / 4))};
    }
};

// For the last 96 values of a TQ1_0 block: the power of 3 that brings each byte's digit to the front.
constexpr std::array<uint8_t, 64> powers_of_3() {
    std::array<uint8_t, 64> factors{};
    constexpr uint8_t power[5] = {1, 3, 9, 27, 81};
    for (int i = 0; i < 16; i++) {
        factors[i] = 1;
        factors[16 + i] = 3;
        factors[32 + i] = 81;
        factors[48 + i] = power[i / 4];
    }
    return factors;
}
inline constexpr std::array<uint8_t, 64> kPowersOf3 = powers_of_3();

// A byte x is a fraction x / 256 whose base-3 digits are the codes: the first is x * 3 / 256 rounded down, the next
// that of 3 x modulo 256. All bytes here have 128 subtracted, which multiplying by 3 modulo 256 leaves so, for signed
// comparisons: the digit is one more from 86 on and again from 171 on.
struct WeightsTQ1_0 : EightDefaults {
    using Block = BlockTQ1_0;
    static constexpr int kMaxCode = 2, kCentre = 1;
    struct State {
        B8x32 first;  // 32 bytes with the digits of groups 0 to 4
        B8x32 second; // 16 bytes at digits 0 and 1: group 5 and, two digits on, group 6
        B8x32 third;  // the same 16 bytes at digit 4, then 4 bytes at digits 0 to 3: group 7
    };
    static constexpr int kMaxLevel = 1, kMaxScale = 1;
    static constexpr bool kHalves = true;
    static EightScales scales(const Block *b) { return {.scales = splat(f16_to_f32(b->d))}; }
    static void prepare(const Block *b, State &s) {
        const B8x32 shift = splat_b8(0x80);
        s.first = load_b8(b->qs) ^ shift;
        s.second = multiply_bytes(load_twice(b->qs + 32), load_b8(&kPowersOf3[0])) ^ shift;
        s.third = multiply_bytes(load_16_and_4(b->qs + 32, b->qh), load_b8(&kPowersOf3[32])) ^ shift;
    }
    template <int Times> static B8x32 digits_on(B8x32 x) {
        if constexpr (Times == 0)
            return x;
        else
            return digits_on<Times - 1>((x + x) + x);
    }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {splat_i16(1 << Shift), splat(f16_to_f32(b.d)), zero_f32()};
    }
    template <int G> static EightCodes codes(const Block *, const State &s) {
        const B8x32 x = G < 5                ? digits_on < G<5 ? G : 0>(s.first)
                        : G == 7             ? s.third
                        : digits_on < G == 6 ? 2
                                             : 0 > (s.second);
        return {abs_b8(greater_than(x, splat_b8(85 - 128)) + greater_than(x, splat_b8(170 - 128)))};
    }
};

} // namespace
} // namespace quipu::QUIPU_ISA
