// The vector vocabulary of quipu in plain C++: the same names and lanes as `simd/avx2/vec.h`, for any processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "formats/scalar_float.h"

namespace quipu::scalar {

struct F32x8 {
    float v[8];
};
struct I32x8 {
    int32_t v[8];
};
struct I16x16 {
    int16_t v[16];
};
struct B8x32 {
    uint8_t v[32];
};

namespace {

template <class V, class F> inline V lanes(F f) {
    V r;
    constexpr int n = sizeof(r.v) / sizeof(r.v[0]);
    for (int i = 0; i < n; i++)
        r.v[i] = static_cast<std::remove_reference_t<decltype(r.v[0])>>(f(i));
    return r;
}

// --- float -----------------------------------------------------------------------------------------------------------
inline F32x8 zero_f32() {
    return {};
}
inline F32x8 splat(float x) {
    return lanes<F32x8>([&](int) { return x; });
}
inline F32x8 load(const float *p) {
    F32x8 r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
}
inline F32x8 splat_load(const float *p) {
    return splat(*p);
}
inline void store(float *p, F32x8 a) {
    std::memcpy(p, a.v, sizeof(a.v));
}
inline F32x8 operator+(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x8 operator-(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x8 operator*(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x8 operator/(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] / b.v[i]; });
}
inline F32x8 fma(F32x8 a, F32x8 b, F32x8 c) {
    return lanes<F32x8>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline F32x8 max(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x8 min(F32x8 a, F32x8 b) {
    return lanes<F32x8>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x8 abs(F32x8 a) {
    return lanes<F32x8>([&](int i) { return std::fabs(a.v[i]); });
}
inline F32x8 round_nearest(F32x8 a) {
    return lanes<F32x8>([&](int i) { return std::nearbyint(a.v[i]); });
}
// Lanes are added in the order of the vector versions, so that results agree between instruction sets where FMA does.
inline float sum(F32x8 a) {
    return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
inline float max_lane(F32x8 a) {
    return *std::max_element(a.v, a.v + 8);
}
inline float f16_to_f32(uint16_t h) {
    return quipu::f16_to_f32(h);
}
inline F32x8 load_f16(const uint16_t *p) {
    return lanes<F32x8>([&](int i) { return quipu::f16_to_f32(p[i]); });
}
inline void store_f16(uint16_t *p, F32x8 a) {
    for (int i = 0; i < 8; i++)
        p[i] = quipu::f32_to_f16(a.v[i]);
}
inline F32x8 gather_f16(const void *p, int64_t stride) {
    return lanes<F32x8>([&](int i) {
        uint16_t half;
        std::memcpy(&half, static_cast<const uint8_t *>(p) + i * stride, 2);
        return quipu::f16_to_f32(half);
    });
}
inline F32x8 load_bf16(const uint16_t *p) {
    return lanes<F32x8>([&](int i) { return quipu::bf16_to_f32(p[i]); });
}
inline F32x8 exp2_integral(F32x8 n) {
    return lanes<F32x8>([&](int i) { return std::ldexp(1.0f, static_cast<int>(n.v[i])); });
}

// --- bytes and integer dot products ----------------------------------------------------------------------------------
inline int8_t as_signed(uint8_t x) {
    return static_cast<int8_t>(x);
}
inline B8x32 load_b8(const void *p) {
    B8x32 r;
    std::memcpy(r.v, p, 32);
    return r;
}
inline void store_b8(void *p, B8x32 a) {
    std::memcpy(p, a.v, 32);
}
inline void store_interleaved(void *p, B8x32 a, B8x32 b, B8x32 c, B8x32 d) {
    const B8x32 *rows[4] = {&a, &b, &c, &d};
    for (int i = 0; i < 8; i++)
        for (int row = 0; row < 4; row++)
            std::memcpy(static_cast<uint8_t *>(p) + 16 * i + 4 * row, rows[row]->v + 4 * i, 4);
}
inline B8x32 splat_b8(uint8_t x) {
    return lanes<B8x32>([&](int) { return x; });
}
inline B8x32 splat_8bytes(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return lanes<B8x32>([&](int i) { return bytes[i % 8]; });
}
inline B8x32 splat_16bytes(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return lanes<B8x32>([&](int i) { return bytes[i % 16]; });
}
inline B8x32 splat_4bytes(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return lanes<B8x32>([&](int i) { return bytes[i % 4]; });
}
inline B8x32 operator&(B8x32 a, B8x32 b) {
    return lanes<B8x32>([&](int i) { return a.v[i] & b.v[i]; });
}
inline B8x32 operator|(B8x32 a, B8x32 b) {
    return lanes<B8x32>([&](int i) { return a.v[i] | b.v[i]; });
}
inline B8x32 abs_b8(B8x32 a) {
    return lanes<B8x32>([&](int i) { return std::abs(as_signed(a.v[i])); });
}
inline B8x32 apply_sign(B8x32 a, B8x32 s) {
    return lanes<B8x32>([&](int i) {
        const int sign = as_signed(s.v[i]);
        return sign < 0 ? -as_signed(a.v[i]) : sign == 0 ? 0 : as_signed(a.v[i]);
    });
}
// Shifts within bytes; the vector versions shift 16-bit lanes and callers mask, which gives the same.
template <int N> inline B8x32 shift_right(B8x32 a) {
    return lanes<B8x32>([&](int i) { return a.v[i] >> N; });
}
template <int N> inline B8x32 shift_left(B8x32 a) {
    return lanes<B8x32>([&](int i) { return a.v[i] << N; });
}
inline B8x32 split_nibbles(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return lanes<B8x32>([&](int i) { return i < 16 ? bytes[i] & 0x0F : bytes[i - 16] >> 4; });
}
inline B8x32 expand_bits(const void *p, uint8_t value) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return lanes<B8x32>([&](int i) { return (bytes[i / 8] >> (i % 8)) & 1 ? value : 0; });
}
inline I16x16 zero_i16() {
    return {};
}
inline I16x16 operator+(I16x16 a, I16x16 b) {
    return lanes<I16x16>([&](int i) { return a.v[i] + b.v[i]; });
}
inline I16x16 dot_pairs(B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return lanes<I16x16>([&](int i) {
        return unsigned_bytes.v[2 * i] * as_signed(signed_bytes.v[2 * i]) +
               unsigned_bytes.v[2 * i + 1] * as_signed(signed_bytes.v[2 * i + 1]);
    });
}
inline I16x16 splat_i16(int16_t x) {
    return lanes<I16x16>([&](int) { return x; });
}
inline I32x8 zero_i32() {
    return {};
}
inline I32x8 operator+(I32x8 a, I32x8 b) {
    return lanes<I32x8>([&](int i) { return a.v[i] + b.v[i]; });
}
inline I32x8 operator-(I32x8 a, I32x8 b) {
    return lanes<I32x8>([&](int i) { return a.v[i] - b.v[i]; });
}
inline I32x8 dot_pairs(I16x16 a, I16x16 b) {
    return lanes<I32x8>([&](int i) { return a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1]; });
}
// Sums may wrap on the way.
inline I32x8 add_neighbours(I32x8 a) {
    return lanes<I32x8>(
        [&](int i) { return uint32_t(a.v[i / 4 * 4 + i % 2 * 2]) + uint32_t(a.v[i / 4 * 4 + i % 2 * 2 + 1]); });
}
inline I32x8 sums_of(I32x8 a, I32x8 b, I32x8 c, I32x8 d) {
    const I32x8 *all[4] = {&a, &b, &c, &d};
    return lanes<I32x8>([&](int i) {
        uint32_t total = 0;
        for (const int32_t lane : all[i % 4]->v)
            total += uint32_t(lane);
        return total;
    });
}
inline float first_lane(F32x8 a) {
    return a.v[0];
}
inline F32x8 first_lanes(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    const F32x8 *all[4] = {&a, &b, &c, &d};
    return lanes<F32x8>([&](int i) { return all[i % 4]->v[i]; });
}
inline F32x8 to_f32(I32x8 a) {
    return lanes<F32x8>([&](int i) { return static_cast<float>(a.v[i]); });
}
inline void sum_halves(B8x32 a, int &low, int &high) {
    low = high = 0;
    for (int i = 0; i < 16; i++) {
        low += as_signed(a.v[i]);
        high += as_signed(a.v[16 + i]);
    }
}
constexpr bool kHasDotFours = false, kDotsSignedCodes = false, kHasScaledDots = false;
inline I32x8 dot_fours(I32x8 acc, B8x32 unsigned_bytes, B8x32 signed_bytes) {
    return lanes<I32x8>([&](int i) {
        int total = acc.v[i];
        for (int j = 4 * i; j < 4 * i + 4; j++)
            total += unsigned_bytes.v[j] * as_signed(signed_bytes.v[j]);
        return total;
    });
}
inline I32x8 dot_fours_signed(I32x8 acc, B8x32 codes, B8x32 activations) {
    return dot_fours(acc, abs_b8(codes), apply_sign(activations, codes));
}
inline F32x8 load_i8_f32(const int8_t *p) {
    return lanes<F32x8>([&](int i) { return static_cast<float>(p[i]); });
}
inline void unpack_6bit_pairs(const void *block, uint8_t (&scales)[8], uint8_t (&minima)[8]) {
    const uint8_t *a = static_cast<const uint8_t *>(block) + 4, *b = a + 4, *c = b + 4;
    for (int i = 0; i < 4; i++) {
        scales[i] = a[i] & 63;
        minima[i] = b[i] & 63;
        scales[4 + i] = static_cast<uint8_t>((c[i] & 15) | (a[i] >> 6 << 4));
        minima[4 + i] = static_cast<uint8_t>((c[i] >> 4) | (b[i] >> 6 << 4));
    }
}
inline void load_6bit_pairs(const void *block, F32x8 &scales, F32x8 &minima) {
    uint16_t head[2];
    uint8_t s[8], m[8];
    std::memcpy(head, block, 4);
    unpack_6bit_pairs(block, s, m);
    const float d = f16_to_f32(head[0]), dmin = f16_to_f32(head[1]);
    scales = lanes<F32x8>([&](int i) { return d * s[i]; });
    minima = lanes<F32x8>([&](int i) { return dmin * m[i]; });
}
struct BlockScales {
    I16x16 integers;
    F32x8 scale, offset_scale;
};
template <int Shift> inline BlockScales load_6bit_scales(const void *block) {
    uint16_t head[2];
    uint8_t scales[8], minima[8];
    std::memcpy(head, block, 4);
    unpack_6bit_pairs(block, scales, minima);
    return {lanes<I16x16>([&](int i) { return (i < 8 ? scales[i] : minima[i - 8]) << Shift; }),
            splat(f16_to_f32(head[0])), splat(f16_to_f32(head[1]))};
}
// The product of 16-bit integers over 2^15, rounded as the vector instruction does.
inline int16_t multiply_rounded(int a, int b) {
    return static_cast<int16_t>((a * b + (1 << 14)) >> 15);
}
inline I16x16 multiply_rounded(I16x16 a, I16x16 b) {
    return lanes<I16x16>([&](int i) { return multiply_rounded(a.v[i], b.v[i]); });
}
inline I32x8 factor_pairs(I16x16 integers, const int16_t *ratios, const int16_t *sums, int16_t *factors) {
    for (int i = 0; i < 16; i++)
        factors[i] = multiply_rounded(integers.v[i / 2], ratios[i / 2]);
    return lanes<I32x8>([&](int i) {
        const int16_t *minima = integers.v + 8 + 2 * i;
        return i < 4 ? minima[0] * sums[2 * i] + minima[1] * sums[2 * i + 1] : 0;
    });
}
template <int Shift> inline I16x16 load_i8_scales(const int8_t *p) {
    return lanes<I16x16>([&](int i) { return p[i] * (1 << Shift); });
}
inline I16x16 splat_halves(const int16_t *p) {
    return lanes<I16x16>([&](int i) { return p[i / 8]; });
}
inline I16x16 splat_two(const int16_t *p) {
    return lanes<I16x16>([&](int i) { return p[i % 2]; });
}
inline B8x32 round_to_i8(F32x8 a, F32x8 b, F32x8 c, F32x8 d) {
    const F32x8 *parts[4] = {&a, &b, &c, &d};
    return lanes<B8x32>([&](int i) {
        const float rounded = std::nearbyint(parts[i / 8]->v[i % 8]);
        return static_cast<int8_t>(rounded >= -127.0f ? std::min(rounded, 127.0f) : -127.0f); // a NaN gives -127
    });
}
template <class V> inline V pinned(V a) {
    return a;
}
inline void keep_in_memory() {}
inline void prefetch(const void *) {}

} // namespace
} // namespace quipu::scalar
