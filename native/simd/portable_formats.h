// What `simd/avx2/vec_formats.h` defines, in plain C++ for any instruction set whose vectors lie in memory lane after
// lane. Included inside the translation unit of an instruction set, after its vec.h and the definition of QUIPU_ISA.
#pragma once

#include <array>
#include <bit>

namespace quipu::QUIPU_ISA {
namespace {

using Bytes32 = std::array<uint8_t, 32>;
using Words16 = std::array<uint16_t, 16>;
using Words8 = std::array<uint32_t, 8>;
using Floats8 = std::array<float, 8>;

template <class V, class Lanes, class F> inline V make_lanes(F f) {
    Lanes lanes;
    for (int i = 0; i < static_cast<int>(lanes.size()); i++)
        lanes[i] = static_cast<typename Lanes::value_type>(f(i));
    return std::bit_cast<V>(lanes);
}
template <class F> inline B8x32 make_bytes(F f) {
    return make_lanes<B8x32, Bytes32>(f);
}
template <class F> inline I16x16 make_i16(F f) {
    return make_lanes<I16x16, Words16>(f);
}
template <class F> inline I32x8 make_i32(F f) {
    return make_lanes<I32x8, Words8>(f);
}
template <class F> inline F32x8 make_f32(F f) {
    return make_lanes<F32x8, Floats8>(f);
}
inline Bytes32 lanes_of(B8x32 a) {
    return std::bit_cast<Bytes32>(a);
}
inline Words16 lanes_of(I16x16 a) {
    return std::bit_cast<Words16>(a);
}
inline Words8 lanes_of(I32x8 a) {
    return std::bit_cast<Words8>(a);
}
inline Floats8 lanes_of(F32x8 a) {
    return std::bit_cast<Floats8>(a);
}
template <class Number> inline Number read(const void *p, int64_t offset = 0) {
    Number x;
    std::memcpy(&x, static_cast<const uint8_t *>(p) + offset, sizeof(x));
    return x;
}

// --- bytes -----------------------------------------------------------------------------------------------------------
inline B8x32 operator+(B8x32 a, B8x32 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] + y[i]; });
}
inline B8x32 operator-(B8x32 a, B8x32 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] - y[i]; });
}
inline B8x32 operator^(B8x32 a, B8x32 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] ^ y[i]; });
}
inline B8x32 greater_than(B8x32 a, B8x32 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return int8_t(x[i]) > int8_t(y[i]) ? 0xFF : 0; });
}
inline B8x32 multiply_bytes(B8x32 a, B8x32 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] * y[i]; });
}
inline B8x32 lookup_levels(const std::array<int8_t, 16> &table, B8x32 indices) {
    return make_bytes([&, x = lanes_of(indices)](int i) { return table[x[i] & 15]; });
}
inline int bit_of(const void *p, int i) {
    return static_cast<const uint8_t *>(p)[i / 8] >> (i % 8) & 1;
}
inline B8x32 expand_signs(const void *p) {
    return make_bytes([&](int i) { return bit_of(p, i) ? -1 : 1; });
}
inline void repeat_halves(B8x32 a, B8x32 (&halves)[2]) {
    halves[0] = make_bytes([x = lanes_of(a)](int i) { return x[i % 16]; });
    halves[1] = make_bytes([x = lanes_of(a)](int i) { return x[16 + i % 16]; });
}
template <int G> inline B8x32 expand_signs(const B8x32 (&halves)[2]) {
    const Bytes32 bytes = lanes_of(halves[G / 4]);
    return expand_signs(&bytes[G % 4 * 4]);
}
inline B8x32 expand_nibble_tops(const void *p, uint8_t value) {
    return make_bytes([&](int i) { return bit_of(p, i / 8 * 4 + 3) ? 0 : value; });
}
inline B8x32 split_nibbles_of_8(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return make_bytes([&](int i) { return bytes[i / 16 * 8 + i % 8] >> (i / 8 % 2 * 4) & 15; });
}
inline B8x32 split_pairs_of_bits(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return make_bytes([&](int i) { return bytes[i / 4] >> (i % 4 * 2) & 3; });
}
inline B8x32 load_twice(const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return make_bytes([&](int i) { return bytes[i % 16]; });
}
inline B8x32 load_16_and_4(const void *p, const void *q) {
    return make_bytes([low = static_cast<const uint8_t *>(p), high = static_cast<const uint8_t *>(q)](int i) {
        return i < 16 ? low[i] : high[i % 4];
    });
}
template <class Index, size_t Width, size_t N>
inline B8x32 load_entries(const std::array<std::array<int8_t, Width>, N> &grid, const Index *indices) {
    constexpr int width = static_cast<int>(Width);
    return make_bytes([&](int i) { return grid[indices[i / width]][i % width]; });
}

// --- int16 -----------------------------------------------------------------------------------------------------------
inline I16x16 load_i16(const void *p) {
    return make_i16([&](int i) { return read<uint16_t>(p, 2 * i); });
}
inline void store_i16(void *p, I16x16 a) {
    std::memcpy(p, &a, 32);
}
inline I16x16 operator-(I16x16 a, I16x16 b) {
    return make_i16([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] - y[i]; });
}
inline I16x16 operator*(I16x16 a, I16x16 b) {
    return make_i16([x = lanes_of(a), y = lanes_of(b)](int i) { return uint32_t(x[i]) * y[i]; });
}
inline I16x16 operator&(I16x16 a, I16x16 b) {
    return make_i16([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] & y[i]; });
}
inline I16x16 operator|(I16x16 a, I16x16 b) {
    return make_i16([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] | y[i]; });
}
template <int N> inline I16x16 shift_right(I16x16 a) {
    return make_i16([x = lanes_of(a)](int i) { return x[i] >> N; });
}
template <int N> inline I16x16 shift_left(I16x16 a) {
    return make_i16([x = lanes_of(a)](int i) { return uint32_t(x[i]) << N; });
}
inline I16x16 pack_words(I32x8 a, I32x8 b) {
    return make_i16([x = lanes_of(a), y = lanes_of(b)](int i) { return i < 8 ? x[i] : y[i - 8]; });
}
inline I16x16 widen_u8(const void *p) {
    return make_i16([&](int i) { return static_cast<const uint8_t *>(p)[i]; });
}
template <int Each> inline I16x16 spread_bytes(const uint8_t *p) {
    return make_i16([&](int i) { return p[i / Each]; });
}
inline I16x16 spread_words(const void *p) {
    return make_i16([&](int i) { return read<uint16_t>(p, i / 4 * 2); });
}
inline I16x16 interleave_nibbles(const void *p) {
    return make_i16([&](int i) { return static_cast<const uint8_t *>(p)[i / 2] >> (i % 2 * 4) & 15; });
}
inline I16x16 load_q3_scales(const uint8_t *p) {
    return make_i16([&](int i) { return (p[i % 8] >> (i / 8 * 4) & 15) | (p[8 + i % 4] >> (i / 4 * 2) & 3) << 4; });
}
inline B8x32 pack_bytes(I16x16 a, I16x16 b) {
    return make_bytes([x = lanes_of(a), y = lanes_of(b)](int i) { return i < 16 ? x[i] : y[i - 16]; });
}
inline F32x8 low_f32(I16x16 a) {
    return make_f32([x = lanes_of(a)](int i) { return int16_t(x[i]); });
}
inline F32x8 high_f32(I16x16 a) {
    return make_f32([x = lanes_of(a)](int i) { return int16_t(x[8 + i]); });
}

// --- int32 -----------------------------------------------------------------------------------------------------------
inline I32x8 load_i32(const void *p) {
    return make_i32([&](int i) { return read<uint32_t>(p, 4 * i); });
}
inline I32x8 splat_i32(uint32_t x) {
    return make_i32([&](int) { return x; });
}
inline I32x8 operator&(I32x8 a, I32x8 b) {
    return make_i32([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] & y[i]; });
}
inline I32x8 operator|(I32x8 a, I32x8 b) {
    return make_i32([x = lanes_of(a), y = lanes_of(b)](int i) { return x[i] | y[i]; });
}
template <int N> inline I32x8 shift_right(I32x8 a) {
    return make_i32([x = lanes_of(a)](int i) { return x[i] >> N; });
}
template <int N> inline I32x8 shift_left(I32x8 a) {
    return make_i32([x = lanes_of(a)](int i) { return x[i] << N; });
}
template <int Step> inline I32x8 spread_fields(uint32_t x) {
    return make_i32([&](int i) { return x >> (Step * i); });
}
inline I32x8 widen_u16(const void *p) {
    return make_i32([&](int i) { return read<uint16_t>(p, 2 * i); });
}
inline I32x8 load_odd_words(const void *p) {
    return make_i32([&](int i) { return read<uint32_t>(p, 8 * i + 4); });
}
inline I16x16 as_words(I32x8 a) {
    return std::bit_cast<I16x16>(a);
}
inline B8x32 as_bytes(I32x8 a) {
    return std::bit_cast<B8x32>(a);
}

// --- scales ----------------------------------------------------------------------------------------------------------
template <int Each> inline F32x8 gather_f16_each(const void *p, int64_t stride) {
    return make_f32([&](int i) { return quipu::f16_to_f32(read<uint16_t>(p, i / Each * stride)); });
}
inline F32x8 repeat_low(F32x8 a) {
    return make_f32([x = lanes_of(a)](int i) { return x[i / 2]; });
}
inline F32x8 repeat_high(F32x8 a) {
    return make_f32([x = lanes_of(a)](int i) { return x[4 + i / 2]; });
}
inline F32x8 splat_pair(const float *p) {
    return make_f32([&](int i) { return p[i / 4]; });
}
inline F32x8 gather_e8m0_halves(const uint8_t *p, int64_t stride) {
    return make_f32([&](int i) { return e8m0_half_to_f32(p[i * stride]); });
}
inline void gather_ue4m3_halves(const uint8_t *p, int64_t stride, F32x8 &low, F32x8 &high) {
    low = make_f32([&](int i) { return ue4m3_half_to_f32(p[i / 4 * stride + i % 4]); });
    high = make_f32([&](int i) { return ue4m3_half_to_f32(p[(2 + i / 4) * stride + i % 4]); });
}

} // namespace
} // namespace quipu::QUIPU_ISA
