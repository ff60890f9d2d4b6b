// The vector vocabulary of quipu for AVX2 + FMA + F16C, in the namespace of the set that includes it: all x86 sets
// share it. `simd/scalar/vec.h` defines the same names portably; kernels are written once against them.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace quipu::QUIPU_ISA {

// 8 float lanes.
struct F32x8 {
    __m256 v;
};
// 8 int32 lanes.
struct I32x8 {
    __m256i v;
};
// 16 int16 lanes.
struct I16x16 {
    __m256i v;
};
// 32 byte lanes, signed or unsigned by use.
struct B8x32 {
    __m256i v;
};

// --- float -----------------------------------------------------------------------------------------------------------
static inline F32x8 zero_f32() {
    return {_mm256_setzero_ps()};
}
static inline F32x8 splat(float x) {
    return {_mm256_set1_ps(x)};
}
static inline F32x8 load(const float *p) {
    return {_mm256_loadu_ps(p)};
}
static inline F32x8 splat_load(const float *p) {
    return {_mm256_broadcast_ss(p)};
}
static inline void store(float *p, F32x8 a) {
    _mm256_storeu_ps(p, a.v);
}
static inline F32x8 operator+(F32x8 a, F32x8 b) {
    return {_mm256_add_ps(a.v, b.v)};
}
static inline F32x8 operator-(F32x8 a, F32x8 b) {
    return {_mm256_sub_ps(a.v, b.v)};
}
static inline F32x8 operator*(F32x8 a, F32x8 b) {
    return {_mm256_mul_ps(a.v, b.v)};
}
static inline F32x8 operator/(F32x8 a, F32x8 b) {
    return {_mm256_div_ps(a.v, b.v)};
}
static inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) {
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
} // a * b + c
static inline F32x8 max(F32x8 a, F32x8 b) {
    return {_mm256_max_ps(a.v, b.v)};
}
static inline F32x8 min(F32x8 a, F32x8 b) {
    return {_mm256_min_ps(a.v, b.v)};
}
static inline F32x8 abs(F32x8 a) {
    return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)};
}
static inline F32x8 round_nearest(F32x8 a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

static inline float sum(F32x8 a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    x = _mm_add_ss(x, _mm_movehdup_ps(x));
    return _mm_cvtss_f32(x);
}

static inline float max_lane(F32x8 a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    x = _mm_max_ss(x, _mm_movehdup_ps(x));
    return _mm_cvtss_f32(x);
}

static inline F32x8 load_f16(const uint16_t *p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
}
static inline void store_f16(uint16_t *p, F32x8 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p),
                     _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F32x8 load_bf16(const uint16_t *p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
}
static inline float first_lane(F32x8 a) {
    return _mm256_cvtss_f32(a.v);
}
// Lane 0 of a, lane 1 of b, lane 2 of c, lane 3 of d.
static inline F32x8 first_lanes(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    return {_mm256_blend_ps(_mm256_blend_ps(a.v, b.v, 2), _mm256_blend_ps(c.v, d.v, 8), 12)};
}
// Eight halves, `stride` bytes apart.
static inline F32x8 gather_f16(const void *p, int64_t stride) {
    const auto at = [&](int i) {
        uint16_t half;
        std::memcpy(&half, static_cast<const uint8_t *>(p) + i * stride, 2);
        return static_cast<short>(half);
    };
    return {_mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)))};
}
static inline float f16_to_f32(uint16_t h) {
    return _cvtsh_ss(h);
}

// 2^n for integral n in [-126, 127], built in the exponent field.
static inline F32x8 exp2_integral(F32x8 n) {
    const __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 23))};
}

// --- bytes and integer dot products ----------------------------------------------------------------------------------
static inline B8x32 load_b8(const void *p) {
    return {_mm256_loadu_si256(static_cast<const __m256i *>(p))};
}
static inline void store_b8(void *p, B8x32 a) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), a.v);
}
// Dword i of a, b, c and d at p + 16 * i.
static inline void store_interleaved(void *p, B8x32 a, B8x32 b, B8x32 c, B8x32 d) {
    const __m256i ab_low = _mm256_unpacklo_epi32(a.v, b.v), ab_high = _mm256_unpackhi_epi32(a.v, b.v);
    const __m256i cd_low = _mm256_unpacklo_epi32(c.v, d.v), cd_high = _mm256_unpackhi_epi32(c.v, d.v);
    const __m256i abcd[4] = {_mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
                             _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)};
    auto *out = static_cast<__m128i *>(p);
    for (int i = 0; i < 4; i++) {
        _mm_storeu_si128(out + i, _mm256_castsi256_si128(abcd[i]));
        _mm_storeu_si128(out + 4 + i, _mm256_extracti128_si256(abcd[i], 1));
    }
}
static inline B8x32 splat_b8(uint8_t x) {
    return {_mm256_set1_epi8(static_cast<char>(x))};
}
// 4 bytes at p, repeated 8 times.
static inline B8x32 splat_4bytes(const void *p) {
    int32_t word;
    std::memcpy(&word, p, 4);
    return {_mm256_set1_epi32(word)};
}
// 8 bytes at p, repeated 4 times; 16 bytes, twice.
static inline B8x32 splat_8bytes(const void *p) {
    int64_t word;
    std::memcpy(&word, p, 8);
    return {_mm256_set1_epi64x(word)};
}
static inline B8x32 splat_16bytes(const void *p) {
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)))};
}
static inline B8x32 operator&(B8x32 a, B8x32 b) {
    return {_mm256_and_si256(a.v, b.v)};
}
static inline B8x32 operator|(B8x32 a, B8x32 b) {
    return {_mm256_or_si256(a.v, b.v)};
}
static inline B8x32 abs_b8(B8x32 a) {
    return {_mm256_abs_epi8(a.v)};
}
// a negated where s is negative, zero where s is zero.
static inline B8x32 apply_sign(B8x32 a, B8x32 s) {
    return {_mm256_sign_epi8(a.v, s.v)};
}
// Logical shifts within 16-bit lanes: mask away what crosses a byte.
template <int N> static inline B8x32 shift_right(B8x32 a) {
    return {_mm256_srli_epi16(a.v, N)};
}
template <int N> static inline B8x32 shift_left(B8x32 a) {
    return {_mm256_slli_epi16(a.v, N)};
}
// Low nibbles of 16 bytes in lanes 0-15, high nibbles in lanes 16-31.
static inline B8x32 split_nibbles(const void *p) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i *>(p));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return {_mm256_and_si256(both, _mm256_set1_epi8(0x0F))};
}
// Bit i of the 4 bytes at p becomes `value` in lane i, else 0.
static inline B8x32 expand_bits(const void *p, uint8_t value) {
    int32_t word;
    std::memcpy(&word, p, 4);
    const __m256i spread =
        _mm256_shuffle_epi8(_mm256_set1_epi32(word), _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2,
                                                                      2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return {_mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(value)))};
}

static inline I16x16 zero_i16() {
    return {_mm256_setzero_si256()};
}
static inline I16x16 operator+(I16x16 a, I16x16 b) {
    return {_mm256_add_epi16(a.v, b.v)};
}
// Products of unsigned and signed bytes, neighbours added: |lane| <= 2 * 255 * 127 saturates, so codes stay below 129.
static inline I16x16 dot_pairs(B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return {_mm256_maddubs_epi16(unsigned_bytes.v, signed_bytes.v)};
}
static inline I16x16 splat_i16(int16_t x) {
    return {_mm256_set1_epi16(x)};
}
static inline I32x8 zero_i32() {
    return {_mm256_setzero_si256()};
}
static inline I32x8 operator+(I32x8 a, I32x8 b) {
    return {_mm256_add_epi32(a.v, b.v)};
}
static inline I32x8 operator-(I32x8 a, I32x8 b) {
    return {_mm256_sub_epi32(a.v, b.v)};
}
// The upper 16 bits of twice the products, rounded.
static inline I16x16 multiply_rounded(I16x16 a, I16x16 b) {
    return {_mm256_mulhrs_epi16(a.v, b.v)};
}
// Products of 16-bit lanes, neighbours added.
static inline I32x8 dot_pairs(I16x16 a, I16x16 b) {
    return {_mm256_madd_epi16(a.v, b.v)};
}
// Neighbours added; each half holds its two sums twice.
static inline I32x8 add_neighbours(I32x8 a) {
    return {_mm256_hadd_epi32(a.v, a.v)};
}
// The sums of all lanes of a, b, c and d in lanes 0 to 3.
static inline I32x8 sums_of(I32x8 a, I32x8 b, I32x8 c, I32x8 d) {
    const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a.v, b.v), _mm256_hadd_epi32(c.v, d.v));
    return {_mm256_add_epi32(halves, _mm256_permute2x128_si256(halves, halves, 1))};
}
static inline F32x8 to_f32(I32x8 a) {
    return {_mm256_cvtepi32_ps(a.v)};
}
// Sums of signed bytes 0-15 and of bytes 16-31.
static inline void sum_halves(B8x32 a, int &low, int &high) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), a.v);
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __m128i x = _mm_hadd_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    x = _mm_hadd_epi32(x, x);
    low = _mm_cvtsi128_si32(x);
    high = _mm_extract_epi32(x, 1);
}
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
// Four products are summed straight into 32 bits, in one instruction. Signed codes take part as code + 128.
constexpr bool kHasDotFours = true, kDotsSignedCodes = false, kHasScaledDots = false;
// acc + the products of unsigned and signed bytes, four neighbours added. No sum saturates.
static inline I32x8 dot_fours(I32x8 acc, B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return {_mm256_dpbusd_epi32(acc.v, unsigned_bytes.v, signed_bytes.v)};
}
#else
constexpr bool kHasDotFours = false, kDotsSignedCodes = false, kHasScaledDots = false;
static inline I32x8 dot_fours(I32x8 acc, B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return acc + dot_pairs(dot_pairs(unsigned_bytes, signed_bytes), splat_i16(1));
}
#endif
// The same for signed codes; activations are never -128, which has no negative.
static inline I32x8 dot_fours_signed(I32x8 acc, B8x32 codes, B8x32 activations) {
    return dot_fours(acc, abs_b8(codes), apply_sign(activations, codes));
}
// 8 signed bytes as floats.
static inline F32x8 load_i8_f32(const int8_t *p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))))};
}
// The eight 6-bit scales, then the eight 6-bit minima of a Q4_K or Q5_K block as bytes. `head` is its first 16 bytes:
// two halves, then 12 bytes a0-3 b0-3 c0-3 with scales 0-3 = a & 63, minima 0-3 = b & 63, scales 4-7 = (c & 15) | a >>
// 6 << 4, minima 4-7 = c >> 4 | b >> 6 << 4.
static inline __m128i unpack_6bit_pairs(__m128i head) {
    const __m128i low = _mm_shuffle_epi8(head, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m128i high =
        _mm_shuffle_epi8(head, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    const __m128i shifted = _mm_blend_epi16(low, _mm_srli_epi16(low, 4), 0xC0);
    const __m128i low_bits = _mm_and_si128(shifted, _mm_setr_epi32(0x3F3F3F3F, 0x0F0F0F0F, 0x3F3F3F3F, 0x0F0F0F0F));
    const __m128i high_bits = _mm_and_si128(_mm_srli_epi16(high, 2), _mm_set1_epi8(0x30));
    return _mm_or_si128(low_bits, high_bits);
}
// The same as floats, times the block's scales.
static inline void load_6bit_pairs(const void *block, F32x8 &scales, F32x8 &minima) {
    const __m128i head = _mm_loadu_si128(static_cast<const __m128i *>(block));
    const __m128i all = unpack_6bit_pairs(head);
    const __m128 factors = _mm_cvtph_ps(head); // d, dmin and two that are not used
    scales = {_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(all)), _mm256_broadcastss_ps(factors))};
    minima = {_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(all, 8))),
                            _mm256_broadcastss_ps(_mm_movehdup_ps(factors)))};
}
// The integer scales of a block of 256 values, shifted up, and its float scales in all lanes.
struct BlockScales {
    I16x16 integers;
    F32x8 scale, offset_scale;
};
// Q4_K or Q5_K: 8 scales in lanes 0-7, 8 minima in lanes 8-15; d and dmin.
template <int Shift> static inline BlockScales load_6bit_scales(const void *block) {
    const __m128i head = _mm_loadu_si128(static_cast<const __m128i *>(block));
    const __m256i wide = _mm256_cvtepu8_epi16(unpack_6bit_pairs(head));
    const __m128 halves = _mm_cvtph_ps(head); // d, dmin and two that are not used
    return {{_mm256_slli_epi16(wide, Shift)},
            {_mm256_broadcastss_ps(halves)},
            {_mm256_broadcastss_ps(_mm_movehdup_ps(halves))}};
}
// factors[2 * i] = factors[2 * i + 1] = lane i of `integers` times ratios[i] over 2^15, rounded, for the first 8 lanes;
// returns the products of the other 8 lanes with `sums`, neighbours added, in lanes 0-3.
static inline I32x8 factor_pairs(I16x16 integers, const int16_t *ratios, const int16_t *sums, int16_t *factors) {
    const auto load8 = [](const int16_t *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); };
    const __m128i f = _mm_mulhrs_epi16(_mm256_castsi256_si128(integers.v), load8(ratios));
    _mm_store_si128(reinterpret_cast<__m128i *>(factors), _mm_unpacklo_epi16(f, f));
    _mm_store_si128(reinterpret_cast<__m128i *>(factors + 8), _mm_unpackhi_epi16(f, f));
    return {_mm256_zextsi128_si256(_mm_madd_epi16(_mm256_extracti128_si256(integers.v, 1), load8(sums)))};
}
// 16 signed bytes, shifted up.
template <int Shift> static inline I16x16 load_i8_scales(const int8_t *p) {
    return {_mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))), Shift)};
}
// 16-bit lanes 0-7 get p[0], lanes 8-15 get p[1].
static inline I16x16 splat_halves(const int16_t *p) {
    int32_t both;
    std::memcpy(&both, p, 4);
    return {
        _mm256_shuffle_epi8(_mm256_set1_epi32(both), _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2,
                                                                      3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3))};
}
// 16-bit lanes alternate between p[0] and p[1].
static inline I16x16 splat_two(const int16_t *p) {
    int32_t both;
    std::memcpy(&both, p, 4);
    return {_mm256_set1_epi32(both)};
}
// 32 floats already scaled into [-127, 127], rounded to nearest, as signed bytes in order.
static inline B8x32 round_to_i8(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    const __m256i ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a.v), _mm256_cvtps_epi32(b.v));
    const __m256i cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c.v), _mm256_cvtps_epi32(d.v));
    const __m256i bytes = _mm256_packs_epi16(ab, cd); // dwords in the order a0 b0 c0 d0 a1 b1 c1 d1
    return {_mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
}

// Order barriers for the compiler's scheduler; they emit nothing.
template <class V> static inline V pinned(V a) {
    asm volatile("" : "+v"(a.v));
    return a;
}
static inline void keep_in_memory() {
    asm volatile("" ::: "memory");
}

// gcc 12 takes a function that does nothing but prefetch for one without effect, and drops its calls.
static inline void prefetch(const void *p) {
    asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char *>(p)));
}

} // namespace quipu::QUIPU_ISA
