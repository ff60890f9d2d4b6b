// How each int8-ready format gives its codes and scales, 32 values at a time. One trait per format serves the row
// kernels (matvec) and the tile kernels (matmul). Included once per instruction set, inside namespace quipu::QUIPU_ISA.
//
// A trait says, for the 32-value group G of a block:
//   value = scale * code - offset            with `scales` and `offsets` per group (kPairScales: scale is the block's
//   d,
//                                            an int8 scale per 16 values multiplies the code, offsets per 16 values)
// kSigned: codes are signed and have no offset. kMaxCode bounds unsigned codes and so how many products fit an int16.
// The other formats have traits of another shape, see weights_eights.inl.
#pragma once

#include "ops/weights_eights.inl"

#include "ops/weights_short.inl"

#include "ops/weights_super.inl"

#include "ops/weights_grid.inl"

namespace quipu::QUIPU_ISA {
namespace {

// Scales and offsets of eight groups: of one block, or of eight blocks with one group each.
template <class W> struct Decoded {
    F32x8 scales;
    F32x8 offsets[W::kPairScales ? 2 : 1]; // per group, or per 16 values
};

template <class W> inline Decoded<W> decode_halves(const typename W::Block *blocks) {
    const F32x8 d = gather_f16(&blocks->d, sizeof(typename W::Block));
    return {d, {d * splat(W::kOffset)}};
}

struct WeightsQ4_0 {
    using Block = BlockQ4_0;
    static constexpr int kGroups = 1, kMaxCode = 15;
    static constexpr bool kSigned = false, kPairScales = false;
    template <int G> static B8x32 codes(const Block &b) { return split_nibbles(b.qs); }
    static constexpr float kOffset = 8.0f;
    static Decoded<WeightsQ4_0> decode(const Block *b) { return decode_halves<WeightsQ4_0>(b); }
};

struct WeightsQ5_0 {
    using Block = BlockQ5_0;
    static constexpr int kGroups = 1, kMaxCode = 31;
    static constexpr bool kSigned = false, kPairScales = false;
    template <int G> static B8x32 codes(const Block &b) { return split_nibbles(b.qs) | expand_bits(b.qh, 16); }
    static constexpr float kOffset = 16.0f;
    static Decoded<WeightsQ5_0> decode(const Block *b) { return decode_halves<WeightsQ5_0>(b); }
};

struct WeightsQ8_0 {
    using Block = BlockQ8_0;
    static constexpr int kGroups = 1, kMaxCode = 128;
    static constexpr bool kSigned = true, kPairScales = false;
    static constexpr float kOffset = 0.0f;
    static Decoded<WeightsQ8_0> decode(const Block *b) { return decode_halves<WeightsQ8_0>(b); }
    template <int G> static B8x32 codes(const Block &b) { return load_b8(b.qs); }
};

struct WeightsQ4_K : BlockDefaults {
    using Block = BlockQ4_K;
    static constexpr int kGroups = 8, kMaxCode = 15, kMaxLevel = 15, kMaxScale = 63, kMaxMinimum = 63;
    static constexpr bool kMinima = true;
    static constexpr bool kSigned = false, kPairScales = false;
    template <int G> static B8x32 codes(const Block &b) {
        const B8x32 bytes = load_b8(b.qs + 32 * (G / 2));
        return (G % 2 ? shift_right<4>(bytes) : bytes) & splat_b8(0x0F);
    }
    template <int Shift> static BlockScales block_scales(const Block &b) { return load_6bit_scales<Shift>(&b); }
    static Decoded<WeightsQ4_K> decode(const Block *b) {
        Decoded<WeightsQ4_K> decoded;
        load_6bit_pairs(b, decoded.scales, decoded.offsets[0]);
        return decoded;
    }
};

struct WeightsQ5_K : BlockDefaults {
    using Block = BlockQ5_K;
    static constexpr int kGroups = 8, kMaxCode = 31, kMaxLevel = 31, kMaxScale = 63, kMaxMinimum = 63;
    static constexpr bool kMinima = true;
    static constexpr bool kSigned = false, kPairScales = false;
    template <int G> static B8x32 codes(const Block &b) {
        const B8x32 bytes = load_b8(b.qs + 32 * (G / 2)), high = load_b8(b.qh);
        const B8x32 low = (G % 2 ? shift_right<4>(bytes) : bytes) & splat_b8(0x0F);
        if constexpr (G < 4)
            return low | (shift_left<4 - G>(high) & splat_b8(0x10));
        else
            return low | (shift_right<G - 4>(high) & splat_b8(0x10));
    }
    template <int Shift> static BlockScales block_scales(const Block &b) { return load_6bit_scales<Shift>(&b); }
    static Decoded<WeightsQ5_K> decode(const Block *b) {
        Decoded<WeightsQ5_K> decoded;
        load_6bit_pairs(b, decoded.scales, decoded.offsets[0]);
        return decoded;
    }
};

struct WeightsQ6_K : BlockDefaults {
    using Block = BlockQ6_K;
    static constexpr int kGroups = 8, kMaxCode = 63, kCentre = 32, kMaxLevel = 32, kMaxScale = 128;
    static constexpr bool kHalves = true;
    static constexpr bool kSigned = false, kPairScales = true;
    // Half H of a block holds groups 4H..4H+3: low nibbles of 64 bytes, then their high nibbles; two bits each from qh.
    template <int G> static B8x32 codes(const Block &b) {
        constexpr int half = G / 4, part = G % 4;
        const B8x32 bytes = load_b8(b.ql + 64 * half + 32 * (part % 2));
        const B8x32 high = load_b8(b.qh + 32 * half);
        const B8x32 low = (part >= 2 ? shift_right<4>(bytes) : bytes) & splat_b8(0x0F);
        if constexpr (part < 2)
            return low | (shift_left<4 - 2 * part>(high) & splat_b8(0x30));
        else
            return low | (shift_right<2 * part - 4>(high) & splat_b8(0x30));
    }
    static const int8_t *pair_scales(const Block &b) { return b.scales; }
    template <int Shift> static BlockScales block_scales(const Block &b) {
        return {load_i8_scales<Shift>(b.scales), splat(f16_to_f32(b.d)), zero_f32()};
    }
    static Decoded<WeightsQ6_K> decode(const Block *b) {
        const float d = f16_to_f32(b->d);
        const F32x8 offset = splat(32.0f * d);
        return {splat(d), {load_i8_f32(b->scales) * offset, load_i8_f32(b->scales + 8) * offset}};
    }
};

// Calls f(g, decoded) for every eight of `num_groups` groups. A last, partial eight (formats with one group per block
// only) is decoded from a padded copy, so that nothing is read past the row; what lies behind its groups is zero.
template <class W, class F> inline void for_decoded(const typename W::Block *blocks, int num_groups, F f) {
    int g = 0;
    for (; g + 8 <= num_groups; g += 8)
        f(g, W::decode(blocks + g / W::kGroups));
    if constexpr (W::kGroups == 1) {
        if (g < num_groups) {
            typename W::Block last[8] = {};
            std::memcpy(last, blocks + g, (num_groups - g) * sizeof(last[0]));
            f(g, W::decode(last));
        }
    }
}

// Scales [num_groups, rounded up to 8] and offsets into arrays.
template <class W>
inline void decode_groups(const typename W::Block *blocks, int num_groups, float *scales, float *offsets) {
    for_decoded<W>(blocks, num_groups, [&](int g, const Decoded<W> &decoded) {
        store(scales + g, decoded.scales);
        store(offsets + g * (W::kPairScales ? 2 : 1), decoded.offsets[0]);
        if constexpr (W::kPairScales)
            store(offsets + 2 * g + 8, decoded.offsets[1]);
    });
}

// Calls f.template operator()<G>() for G in [0, N).
template <int N, class F> QUIPU_INLINE inline void unrolled(F f) {
    [&]<int... G>(std::integer_sequence<int, G...>)
        QUIPU_INLINE { (f.template operator()<G>(), ...); }(std::make_integer_sequence<int, N>{});
}

// Runs f with the trait of an int8-ready type.
template <class F> inline void with_int8_weights(int type, F f) {
    switch (type) {
#define QUIPU_CASE(X)                                                                                                  \
    case k##X:                                                                                                         \
        return f(Weights##X{});
        QUIPU_INT8_TYPES(QUIPU_CASE)
#undef QUIPU_CASE
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
