// The scans of sample_scans.h in the vector extensions that GCC and Clang share: 8 floats at a time, whatever the
// processor's vectors are. Included once per instruction set, with QUIPU_SCANS set to a namespace of its own.
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/sample_scans.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace quipu {
namespace QUIPU_SCANS {
namespace {

typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef double D4 __attribute__((vector_size(32)));
typedef uint64_t U4 __attribute__((vector_size(32)));

inline F8 load(const float *p) {
    F8 v;
    std::memcpy(&v, p, sizeof(v));
    return v;
}
inline void store(float *p, F8 v) {
    std::memcpy(p, &v, sizeof(v));
}
inline F8 splat(float x) {
    return F8{x, x, x, x, x, x, x, x};
}
inline F8 max(F8 a, F8 b) {
    return a > b ? a : b;
}
inline float max_lane(F8 v) {
    float result = v[0];
    for (int i = 1; i < 8; i++)
        result = v[i] > result ? v[i] : result;
    return result;
}
inline uint64_t sum(U4 v) {
    return v[0] + v[1] + v[2] + v[3];
}
#ifdef __AVX2__
inline D4 low_half(F8 v) {
    return reinterpret_cast<D4>(_mm256_cvtps_pd(_mm256_castps256_ps128(reinterpret_cast<__m256>(v))));
}
inline D4 high_half(F8 v) {
    return reinterpret_cast<D4>(_mm256_cvtps_pd(_mm256_extractf128_ps(reinterpret_cast<__m256>(v), 1)));
}
#else
inline D4 low_half(F8 v) {
    return D4{v[0], v[1], v[2], v[3]};
}
inline D4 high_half(F8 v) {
    return D4{v[4], v[5], v[6], v[7]};
}
#endif

// For 0 <= x < 2^51: the last bits of x + 2^52 are x rounded to a whole number, ties to even.
constexpr double kRound = 4503599627370496.0; // 2^52
inline D4 rounded(D4 x) {
    return (x + kRound) - kRound;
}
inline U4 rounded_to_integer(D4 x) {
    return reinterpret_cast<U4>(x + kRound) & ((uint64_t(1) << 52) - 1);
}

// 2^kPower e^x for x <= 0, in float operations that are the same everywhere; kLowestDistance stands for all below it.
template <int kPower> inline F8 exponential(F8 x) {
#ifdef __AVX2__
    const F8 inside = reinterpret_cast<F8>(
        _mm256_max_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(splat(kLowestDistance))));
#else
    const F8 inside = max(x, splat(kLowestDistance));
#endif
    const float round = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number, in the last bits
    const F8 shifted = inside * 1.4426950408889634f + round;
    const F8 power = shifted - round;
    const F8 rest = (inside - power * 0.693359375f) - power * -2.12194440054690583e-4f;
    F8 result = splat(float(1.0 / 720)) * rest + float(1.0 / 120);
    result = result * rest + float(1.0 / 24);
    result = result * rest + float(1.0 / 6);
    result = result * rest + 0.5f;
    result = result * rest + 1.0f;
    result = result * rest + 1.0f;
    // Into the exponent: the result is between 2^-1 and 2^1, the power at least -47.
    return reinterpret_cast<F8>(reinterpret_cast<I8>(result) + (reinterpret_cast<I8>(shifted) << 23) + (kPower << 23));
}

bool maxima(const float *x, int num_blocks, float *result) {
    I8 bad = {};
    for (int block = 0; block < num_blocks; block++, x += kSampleBlock) {
        F8 first = splat(-INFINITY), second = first;
        for (int i = 0; i < kSampleBlock; i += 16) {
            const F8 a = load(x + i), b = load(x + i + 8);
            bad |= ~(a <= kLargestLogit) | ~(b <= kLargestLogit); // a comparison with NaN is false
            first = max(a, first);
            second = max(b, second);
        }
        result[block] = max_lane(max(first, second));
    }
    int any = 0;
    for (int i = 0; i < 8; i++)
        any |= bad[i];
    return any == 0;
}

float largest(const float *x, int count) {
    F8 result = splat(-INFINITY);
    for (int i = 0; i < count; i += 8)
        result = max(load(x + i), result);
    return max_lane(result);
}

float smallest_finite(const float *x, int count) {
    F8 negated = splat(-INFINITY);
    for (int i = 0; i < count; i += 8) {
        const F8 v = load(x + i);
        negated = max(v >= -FLT_MAX ? -v : splat(-INFINITY), negated);
    }
    return -max_lane(negated);
}

uint64_t mass(const float *x, int count, float scale, float largest) {
    U4 total = {};
    for (int i = 0; i < count; i += 8) {
        const F8 masses = exponential<44>(load(x + i) * scale - largest);
        // The bits above the 52 last ones are the same in all, and subtracted in the end.
        total += reinterpret_cast<U4>(low_half(masses) + kRound) + reinterpret_cast<U4>(high_half(masses) + kRound);
    }
    return sum(total) - (uint64_t(0x433) << 52) * uint64_t(count);
}

void masses(const float *x, int count, float scale, float largest, uint64_t *out) {
    for (int i = 0; i < count; i += 8) {
        const F8 masses = exponential<44>(load(x + i) * scale - largest);
        const U4 low = rounded_to_integer(low_half(masses)), high = rounded_to_integer(high_half(masses));
        std::memcpy(out + i, &low, sizeof(low));
        std::memcpy(out + i + 4, &high, sizeof(high));
    }
}

WeightedDistance weighted_distance(const float *x, int count, float scale, float largest) {
    U4 weight = {}, product = {};
    for (int i = 0; i < count; i += 8) {
        const F8 distance = load(x + i) * scale - largest;
        const F8 inside = max(distance, splat(kLowestDistance)), weights = exponential<30>(distance);
        // A weight is at most 2^30, a distance 2^20: products are exact.
        const D4 low = rounded(low_half(weights)), high = rounded(high_half(weights));
        weight += rounded_to_integer(low) + rounded_to_integer(high);
        product += rounded_to_integer(low * rounded(low_half(inside) * -32768.0)) +
                   rounded_to_integer(high * rounded(high_half(inside) * -32768.0));
    }
    return {sum(weight), sum(product)};
}

SpreadSums spread(const float *x, int count, float scale, float largest, double steps_per_unit) {
    U4 total = {}, squares = {};
    I8 finite = {};
    for (int i = 0; i < count; i += 8) {
        const F8 distance = load(x + i) * scale - largest;
        const I8 is_finite = distance >= -FLT_MAX;
        const F8 inside = is_finite ? distance : splat(0.0f);
        finite -= is_finite;
        // At most 2^20 steps, so squares are exact.
        const D4 low = rounded(low_half(inside) * -steps_per_unit), high = rounded(high_half(inside) * -steps_per_unit);
        total += rounded_to_integer(low) + rounded_to_integer(high);
        squares += rounded_to_integer(low * low) + rounded_to_integer(high * high);
    }
    uint64_t num_finite = 0;
    for (int i = 0; i < 8; i++)
        num_finite += uint64_t(finite[i]);
    return {num_finite, sum(total), sum(squares)};
}

#ifdef __AVX2__
// Row m brings the lanes whose bits are set in m to the front.
struct Permutations {
    alignas(32) int32_t lanes[256][8];
};
constexpr Permutations make_permutations() {
    Permutations result{};
    for (int mask = 0; mask < 256; mask++) {
        int place = 0;
        for (int lane = 0; lane < 8; lane++)
            if (mask >> lane & 1)
                result.lanes[mask][place++] = lane;
    }
    return result;
}
constexpr Permutations kPermutations = make_permutations();
#endif

int collect(const float *x, int first_id, int count, float scale, float lowest, float highest, float *values,
            int32_t *ids) {
    int found = 0;
#ifdef __AVX2__
    I8 id = I8{0, 1, 2, 3, 4, 5, 6, 7} + first_id;
    for (int i = 0; i < count; i += 8, id += 8) {
        const F8 v = load(x + i) * scale;
        const I8 is_inside = (v >= lowest) & (v <= highest);
        const int mask = _mm256_movemask_ps(reinterpret_cast<__m256>(is_inside));
        if (mask == 0)
            continue;
        const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i *>(kPermutations.lanes[mask]));
        _mm256_storeu_ps(values + found, _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(v), order));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(ids + found),
                            _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(id), order));
        found += __builtin_popcount(unsigned(mask));
    }
#else
    for (int i = 0; i < count; i++) {
        const float v = x[i] * scale;
        values[found] = v;
        ids[found] = first_id + i;
        found += (v >= lowest) & (v <= highest);
    }
#endif
    return found;
}

void mask(const float *x, const uint32_t *words, float *out) {
    const I8 bits = {1, 2, 4, 8, 16, 32, 64, 128};
    for (int i = 0; i < kSampleBlock; i += 8) {
        const int byte = int(words[i / 32] >> (i % 32) & 255);
        store(out + i, (bits & byte) != 0 ? load(x + i) : splat(-INFINITY));
    }
}

void buckets(const float *keys, int count, float lowest, int32_t *out) {
    for (int i = 0; i < count; i += 8) {
        const F8 scaled = (load(keys + i) - lowest) * float(kKeyBucketsPerUnit);
        const F8 inside = scaled < float(kKeyBuckets - 1) ? scaled : splat(float(kKeyBuckets - 1));
        const I8 bucket = __builtin_convertvector(inside, I8);
        std::memcpy(out + i, &bucket, sizeof(bucket));
    }
}

} // namespace
} // namespace QUIPU_SCANS
} // namespace quipu

#define QUIPU_SCAN_TABLE(name)                                                                                         \
    {name,                                                                                                             \
     QUIPU_SCANS::maxima,                                                                                              \
     QUIPU_SCANS::largest,                                                                                             \
     QUIPU_SCANS::smallest_finite,                                                                                     \
     QUIPU_SCANS::mass,                                                                                                \
     QUIPU_SCANS::masses,                                                                                              \
     QUIPU_SCANS::weighted_distance,                                                                                   \
     QUIPU_SCANS::spread,                                                                                              \
     QUIPU_SCANS::collect,                                                                                             \
     QUIPU_SCANS::mask,                                                                                                \
     QUIPU_SCANS::buckets}
