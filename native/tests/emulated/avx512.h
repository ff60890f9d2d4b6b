// The instructions of AVX-VNNI and AVX-512 that kernels use, in plain C++, so that native tests run those kernels on
// any processor with AVX2. Included before a set's kernels.cpp, whose intrinsics then are these functions.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace quipu::emulated {
namespace {

using Floats = std::array<float, 16>;
using Words = std::array<int32_t, 16>;
using Halves = std::array<uint16_t, 32>;

template <class Lanes, class V> inline Lanes lanes(V v) {
    return std::bit_cast<Lanes>(v);
}
template <class F> inline __m512 make_ps(F f) {
    Floats r;
    for (int i = 0; i < 16; i++)
        r[i] = f(i);
    return std::bit_cast<__m512>(r);
}
template <class F> inline __m512i make_epi32(F f) {
    Words r;
    for (int i = 0; i < 16; i++)
        r[i] = static_cast<int32_t>(f(i));
    return std::bit_cast<__m512i>(r);
}

// --- loads, stores, constants ----------------------------------------------------------------------------------------
template <class V> inline V load(const void *p) {
    V v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}
inline __m512 loadu_ps(const void *p) {
    return load<__m512>(p);
}
inline __m512i loadu_si512(const void *p) {
    return load<__m512i>(p);
}
template <class V> inline void store(void *p, V v) {
    std::memcpy(p, &v, sizeof(v));
}
inline __m512i maskz_loadu_epi32(uint32_t mask, const void *p) {
    const auto *bytes = static_cast<const uint8_t *>(p);
    return make_epi32([&](int i) {
        int32_t x = 0;
        if (mask >> i & 1)
            std::memcpy(&x, bytes + 4 * i, 4);
        return x;
    });
}
inline __m512 maskz_loadu_ps(uint32_t mask, const void *p) {
    return std::bit_cast<__m512>(maskz_loadu_epi32(mask, p));
}
inline __m512 set1_ps(float x) {
    return make_ps([&](int) { return x; });
}
inline __m512i set1_epi32(int32_t x) {
    return make_epi32([&](int) { return x; });
}
inline __m512i set1_epi8(int8_t x) {
    return set1_epi32(static_cast<int32_t>(0x01010101u * static_cast<uint8_t>(x)));
}
template <class... X> inline __m512i set_epi16(X... highest_first) {
    const std::array<int, 32> x = {highest_first...};
    Halves r;
    for (int i = 0; i < 32; i++)
        r[i] = static_cast<uint16_t>(x[31 - i]);
    return std::bit_cast<__m512i>(r);
}

// --- arithmetic ------------------------------------------------------------------------------------------------------
inline __m512 mul_ps(__m512 a, __m512 b) {
    return make_ps([x = lanes<Floats>(a), y = lanes<Floats>(b)](int i) { return x[i] * y[i]; });
}
inline __m512 sub_ps(__m512 a, __m512 b) {
    return make_ps([x = lanes<Floats>(a), y = lanes<Floats>(b)](int i) { return x[i] - y[i]; });
}
inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
    return make_ps([x = lanes<Floats>(a), y = lanes<Floats>(b), z = lanes<Floats>(c)](int i) {
        return std::fmaf(x[i], y[i], z[i]);
    });
}
inline __m512 fnmadd_ps(__m512 a, __m512 b, __m512 c) {
    return make_ps([x = lanes<Floats>(a), y = lanes<Floats>(b), z = lanes<Floats>(c)](int i) {
        return std::fmaf(-x[i], y[i], z[i]);
    });
}
inline __m512 cvtepi32_ps(__m512i a) {
    return make_ps([x = lanes<Words>(a)](int i) { return static_cast<float>(x[i]); });
}
inline __m512i sub_epi32(__m512i a, __m512i b) {
    return make_epi32([x = lanes<Words>(a), y = lanes<Words>(b)](int i) { return x[i] - y[i]; });
}
inline __m512i and_si512(__m512i a, __m512i b) {
    return make_epi32([x = lanes<Words>(a), y = lanes<Words>(b)](int i) { return x[i] & y[i]; });
}
inline __m512i or_si512(__m512i a, __m512i b) {
    return make_epi32([x = lanes<Words>(a), y = lanes<Words>(b)](int i) { return x[i] | y[i]; });
}
inline __m512i srli_epi32(__m512i a, unsigned by) {
    return make_epi32([x = lanes<Words>(a), by](int i) { return static_cast<uint32_t>(x[i]) >> by; });
}
inline uint16_t test_epi32_mask(__m512i a, __m512i b) {
    const Words both = lanes<Words>(and_si512(a, b));
    uint32_t mask = 0;
    for (int i = 0; i < 16; i++)
        mask |= uint32_t(both[i] != 0) << i;
    return static_cast<uint16_t>(mask);
}
inline __m256i cvtepi32_epi16(__m512i a) {
    const Words x = lanes<Words>(a);
    std::array<uint16_t, 16> r;
    for (int i = 0; i < 16; i++)
        r[i] = static_cast<uint16_t>(x[i]);
    return std::bit_cast<__m256i>(r);
}
inline __m512i permutexvar_epi16(__m512i indices, __m512i a) {
    const Halves at = lanes<Halves>(indices), x = lanes<Halves>(a);
    Halves r;
    for (int i = 0; i < 32; i++)
        r[i] = x[at[i] & 31];
    return std::bit_cast<__m512i>(r);
}

// acc + products of four unsigned and four signed bytes per lane.
inline int32_t dot_bytes(int32_t acc, const uint8_t *a, const int8_t *b) {
    for (int j = 0; j < 4; j++)
        acc += int(a[j]) * int(b[j]);
    return acc;
}
template <class V> inline V dpbusd(V acc, V a, V b) {
    constexpr size_t kLanes = sizeof(V) / 4;
    const auto x = lanes<std::array<uint8_t, sizeof(V)>>(a);
    const auto y = lanes<std::array<int8_t, sizeof(V)>>(b);
    auto sums = lanes<std::array<int32_t, kLanes>>(acc);
    for (size_t i = 0; i < kLanes; i++)
        sums[i] = dot_bytes(sums[i], &x[4 * i], &y[4 * i]);
    return std::bit_cast<V>(sums);
}

// --- bfloat16: numbers below the smallest normal one count as zero ---------------------------------------------------
inline float flush(float x) {
    return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
inline float from_bf16(uint16_t x) {
    return flush(std::bit_cast<float>(uint32_t(x) << 16));
}
inline uint16_t to_bf16(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(flush(x));
    if (std::isnan(x))
        return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline float multiply_add_bf16(uint16_t a, uint16_t b, float c) {
    return flush(std::fmaf(from_bf16(a), from_bf16(b), flush(c)));
}
inline __m512bh cvtne2ps_pbh(__m512 high, __m512 low) {
    const Floats x = lanes<Floats>(low), y = lanes<Floats>(high);
    Halves r;
    for (int i = 0; i < 16; i++) {
        r[i] = to_bf16(x[i]);
        r[16 + i] = to_bf16(y[i]);
    }
    return std::bit_cast<__m512bh>(r);
}
inline __m512 dpbf16_ps(__m512 acc, __m512bh a, __m512bh b) {
    return make_ps([x = lanes<Halves>(a), y = lanes<Halves>(b), z = lanes<Floats>(acc)](int i) {
        return multiply_add_bf16(x[2 * i], y[2 * i], multiply_add_bf16(x[2 * i + 1], y[2 * i + 1], z[i]));
    });
}

} // namespace
} // namespace quipu::emulated

#define QUIPU_EMULATED
#define __AVX512VNNI__ 1
#define __AVX512VL__ 1

#undef _mm256_dpbusd_epi32
#undef _mm512_dpbusd_epi32
#undef _mm512_srli_epi32
#define _mm256_dpbusd_epi32 quipu::emulated::dpbusd
#define _mm512_and_si512 quipu::emulated::and_si512
#define _mm512_castps_si512(x) std::bit_cast<__m512i>(x)
#define _mm512_castsi512_ps(x) std::bit_cast<__m512>(x)
#define _mm512_cvtepi32_epi16 quipu::emulated::cvtepi32_epi16
#define _mm512_cvtepi32_ps quipu::emulated::cvtepi32_ps
#define _mm512_cvtne2ps_pbh quipu::emulated::cvtne2ps_pbh
#define _mm512_dpbf16_ps quipu::emulated::dpbf16_ps
#define _mm512_dpbusd_epi32 quipu::emulated::dpbusd
#define _mm512_fmadd_ps quipu::emulated::fmadd_ps
#define _mm512_fnmadd_ps quipu::emulated::fnmadd_ps
#define _mm512_load_si512 quipu::emulated::loadu_si512
#define _mm512_loadu_ps quipu::emulated::loadu_ps
#define _mm512_loadu_si512 quipu::emulated::loadu_si512
#define _mm512_maskz_loadu_epi32 quipu::emulated::maskz_loadu_epi32
#define _mm512_maskz_loadu_ps quipu::emulated::maskz_loadu_ps
#define _mm512_mul_ps quipu::emulated::mul_ps
#define _mm512_or_si512 quipu::emulated::or_si512
#define _mm512_permutexvar_epi16 quipu::emulated::permutexvar_epi16
#define _mm512_set1_epi32 quipu::emulated::set1_epi32
#define _mm512_set1_epi8(x) quipu::emulated::set1_epi8(static_cast<int8_t>(x))
#define _mm512_set1_ps quipu::emulated::set1_ps
#define _mm512_set_epi16 quipu::emulated::set_epi16
#define _mm512_setzero_ps() quipu::emulated::set1_ps(0.0f)
#define _mm512_setzero_si512() quipu::emulated::set1_epi32(0)
#define _mm512_srli_epi32 quipu::emulated::srli_epi32
#define _mm512_store_si512 quipu::emulated::store
#define _mm512_storeu_ps quipu::emulated::store
#define _mm512_sub_epi32 quipu::emulated::sub_epi32
#define _mm512_sub_ps quipu::emulated::sub_ps
#define _mm512_test_epi32_mask quipu::emulated::test_epi32_mask
