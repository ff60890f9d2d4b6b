// The vector vocabulary of quipu for 64-bit ARM: the same names and lanes as `simd/avx2/vec.h`, each vector in two
// registers of 128 bits. Dot products of four bytes use the instructions of the set that includes it, if it has them.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace quipu::QUIPU_ISA {

struct F32x8 {
    float32x4_t v[2];
};
struct I32x8 {
    int32x4_t v[2];
};
struct I16x16 {
    int16x8_t v[2];
};
struct B8x32 {
    uint8x16_t v[2];
};

// --- float -----------------------------------------------------------------------------------------------------------
static inline F32x8 splat(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {{v, v}};
}
static inline F32x8 zero_f32() {
    return splat(0.0f);
}
static inline F32x8 load(const float *p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4)}};
}
static inline F32x8 splat_load(const float *p) {
    const float32x4_t v = vld1q_dup_f32(p);
    return {{v, v}};
}
static inline void store(float *p, F32x8 a) {
    vst1q_f32(p, a.v[0]);
    vst1q_f32(p + 4, a.v[1]);
}
static inline F32x8 operator+(F32x8 a, F32x8 b) {
    return {{vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1])}};
}
static inline F32x8 operator-(F32x8 a, F32x8 b) {
    return {{vsubq_f32(a.v[0], b.v[0]), vsubq_f32(a.v[1], b.v[1])}};
}
static inline F32x8 operator*(F32x8 a, F32x8 b) {
    return {{vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1])}};
}
static inline F32x8 operator/(F32x8 a, F32x8 b) {
    return {{vdivq_f32(a.v[0], b.v[0]), vdivq_f32(a.v[1], b.v[1])}};
}
static inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) {
    return {{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1])}};
} // a * b + c
// The second operand where one is NaN, as x86 has it.
static inline F32x8 max(F32x8 a, F32x8 b) {
    return {
        {vbslq_f32(vcgtq_f32(a.v[0], b.v[0]), a.v[0], b.v[0]), vbslq_f32(vcgtq_f32(a.v[1], b.v[1]), a.v[1], b.v[1])}};
}
static inline F32x8 min(F32x8 a, F32x8 b) {
    return {
        {vbslq_f32(vcltq_f32(a.v[0], b.v[0]), a.v[0], b.v[0]), vbslq_f32(vcltq_f32(a.v[1], b.v[1]), a.v[1], b.v[1])}};
}
static inline F32x8 abs(F32x8 a) {
    return {{vabsq_f32(a.v[0]), vabsq_f32(a.v[1])}};
}
static inline F32x8 round_nearest(F32x8 a) {
    return {{vrndnq_f32(a.v[0]), vrndnq_f32(a.v[1])}};
}
// Lanes are added in the order of the other sets.
static inline float sum(F32x8 a) {
    const float32x4_t four = vaddq_f32(a.v[0], a.v[1]);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
static inline float max_lane(F32x8 a) {
    return vmaxvq_f32(vmaxq_f32(a.v[0], a.v[1]));
}
static inline F32x8 widen_f16(uint16x8_t halves) {
    const float16x8_t h = vreinterpretq_f16_u16(halves);
    return {{vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)}};
}
static inline F32x8 load_f16(const uint16_t *p) {
    return widen_f16(vld1q_u16(p));
}
static inline void store_f16(uint16_t *p, F32x8 a) {
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.v[0]), a.v[1])));
}
static inline F32x8 load_bf16(const uint16_t *p) {
    const uint16x8_t h = vld1q_u16(p);
    return {{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(h, 16))}};
}
// Eight halves, `stride` bytes apart.
static inline F32x8 gather_f16(const void *p, int64_t stride) {
    uint16_t halves[8];
    for (int i = 0; i < 8; i++)
        std::memcpy(&halves[i], static_cast<const uint8_t *>(p) + i * stride, 2);
    return load_f16(halves);
}
static inline float f16_to_f32(uint16_t h) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
static inline int32x4_t exponent_bits(float32x4_t n) {
    return vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
}
// 2^n for integral n in [-126, 127], built in the exponent field.
static inline F32x8 exp2_integral(F32x8 n) {
    return {{vreinterpretq_f32_s32(exponent_bits(n.v[0])), vreinterpretq_f32_s32(exponent_bits(n.v[1]))}};
}

// --- bytes and integer dot products ----------------------------------------------------------------------------------
static inline B8x32 load_b8(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return {{vld1q_u8(bytes), vld1q_u8(bytes + 16)}};
}
static inline void store_b8(void *p, B8x32 a) {
    auto *bytes = static_cast<uint8_t *>(p);
    vst1q_u8(bytes, a.v[0]);
    vst1q_u8(bytes + 16, a.v[1]);
}
static inline B8x32 splat_b8(uint8_t x) {
    return {{vdupq_n_u8(x), vdupq_n_u8(x)}};
}
// 4 bytes at p, repeated 8 times.
static inline B8x32 splat_4bytes(const void *p) {
    uint32_t word;
    std::memcpy(&word, p, 4);
    const uint8x16_t v = vreinterpretq_u8_u32(vdupq_n_u32(word));
    return {{v, v}};
}
// 8 bytes at p, repeated 4 times; 16 bytes, twice.
static inline B8x32 splat_8bytes(const void *p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    const uint8x16_t v = vreinterpretq_u8_u64(vdupq_n_u64(word));
    return {{v, v}};
}
static inline B8x32 splat_16bytes(const void *p) {
    const uint8x16_t v = vld1q_u8(static_cast<const uint8_t *>(p));
    return {{v, v}};
}
static inline B8x32 operator&(B8x32 a, B8x32 b) {
    return {{vandq_u8(a.v[0], b.v[0]), vandq_u8(a.v[1], b.v[1])}};
}
static inline B8x32 operator|(B8x32 a, B8x32 b) {
    return {{vorrq_u8(a.v[0], b.v[0]), vorrq_u8(a.v[1], b.v[1])}};
}
static inline int8x16_t as_signed(uint8x16_t a) {
    return vreinterpretq_s8_u8(a);
}
static inline B8x32 abs_b8(B8x32 a) {
    return {{vreinterpretq_u8_s8(vabsq_s8(as_signed(a.v[0]))), vreinterpretq_u8_s8(vabsq_s8(as_signed(a.v[1])))}};
}
static inline uint8x16_t apply_sign(uint8x16_t a, uint8x16_t s) {
    const int8x16_t turned = vbslq_s8(vcltzq_s8(as_signed(s)), vnegq_s8(as_signed(a)), as_signed(a));
    return vandq_u8(vreinterpretq_u8_s8(turned), vtstq_u8(s, s));
}
// a negated where s is negative, zero where s is zero.
static inline B8x32 apply_sign(B8x32 a, B8x32 s) {
    return {{apply_sign(a.v[0], s.v[0]), apply_sign(a.v[1], s.v[1])}};
}
// Shifts within bytes; the x86 sets shift 16-bit lanes and callers mask, which gives the same.
template <int N> static inline B8x32 shift_right(B8x32 a) {
    const int8x16_t by = vdupq_n_s8(-N);
    return {{vshlq_u8(a.v[0], by), vshlq_u8(a.v[1], by)}};
}
template <int N> static inline B8x32 shift_left(B8x32 a) {
    return {{vshlq_n_u8(a.v[0], N), vshlq_n_u8(a.v[1], N)}};
}
// Low nibbles of 16 bytes in lanes 0-15, high nibbles in lanes 16-31.
static inline B8x32 split_nibbles(const void *p) {
    const uint8x16_t bytes = vld1q_u8(static_cast<const uint8_t *>(p));
    return {{vandq_u8(bytes, vdupq_n_u8(0x0F)), vshrq_n_u8(bytes, 4)}};
}
// Bit i of the 4 bytes at p becomes `value` in lane i, else 0.
static inline B8x32 expand_bits(const void *p, uint8_t value) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull)), set = vdupq_n_u8(value);
    const uint8x16_t low = vcombine_u8(vdup_n_u8(bytes[0]), vdup_n_u8(bytes[1])),
                     high = vcombine_u8(vdup_n_u8(bytes[2]), vdup_n_u8(bytes[3]));
    return {{vandq_u8(vtstq_u8(low, bit), set), vandq_u8(vtstq_u8(high, bit), set)}};
}

static inline I16x16 splat_i16(int16_t x) {
    return {{vdupq_n_s16(x), vdupq_n_s16(x)}};
}
static inline I16x16 zero_i16() {
    return splat_i16(0);
}
static inline I16x16 operator+(I16x16 a, I16x16 b) {
    return {{vaddq_s16(a.v[0], b.v[0]), vaddq_s16(a.v[1], b.v[1])}};
}
static inline int16x8_t dot_pairs(uint8x16_t u, uint8x16_t s) {
    const int16x8_t low =
        vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(u))), vmovl_s8(vget_low_s8(as_signed(s))));
    const int16x8_t high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(u)), vmovl_high_s8(as_signed(s)));
    return vpaddq_s16(low, high);
}
// Products of unsigned and signed bytes, neighbours added; codes below 129 do not overflow.
static inline I16x16 dot_pairs(B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return {{dot_pairs(unsigned_bytes.v[0], signed_bytes.v[0]), dot_pairs(unsigned_bytes.v[1], signed_bytes.v[1])}};
}
static inline I32x8 zero_i32() {
    return {{vdupq_n_s32(0), vdupq_n_s32(0)}};
}
static inline I32x8 operator+(I32x8 a, I32x8 b) {
    return {{vaddq_s32(a.v[0], b.v[0]), vaddq_s32(a.v[1], b.v[1])}};
}
static inline I32x8 operator-(I32x8 a, I32x8 b) {
    return {{vsubq_s32(a.v[0], b.v[0]), vsubq_s32(a.v[1], b.v[1])}};
}
static inline int32x4_t dot_pairs(int16x8_t a, int16x8_t b) {
    return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
}
// The upper 16 bits of twice the products, rounded.
static inline I16x16 multiply_rounded(I16x16 a, I16x16 b) {
    return {{vqrdmulhq_s16(a.v[0], b.v[0]), vqrdmulhq_s16(a.v[1], b.v[1])}};
}
// Products of 16-bit lanes, neighbours added.
static inline I32x8 dot_pairs(I16x16 a, I16x16 b) {
    return {{dot_pairs(a.v[0], b.v[0]), dot_pairs(a.v[1], b.v[1])}};
}
// Neighbours added; each half holds its two sums twice.
static inline I32x8 add_neighbours(I32x8 a) {
    return {{vpaddq_s32(a.v[0], a.v[0]), vpaddq_s32(a.v[1], a.v[1])}};
}
// The sums of all lanes of a, b, c and d in lanes 0 to 3.
static inline I32x8 sums_of(I32x8 a, I32x8 b, I32x8 c, I32x8 d) {
    const auto halves = [](I32x8 x) { return vaddq_s32(x.v[0], x.v[1]); };
    const int32x4_t sums = vpaddq_s32(vpaddq_s32(halves(a), halves(b)), vpaddq_s32(halves(c), halves(d)));
    return {{sums, sums}};
}
static inline float first_lane(F32x8 a) {
    return vgetq_lane_f32(a.v[0], 0);
}
// Lane 0 of a, lane 1 of b, lane 2 of c, lane 3 of d, all of which are the same in every lane.
static inline F32x8 first_lanes(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    const float32x4_t lanes = vzip1q_f32(vzip1q_f32(a.v[0], c.v[0]), vzip1q_f32(b.v[0], d.v[0]));
    return {{lanes, lanes}};
}
static inline F32x8 to_f32(I32x8 a) {
    return {{vcvtq_f32_s32(a.v[0]), vcvtq_f32_s32(a.v[1])}};
}

// Products are of signed bytes: codes are signed, or unsigned and below 128.
constexpr bool kHasDotFours = true, kDotsSignedCodes = true, kHasScaledDots = true;
// acc + products of 16 bytes, four neighbours added.
static inline int32x4_t dot_fours(int32x4_t acc, uint8x16_t a, uint8x16_t b) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(acc, as_signed(a), as_signed(b));
#else
    // Two products fit 16 bits: 2 * 128 * 127 < 32768.
    const int16x8_t low = vmull_s8(vget_low_s8(as_signed(a)), vget_low_s8(as_signed(b))),
                    high = vmull_high_s8(as_signed(a), as_signed(b));
    return vpadalq_s16(acc, vpaddq_s16(low, high));
#endif
}
static inline I32x8 dot_fours(I32x8 acc, B8x32 codes, B8x32 activations) {
    return {{dot_fours(acc.v[0], codes.v[0], activations.v[0]), dot_fours(acc.v[1], codes.v[1], activations.v[1])}};
}
static inline I32x8 dot_fours_signed(I32x8 acc, B8x32 codes, B8x32 activations) {
    return dot_fours(acc, codes, activations);
}
// acc + sums of four products, times factors[0] in the lower half and factors[1] in the upper.
static inline I32x8 add_scaled_dots(I32x8 acc, B8x32 codes, B8x32 activations, const int16_t *factors) {
    const I32x8 dots = dot_fours(zero_i32(), codes, activations);
    return {{vmlaq_n_s32(acc.v[0], dots.v[0], factors[0]), vmlaq_n_s32(acc.v[1], dots.v[1], factors[1])}};
}

// Sums of signed bytes 0-15 and of bytes 16-31.
static inline void sum_halves(B8x32 a, int &low, int &high) {
    low = vaddlvq_s8(as_signed(a.v[0]));
    high = vaddlvq_s8(as_signed(a.v[1]));
}
static inline F32x8 widen_i8(int8x8_t a) {
    const int16x8_t wide = vmovl_s8(a);
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))}};
}
// 8 signed bytes as floats.
static inline F32x8 load_i8_f32(const int8_t *p) {
    return widen_i8(vld1_s8(p));
}
// The eight 6-bit scales and eight 6-bit minima of a Q4_K or Q5_K block; see simd/avx2/vec.h for the layout.
static inline int8x16_t unpack_6bit_pairs(const uint32_t (&words)[4]) {
    const uint32_t a = words[1], b = words[2], c = words[3];
    const uint32_t parts[4] = {a & 0x3F3F3F3Fu, (c & 0x0F0F0F0Fu) | (a >> 2 & 0x30303030u), b & 0x3F3F3F3Fu,
                               (c >> 4 & 0x0F0F0F0Fu) | (b >> 2 & 0x30303030u)};
    return vreinterpretq_s8_u32(vld1q_u32(parts));
}
// The same as floats, times the block's scales.
static inline void load_6bit_pairs(const void *block, F32x8 &scales, F32x8 &minima) {
    uint32_t words[4]; // d and dmin, then a, b, c of four bytes each
    std::memcpy(words, block, sizeof(words));
    const int8x16_t bytes = unpack_6bit_pairs(words);
    const F32x8 factors = widen_f16(vreinterpretq_u16_u32(vdupq_n_u32(words[0])));
    scales = widen_i8(vget_low_s8(bytes)) * splat(vgetq_lane_f32(factors.v[0], 0));
    minima = widen_i8(vget_high_s8(bytes)) * splat(vgetq_lane_f32(factors.v[0], 1));
}
// The integer scales of a block of 256 values, shifted up, and its float scales in all lanes.
struct BlockScales {
    I16x16 integers;
    F32x8 scale, offset_scale;
};
// Q4_K or Q5_K: 8 scales in lanes 0-7, 8 minima in lanes 8-15; d and dmin.
template <int Shift> static inline BlockScales load_6bit_scales(const void *block) {
    uint32_t words[4];
    std::memcpy(words, block, sizeof(words));
    const int8x16_t bytes = unpack_6bit_pairs(words);
    const F32x8 factors = widen_f16(vreinterpretq_u16_u32(vdupq_n_u32(words[0])));
    return {{{vshlq_n_s16(vmovl_s8(vget_low_s8(bytes)), Shift), vshlq_n_s16(vmovl_high_s8(bytes), Shift)}},
            splat(vgetq_lane_f32(factors.v[0], 0)),
            splat(vgetq_lane_f32(factors.v[0], 1))};
}
// factors[2 * i] = factors[2 * i + 1] = lane i of `integers` times ratios[i] over 2^15, rounded, for the first 8 lanes;
// returns the products of the other 8 lanes with `sums`, neighbours added, in lanes 0-3.
static inline I32x8 factor_pairs(I16x16 integers, const int16_t *ratios, const int16_t *sums, int16_t *factors) {
    const int16x8_t f = vqrdmulhq_s16(integers.v[0], vld1q_s16(ratios));
    vst2q_s16(factors, (int16x8x2_t{{f, f}}));
    return {{dot_pairs(integers.v[1], vld1q_s16(sums)), vdupq_n_s32(0)}};
}
// 16 signed bytes, shifted up.
template <int Shift> static inline I16x16 load_i8_scales(const int8_t *p) {
    const int8x16_t bytes = vld1q_s8(p);
    return {{vshlq_n_s16(vmovl_s8(vget_low_s8(bytes)), Shift), vshlq_n_s16(vmovl_high_s8(bytes), Shift)}};
}
// 16-bit lanes 0-7 get p[0], lanes 8-15 get p[1].
static inline I16x16 splat_halves(const int16_t *p) {
    return {{vdupq_n_s16(p[0]), vdupq_n_s16(p[1])}};
}
// 16-bit lanes alternate between p[0] and p[1].
static inline I16x16 splat_two(const int16_t *p) {
    const int16x8_t both = vzip1q_s16(vdupq_n_s16(p[0]), vdupq_n_s16(p[1]));
    return {{both, both}};
}
// 32 floats already scaled into [-127, 127], rounded to nearest, as signed bytes in order.
static inline B8x32 round_to_i8(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    const auto narrow = [](F32x8 x) {
        return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[0])), vqmovn_s32(vcvtnq_s32_f32(x.v[1])));
    };
    const auto join = [](int16x8_t x, int16x8_t y) {
        return vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(x), vqmovn_s16(y)));
    };
    return {{join(narrow(a), narrow(b)), join(narrow(c), narrow(d))}};
}

// Order barriers for the compiler's scheduler; they emit nothing.
template <class V> static inline V pinned(V a) {
    asm volatile("" : "+w"(a.v[0]), "+w"(a.v[1]));
    return a;
}
static inline void keep_in_memory() {
    asm volatile("" ::: "memory");
}

// gcc 12 takes a function that does nothing but prefetch for one without effect, and drops its calls.
static inline void prefetch(const void *p) {
    asm volatile("prfm pldl1keep, %0" : : "Q"(*static_cast<const char *>(p)));
}

} // namespace quipu::QUIPU_ISA
