// The part of the vector vocabulary that block formats need to take their codes apart: wider integer arithmetic, small
// tables, grids, bit fields. Included after vec.h and the definition of QUIPU_ISA. `simd/portable_formats.h` gives the
// same for instruction sets without a file like this.
#pragma once

#include <array>

namespace quipu::QUIPU_ISA {

// --- bytes -----------------------------------------------------------------------------------------------------------
static inline B8x32 operator+(B8x32 a, B8x32 b) {
    return {_mm256_add_epi8(a.v, b.v)};
}
static inline B8x32 operator-(B8x32 a, B8x32 b) {
    return {_mm256_sub_epi8(a.v, b.v)};
}
static inline B8x32 operator^(B8x32 a, B8x32 b) {
    return {_mm256_xor_si256(a.v, b.v)};
}
// -1 where a > b as signed bytes, else 0.
static inline B8x32 greater_than(B8x32 a, B8x32 b) {
    return {_mm256_cmpgt_epi8(a.v, b.v)};
}
// Products modulo 256.
static inline B8x32 multiply_bytes(B8x32 a, B8x32 b) {
    const __m256i even = _mm256_mullo_epi16(a.v, b.v);
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(a.v, 8), _mm256_srli_epi16(b.v, 8));
    return {_mm256_or_si256(_mm256_and_si256(even, _mm256_set1_epi16(0xFF)), _mm256_slli_epi16(odd, 8))};
}
// table[i] for indices 0-15.
static inline B8x32 lookup_levels(const std::array<int8_t, 16> &table, B8x32 indices) {
    const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(table.data())));
    return {_mm256_shuffle_epi8(both, indices.v)};
}
// For apply_sign: bit i of the 4 bytes at p gives -1 in lane i where it is set, else 1.
static inline B8x32 expand_signs(const void *p) {
    return expand_bits(p, 0xFF) | splat_b8(1);
}
// The same from 32 bytes: bytes 4G to 4G+3. `halves` holds bytes 0-15 twice and bytes 16-31 twice.
static inline void repeat_halves(B8x32 a, B8x32 (&halves)[2]) {
    halves[0] = {_mm256_permute4x64_epi64(a.v, 0x44)};
    halves[1] = {_mm256_permute4x64_epi64(a.v, 0xEE)};
}
template <int G> static inline B8x32 expand_signs(const B8x32 (&halves)[2]) {
    constexpr long long ones = 0x0101010101010101, first = G % 4 * 4 * ones;
    const __m256i spread = _mm256_shuffle_epi8(
        halves[G / 4].v, _mm256_setr_epi64x(first, first + ones, first + 2 * ones, first + 3 * ones));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    return {_mm256_or_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(1))};
}
// Lanes 8i to 8i+7 are zero where the top bit of nibble i of the 2 bytes at p is set, else `value`.
static inline B8x32 expand_nibble_tops(const void *p, uint8_t value) {
    int16_t word;
    std::memcpy(&word, p, 2);
    const __m256i top = _mm256_setr_epi64x(0x0008000800080008, 0x0080008000800080, 0x0800080008000800,
                                           static_cast<long long>(0x8000800080008000ull));
    const __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(word), top), top);
    return {_mm256_andnot_si256(set, _mm256_set1_epi8(static_cast<char>(value)))};
}
// Low nibbles of bytes 0-7, their high nibbles, low nibbles of bytes 8-15, their high nibbles.
static inline B8x32 split_nibbles_of_8(const void *p) {
    const __m256i bytes = _mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)));
    const __m256i twice = _mm256_permute4x64_epi64(bytes, 0x50);
    return {_mm256_and_si256(_mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 4, 0, 4)), _mm256_set1_epi8(0x0F))};
}
// 32 fields of two bits from 8 bytes, lowest first.
static inline B8x32 split_pairs_of_bits(const void *p) {
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i *>(p)));
    const __m256i y = _mm256_or_si256(x, _mm256_slli_epi32(x, 6));
    return {_mm256_and_si256(_mm256_or_si256(y, _mm256_slli_epi32(y, 12)), _mm256_set1_epi8(3))};
}
// 16 bytes twice; 16 bytes, then 4 bytes four times.
static inline B8x32 load_twice(const void *p) {
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)))};
}
static inline B8x32 load_16_and_4(const void *p, const void *q) {
    int32_t word;
    std::memcpy(&word, q, 4);
    const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(p)));
    return {_mm256_inserti128_si256(low, _mm_set1_epi32(word), 1)};
}
// Four grid entries of 8 bytes; eight of 4 bytes.
template <class Index, size_t N>
static inline B8x32 load_entries(const std::array<std::array<int8_t, 8>, N> &grid, const Index *i) {
    const auto at = [&](int j) { return reinterpret_cast<const double *>(grid[i[j]].data()); };
    const __m128d low = _mm_loadh_pd(_mm_load_sd(at(0)), at(1));
    const __m128d high = _mm_loadh_pd(_mm_load_sd(at(2)), at(3));
    return {_mm256_castpd_si256(_mm256_insertf128_pd(_mm256_castpd128_pd256(low), high, 1))};
}
template <class Index, size_t N>
static inline B8x32 load_entries(const std::array<std::array<int8_t, 4>, N> &grid, const Index *i) {
    const auto at = [&](int j) {
        int32_t entry;
        std::memcpy(&entry, grid[i[j]].data(), 4);
        return entry;
    };
    const auto four = [&](int j) {
        __m128i x = _mm_cvtsi32_si128(at(j));
        x = _mm_insert_epi32(x, at(j + 1), 1);
        x = _mm_insert_epi32(x, at(j + 2), 2);
        return _mm_insert_epi32(x, at(j + 3), 3);
    };
    return {_mm256_inserti128_si256(_mm256_castsi128_si256(four(0)), four(4), 1)};
}

// --- int16 -----------------------------------------------------------------------------------------------------------
static inline I16x16 load_i16(const void *p) {
    return {_mm256_loadu_si256(static_cast<const __m256i *>(p))};
}
static inline void store_i16(void *p, I16x16 a) {
    _mm256_storeu_si256(static_cast<__m256i *>(p), a.v);
}
static inline I16x16 operator-(I16x16 a, I16x16 b) {
    return {_mm256_sub_epi16(a.v, b.v)};
}
// Products modulo 2^16.
static inline I16x16 operator*(I16x16 a, I16x16 b) {
    return {_mm256_mullo_epi16(a.v, b.v)};
}
static inline I16x16 operator&(I16x16 a, I16x16 b) {
    return {_mm256_and_si256(a.v, b.v)};
}
static inline I16x16 operator|(I16x16 a, I16x16 b) {
    return {_mm256_or_si256(a.v, b.v)};
}
template <int N> static inline I16x16 shift_right(I16x16 a) { // logical
    return {_mm256_srli_epi16(a.v, N)};
}
// 16 bytes as 16 unsigned numbers.
static inline I16x16 widen_u8(const void *p) {
    return {_mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i *>(p)))};
}
// Lane i: byte i / Each of p, for 2 (8 bytes), 4 (4 bytes) or 8 lanes each (2 bytes).
template <int Each> static inline I16x16 spread_bytes(const uint8_t *p) {
    int64_t bytes = 0;
    std::memcpy(&bytes, p, 16 / Each);
    constexpr auto at = [](int lane) { return static_cast<char>(lane / Each); };
    const __m256i chosen =
        _mm256_setr_epi8(at(0), -1, at(1), -1, at(2), -1, at(3), -1, at(4), -1, at(5), -1, at(6), -1, at(7), -1, at(8),
                         -1, at(9), -1, at(10), -1, at(11), -1, at(12), -1, at(13), -1, at(14), -1, at(15), -1);
    return {_mm256_shuffle_epi8(_mm256_set1_epi64x(bytes), chosen)};
}
// Lane i: 16-bit word i / 4 of p.
static inline I16x16 spread_words(const void *p) {
    const __m256i words = _mm256_castsi128_si256(_mm_loadl_epi64(static_cast<const __m128i *>(p)));
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_unpacklo_epi16(words, words), 0x10); // w0 w0 w1 w1 | w2 ...
    return {_mm256_unpacklo_epi32(pairs, pairs)};
}
// Low nibble and high nibble of 8 bytes, in turn.
static inline I16x16 interleave_nibbles(const void *p) {
    const __m128i x = _mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i *>(p)));
    return {_mm256_cvtepu8_epi16(_mm_and_si128(_mm_or_si128(x, _mm_slli_epi16(x, 4)), _mm_set1_epi8(0x0F)))};
}
// The 16 scales of 6 bits of a Q3_K block: bytes 0-7 hold the low nibbles of scales 0-7 (low) and 8-15 (high), byte
// 8 + i % 4 the high bits of scale i at 2 * (i / 4).
static inline I16x16 load_q3_scales(const uint8_t *p) {
    int32_t high_bits;
    std::memcpy(&high_bits, p + 8, 4);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
    const __m128i low = _mm_and_si128(_mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4)), _mm_set1_epi8(0x0F));
    const __m128i high =
        _mm_and_si128(_mm_srlv_epi32(_mm_set1_epi32(high_bits), _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    return {_mm256_cvtepu8_epi16(_mm_or_si128(low, _mm_slli_epi16(high, 4)))};
}
template <int N> static inline I16x16 shift_left(I16x16 a) {
    return {_mm256_slli_epi16(a.v, N)};
}
// Lanes that fit 16 bits, those of a first.
static inline I16x16 pack_words(I32x8 a, I32x8 b) {
    return {_mm256_permute4x64_epi64(_mm256_packs_epi32(a.v, b.v), 0xD8)};
}
// Lanes in 0-255 as bytes, those of a first.
static inline B8x32 pack_bytes(I16x16 a, I16x16 b) {
    return {_mm256_permute4x64_epi64(_mm256_packus_epi16(a.v, b.v), 0xD8)};
}
static inline F32x8 low_f32(I16x16 a) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(a.v)))};
}
static inline F32x8 high_f32(I16x16 a) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(a.v, 1)))};
}

// --- int32 -----------------------------------------------------------------------------------------------------------
static inline I32x8 load_i32(const void *p) {
    return {_mm256_loadu_si256(static_cast<const __m256i *>(p))};
}
static inline I32x8 splat_i32(uint32_t x) {
    return {_mm256_set1_epi32(static_cast<int>(x))};
}
static inline I32x8 operator&(I32x8 a, I32x8 b) {
    return {_mm256_and_si256(a.v, b.v)};
}
static inline I32x8 operator|(I32x8 a, I32x8 b) {
    return {_mm256_or_si256(a.v, b.v)};
}
template <int N> static inline I32x8 shift_right(I32x8 a) { // logical
    return {_mm256_srli_epi32(a.v, N)};
}
template <int N> static inline I32x8 shift_left(I32x8 a) {
    return {_mm256_slli_epi32(a.v, N)};
}
// x >> (Step * i) in lane i.
template <int Step> static inline I32x8 spread_fields(uint32_t x) {
    return {_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(x)),
                              _mm256_setr_epi32(0, Step, 2 * Step, 3 * Step, 4 * Step, 5 * Step, 6 * Step, 7 * Step))};
}
// 8 words of 16 bits as unsigned numbers.
static inline I32x8 widen_u16(const void *p) {
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i *>(p)))};
}
// Words 1, 3, ... 15 of 32 bits.
static inline I32x8 load_odd_words(const void *p) {
    const __m256i a = _mm256_loadu_si256(static_cast<const __m256i *>(p));
    const __m256i b = _mm256_loadu_si256(static_cast<const __m256i *>(p) + 1);
    const __m256 odd = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xDD);
    return {_mm256_permute4x64_epi64(_mm256_castps_si256(odd), 0xD8)};
}
static inline I16x16 as_words(I32x8 a) {
    return {a.v};
}
static inline B8x32 as_bytes(I32x8 a) {
    return {a.v};
}

// --- scales ----------------------------------------------------------------------------------------------------------
// Lane i: the half at p + i / Each * stride.
template <int Each> static inline F32x8 gather_f16_each(const void *p, int64_t stride) {
    const auto at = [&](int i) {
        uint16_t half;
        std::memcpy(&half, static_cast<const uint8_t *>(p) + i / Each * stride, 2);
        return static_cast<short>(half);
    };
    return {_mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)))};
}
// Lanes 0-3, lanes 4-7, each twice in a row.
static inline F32x8 repeat_low(F32x8 a) {
    return {_mm256_permutevar8x32_ps(a.v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))};
}
static inline F32x8 repeat_high(F32x8 a) {
    return {_mm256_permutevar8x32_ps(a.v, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))};
}
// p[0] in lanes 0-3, p[1] in lanes 4-7.
static inline F32x8 splat_pair(const float *p) {
    const __m256d pair = _mm256_broadcast_sd(reinterpret_cast<const double *>(p));
    return {_mm256_permutevar_ps(_mm256_castpd_ps(pair), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))};
}
// e8m0_half_to_f32 of eight bytes, `stride` bytes apart.
static inline F32x8 gather_e8m0_halves(const uint8_t *p, int64_t stride) {
    const auto at = [&](int i) { return static_cast<char>(p[i * stride]); };
    const __m256i bits = _mm256_cvtepu8_epi32(
        _mm_setr_epi8(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), bits); // zero beyond 31
    const __m256i is_normal = _mm256_cmpgt_epi32(bits, _mm256_set1_epi32(1));
    return {_mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, is_normal))};
}
// ue4m3_half_to_f32 of four times four bytes, `stride` bytes apart. Exponent and mantissa are those of a half whose
// bias is larger by 8 and whose value is halved: a factor of 2^7.
static inline void gather_ue4m3_halves(const uint8_t *p, int64_t stride, F32x8 &low, F32x8 &high) {
    const auto at = [&](int i) {
        int32_t word;
        std::memcpy(&word, p + i * stride, 4);
        return word;
    };
    const __m128i bytes = _mm_setr_epi32(at(0), at(1), at(2), at(3));
    const __m128i valid = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7F)), bytes);
    const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_and_si128(valid, _mm_set1_epi8(0x7F))), 7);
    const __m256 factor = _mm256_set1_ps(128.0f);
    low = {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), factor)};
    high = {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), factor)};
}

} // namespace quipu::QUIPU_ISA
