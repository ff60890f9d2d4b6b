// The part of the vector vocabulary that block formats need to take their codes apart, for 64-bit ARM: the same names
// and lanes as `simd/avx2/vec_formats.h`. Included after vec.h and the definition of QUIPU_ISA.
#pragma once

#include <array>

namespace quipu::QUIPU_ISA {

// --- bytes -----------------------------------------------------------------------------------------------------------
static inline B8x32 operator+(B8x32 a, B8x32 b) {
    return {{vaddq_u8(a.v[0], b.v[0]), vaddq_u8(a.v[1], b.v[1])}};
}
static inline B8x32 operator-(B8x32 a, B8x32 b) {
    return {{vsubq_u8(a.v[0], b.v[0]), vsubq_u8(a.v[1], b.v[1])}};
}
static inline B8x32 operator^(B8x32 a, B8x32 b) {
    return {{veorq_u8(a.v[0], b.v[0]), veorq_u8(a.v[1], b.v[1])}};
}
// -1 where a > b as signed bytes, else 0.
static inline B8x32 greater_than(B8x32 a, B8x32 b) {
    return {{vcgtq_s8(as_signed(a.v[0]), as_signed(b.v[0])), vcgtq_s8(as_signed(a.v[1]), as_signed(b.v[1]))}};
}
// Products modulo 256.
static inline B8x32 multiply_bytes(B8x32 a, B8x32 b) {
    return {{vmulq_u8(a.v[0], b.v[0]), vmulq_u8(a.v[1], b.v[1])}};
}
// table[i] for indices 0-15.
static inline B8x32 lookup_levels(const std::array<int8_t, 16> &table, B8x32 indices) {
    const uint8x16_t t = vreinterpretq_u8_s8(vld1q_s8(table.data()));
    return {{vqtbl1q_u8(t, indices.v[0]), vqtbl1q_u8(t, indices.v[1])}};
}
// For apply_sign: bit i of the 4 bytes at p gives -1 in lane i where it is set, else 1.
static inline B8x32 expand_signs(const void *p) {
    return expand_bits(p, 0xFF) | splat_b8(1);
}
// The same from 32 bytes: bytes 4G to 4G+3. `halves` holds bytes 0-15 twice and bytes 16-31 twice.
static inline void repeat_halves(B8x32 a, B8x32 (&halves)[2]) {
    halves[0] = {{a.v[0], a.v[0]}};
    halves[1] = {{a.v[1], a.v[1]}};
}
template <int G> static inline B8x32 expand_signs(const B8x32 (&halves)[2]) {
    constexpr int first = G % 4 * 4;
    const uint8x16_t bytes = halves[G / 4].v[0], bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    const uint8x16_t low = vcombine_u8(vdup_laneq_u8(bytes, first), vdup_laneq_u8(bytes, first + 1)),
                     high = vcombine_u8(vdup_laneq_u8(bytes, first + 2), vdup_laneq_u8(bytes, first + 3));
    return B8x32{{vtstq_u8(low, bit), vtstq_u8(high, bit)}} | splat_b8(1);
}
// Lanes 8i to 8i+7 are zero where the top bit of nibble i of the 2 bytes at p is set, else `value`.
static inline B8x32 expand_nibble_tops(const void *p, uint8_t value) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    const uint8x16_t tops = vcombine_u8(vdup_n_u8(0x08), vdup_n_u8(0x80)), values = vdupq_n_u8(value);
    return {{vbicq_u8(values, vtstq_u8(vdupq_n_u8(bytes[0]), tops)),
             vbicq_u8(values, vtstq_u8(vdupq_n_u8(bytes[1]), tops))}};
}
// Low nibbles of bytes 0-7, their high nibbles, low nibbles of bytes 8-15, their high nibbles.
static inline B8x32 split_nibbles_of_8(const void *p) {
    const B8x32 nibbles = split_nibbles(p);
    const uint64x2_t low = vreinterpretq_u64_u8(nibbles.v[0]), high = vreinterpretq_u64_u8(nibbles.v[1]);
    return {{vreinterpretq_u8_u64(vzip1q_u64(low, high)), vreinterpretq_u8_u64(vzip2q_u64(low, high))}};
}
// 32 fields of two bits from 8 bytes, lowest first.
static inline B8x32 split_pairs_of_bits(const void *p) {
    const uint8x8_t bytes = vld1_u8(static_cast<const uint8_t *>(p)), twice_low = vzip1_u8(bytes, bytes),
                    twice_high = vzip2_u8(bytes, bytes);
    const int8x16_t shifts = vreinterpretq_s8_u32(vdupq_n_u32(0xFAFCFE00u)); // 0, -2, -4, -6
    const auto split = [&](uint8x8_t twice) {
        const uint8x16_t each = vcombine_u8(vzip1_u8(twice, twice), vzip2_u8(twice, twice));
        return vandq_u8(vshlq_u8(each, shifts), vdupq_n_u8(3));
    };
    // Bytes twice in a row, zipped with themselves: 0 0 0 0 1 1 1 1 and so on.
    return {{split(twice_low), split(twice_high)}};
}
// 16 bytes twice; 16 bytes, then 4 bytes four times.
static inline B8x32 load_twice(const void *p) {
    const uint8x16_t bytes = vld1q_u8(static_cast<const uint8_t *>(p));
    return {{bytes, bytes}};
}
static inline B8x32 load_16_and_4(const void *p, const void *q) {
    uint32_t word;
    std::memcpy(&word, q, 4);
    return {{vld1q_u8(static_cast<const uint8_t *>(p)), vreinterpretq_u8_u32(vdupq_n_u32(word))}};
}
// Four grid entries of 8 bytes; eight of 4 bytes.
template <class Index, size_t N>
static inline B8x32 load_entries(const std::array<std::array<int8_t, 8>, N> &grid, const Index *i) {
    const auto at = [&](int j) { return vreinterpret_u8_s8(vld1_s8(grid[i[j]].data())); };
    return {{vcombine_u8(at(0), at(1)), vcombine_u8(at(2), at(3))}};
}
template <class Index, size_t N>
static inline B8x32 load_entries(const std::array<std::array<int8_t, 4>, N> &grid, const Index *i) {
    const auto at = [&](int j) {
        uint32_t entry;
        std::memcpy(&entry, grid[i[j]].data(), 4);
        return entry;
    };
    const auto four = [&](int j) {
        uint32x4_t x = vdupq_n_u32(at(j));
        x = vsetq_lane_u32(at(j + 1), x, 1);
        x = vsetq_lane_u32(at(j + 2), x, 2);
        return vreinterpretq_u8_u32(vsetq_lane_u32(at(j + 3), x, 3));
    };
    return {{four(0), four(4)}};
}

// --- int16 -----------------------------------------------------------------------------------------------------------
static inline uint16x8_t as_unsigned(int16x8_t a) {
    return vreinterpretq_u16_s16(a);
}
static inline int16x8_t as_signed(uint16x8_t a) {
    return vreinterpretq_s16_u16(a);
}
static inline I16x16 load_i16(const void *p) {
    const B8x32 bytes = load_b8(p);
    return {{vreinterpretq_s16_u8(bytes.v[0]), vreinterpretq_s16_u8(bytes.v[1])}};
}
static inline void store_i16(void *p, I16x16 a) {
    store_b8(p, {{vreinterpretq_u8_s16(a.v[0]), vreinterpretq_u8_s16(a.v[1])}});
}
static inline I16x16 operator-(I16x16 a, I16x16 b) {
    return {{vsubq_s16(a.v[0], b.v[0]), vsubq_s16(a.v[1], b.v[1])}};
}
// Products modulo 2^16.
static inline I16x16 operator*(I16x16 a, I16x16 b) {
    return {{vmulq_s16(a.v[0], b.v[0]), vmulq_s16(a.v[1], b.v[1])}};
}
static inline I16x16 operator&(I16x16 a, I16x16 b) {
    return {{vandq_s16(a.v[0], b.v[0]), vandq_s16(a.v[1], b.v[1])}};
}
static inline I16x16 operator|(I16x16 a, I16x16 b) {
    return {{vorrq_s16(a.v[0], b.v[0]), vorrq_s16(a.v[1], b.v[1])}};
}
template <int N> static inline I16x16 shift_right(I16x16 a) { // logical
    return {{as_signed(vshrq_n_u16(as_unsigned(a.v[0]), N)), as_signed(vshrq_n_u16(as_unsigned(a.v[1]), N))}};
}
template <int N> static inline I16x16 shift_left(I16x16 a) {
    return {{vshlq_n_s16(a.v[0], N), vshlq_n_s16(a.v[1], N)}};
}
// Lanes that fit 16 bits, those of a first.
static inline I16x16 pack_words(I32x8 a, I32x8 b) {
    const auto narrow = [](I32x8 x) { return vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1])); };
    return {{narrow(a), narrow(b)}};
}
static inline I16x16 widen(uint8x16_t bytes) {
    return {{as_signed(vmovl_u8(vget_low_u8(bytes))), as_signed(vmovl_high_u8(bytes))}};
}
// 16 bytes as 16 unsigned numbers.
static inline I16x16 widen_u8(const void *p) {
    return widen(vld1q_u8(static_cast<const uint8_t *>(p)));
}
// Lane i: byte i / Each of p, for 2 (8 bytes), 4 (4 bytes) or 8 lanes each (2 bytes).
template <int Each> static inline I16x16 spread_bytes(const uint8_t *p) {
    static constexpr auto kIndices = [] {
        std::array<uint8_t, 16> indices{};
        for (int i = 0; i < 16; i++)
            indices[i] = static_cast<uint8_t>(i / Each);
        return indices;
    }();
    uint64_t bytes = 0;
    std::memcpy(&bytes, p, 16 / Each);
    return widen(vqtbl1q_u8(vreinterpretq_u8_u64(vdupq_n_u64(bytes)), vld1q_u8(kIndices.data())));
}
// Lane i: 16-bit word i / 4 of p.
static inline I16x16 spread_words(const void *p) {
    const int16x4_t words = vreinterpret_s16_u8(vld1_u8(static_cast<const uint8_t *>(p)));
    return {{vcombine_s16(vdup_lane_s16(words, 0), vdup_lane_s16(words, 1)),
             vcombine_s16(vdup_lane_s16(words, 2), vdup_lane_s16(words, 3))}};
}
// Low nibble and high nibble of 8 bytes, in turn.
static inline I16x16 interleave_nibbles(const void *p) {
    const uint8x8_t bytes = vld1_u8(static_cast<const uint8_t *>(p)), low = vand_u8(bytes, vdup_n_u8(0x0F)),
                    high = vshr_n_u8(bytes, 4);
    return widen(vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high)));
}
// The 16 scales of 6 bits of a Q3_K block; see simd/avx2/vec_formats.h for their places.
static inline I16x16 load_q3_scales(const uint8_t *p) {
    static constexpr int32_t kShifts[4] = {0, -2, -4, -6};
    uint32_t high_bits;
    std::memcpy(&high_bits, p + 8, 4);
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x16_t low = vcombine_u8(vand_u8(bytes, vdup_n_u8(0x0F)), vshr_n_u8(bytes, 4));
    const uint8x16_t shifted = vreinterpretq_u8_u32(vshlq_u32(vdupq_n_u32(high_bits), vld1q_s32(kShifts)));
    return widen(vorrq_u8(low, vshlq_n_u8(vandq_u8(shifted, vdupq_n_u8(3)), 4)));
}
// Lanes in 0-255 as bytes, those of a first.
static inline B8x32 pack_bytes(I16x16 a, I16x16 b) {
    const auto narrow = [](I16x16 x) {
        return vcombine_u8(vmovn_u16(as_unsigned(x.v[0])), vmovn_u16(as_unsigned(x.v[1])));
    };
    return {{narrow(a), narrow(b)}};
}
static inline F32x8 widen_i16(int16x8_t a) {
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), vcvtq_f32_s32(vmovl_high_s16(a))}};
}
static inline F32x8 low_f32(I16x16 a) {
    return widen_i16(a.v[0]);
}
static inline F32x8 high_f32(I16x16 a) {
    return widen_i16(a.v[1]);
}

// --- int32 -----------------------------------------------------------------------------------------------------------
static inline I32x8 as_i32(uint32x4_t a, uint32x4_t b) {
    return {{vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)}};
}
static inline uint32x4_t as_unsigned(int32x4_t a) {
    return vreinterpretq_u32_s32(a);
}
static inline uint32x4_t load_words(const void *p) {
    return vreinterpretq_u32_u8(vld1q_u8(static_cast<const uint8_t *>(p)));
}
static inline I32x8 load_i32(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return as_i32(load_words(bytes), load_words(bytes + 16));
}
static inline I32x8 splat_i32(uint32_t x) {
    return as_i32(vdupq_n_u32(x), vdupq_n_u32(x));
}
static inline I32x8 operator&(I32x8 a, I32x8 b) {
    return {{vandq_s32(a.v[0], b.v[0]), vandq_s32(a.v[1], b.v[1])}};
}
static inline I32x8 operator|(I32x8 a, I32x8 b) {
    return {{vorrq_s32(a.v[0], b.v[0]), vorrq_s32(a.v[1], b.v[1])}};
}
template <int N> static inline I32x8 shift_right(I32x8 a) { // logical
    return as_i32(vshrq_n_u32(as_unsigned(a.v[0]), N), vshrq_n_u32(as_unsigned(a.v[1]), N));
}
template <int N> static inline I32x8 shift_left(I32x8 a) {
    return {{vshlq_n_s32(a.v[0], N), vshlq_n_s32(a.v[1], N)}};
}
// x >> (Step * i) in lane i.
template <int Step> static inline I32x8 spread_fields(uint32_t x) {
    static constexpr int32_t kShifts[8] = {0, -Step, -2 * Step, -3 * Step, -4 * Step, -5 * Step, -6 * Step, -7 * Step};
    const uint32x4_t all = vdupq_n_u32(x);
    return as_i32(vshlq_u32(all, vld1q_s32(kShifts)), vshlq_u32(all, vld1q_s32(kShifts + 4)));
}
// 8 words of 16 bits as unsigned numbers.
static inline I32x8 widen_u16(const void *p) {
    const uint16x8_t words = vreinterpretq_u16_u8(vld1q_u8(static_cast<const uint8_t *>(p)));
    return as_i32(vmovl_u16(vget_low_u16(words)), vmovl_high_u16(words));
}
// Words 1, 3, ... 15 of 32 bits.
static inline I32x8 load_odd_words(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return as_i32(vuzp2q_u32(load_words(bytes), load_words(bytes + 16)),
                  vuzp2q_u32(load_words(bytes + 32), load_words(bytes + 48)));
}
static inline I16x16 as_words(I32x8 a) {
    return {{vreinterpretq_s16_s32(a.v[0]), vreinterpretq_s16_s32(a.v[1])}};
}
static inline B8x32 as_bytes(I32x8 a) {
    return {{vreinterpretq_u8_s32(a.v[0]), vreinterpretq_u8_s32(a.v[1])}};
}

// --- scales ----------------------------------------------------------------------------------------------------------
// Lane i: the half at p + i / Each * stride.
template <int Each> static inline F32x8 gather_f16_each(const void *p, int64_t stride) {
    uint16_t halves[8];
    for (int i = 0; i < 8; i++)
        std::memcpy(&halves[i], static_cast<const uint8_t *>(p) + i / Each * stride, 2);
    return load_f16(halves);
}
// Lanes 0-3, lanes 4-7, each twice in a row.
static inline F32x8 repeat_low(F32x8 a) {
    return {{vzip1q_f32(a.v[0], a.v[0]), vzip2q_f32(a.v[0], a.v[0])}};
}
static inline F32x8 repeat_high(F32x8 a) {
    return {{vzip1q_f32(a.v[1], a.v[1]), vzip2q_f32(a.v[1], a.v[1])}};
}
// p[0] in lanes 0-3, p[1] in lanes 4-7.
static inline F32x8 splat_pair(const float *p) {
    return {{vld1q_dup_f32(p), vld1q_dup_f32(p + 1)}};
}
// e8m0_half_to_f32 of eight bytes, `stride` bytes apart.
static inline F32x8 gather_e8m0_halves(const uint8_t *p, int64_t stride) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = p[i * stride];
    const uint16x8_t exponents = vmovl_u8(vld1_u8(bytes));
    const auto to_float = [](uint32x4_t bits) {
        const uint32x4_t normal = vshlq_n_u32(vsubq_u32(bits, vdupq_n_u32(1)), 23);
        const uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(0x00200000u), vreinterpretq_s32_u32(bits));
        return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(bits, vdupq_n_u32(1)), normal, subnormal));
    };
    return {{to_float(vmovl_u16(vget_low_u16(exponents))), to_float(vmovl_high_u16(exponents))}};
}
// ue4m3_half_to_f32 of four times four bytes, `stride` bytes apart. Exponent and mantissa are those of a half whose
// bias is larger by 8 and whose value is halved: a factor of 2^7.
static inline void gather_ue4m3_halves(const uint8_t *p, int64_t stride, F32x8 &low, F32x8 &high) {
    uint8_t gathered[16];
    for (int i = 0; i < 4; i++)
        std::memcpy(gathered + 4 * i, p + i * stride, 4);
    const uint8x16_t bytes = vld1q_u8(gathered), nan = vdupq_n_u8(0x7F);
    const uint8x16_t valid = vandq_u8(vbicq_u8(bytes, vceqq_u8(bytes, nan)), nan);
    const F32x8 factor = splat(128.0f);
    low = widen_f16(vshlq_n_u16(vmovl_u8(vget_low_u8(valid)), 7)) * factor;
    high = widen_f16(vshlq_n_u16(vmovl_high_u8(valid), 7)) * factor;
}

} // namespace quipu::QUIPU_ISA
