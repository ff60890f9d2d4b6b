// The loops over a vocabulary that sampling spends its time in, compiled once for every processor of an architecture
// and once more with AVX2. All versions give the same bits: whole numbers are summed, and no multiply-add is fused.
#pragma once

#include <cstdint>

namespace quipu {

constexpr int kSampleBlock = 256; // logits; all scans read whole blocks or, in lists, whole vectors of 8

// The weight of a token is a whole number, round(2^44 e^x) with x = scale * logit - largest; 0 below -32. Sums of up to
// 2^19 of them fit 64 bits.
constexpr double kMassOfOne = 17592186044416.0; // 2^44
constexpr float kLowestDistance = -32.0f;
constexpr float kLargestLogit = 1e30f; // logits are between this and its negative, or -infinity

constexpr int kKeyBuckets = 512, kKeyBucketsPerUnit = 16; // 32 units of logit, where all mass is

struct WeightedDistance {
    uint64_t weight, product; // of weights round(2^30 e^x) with round(-2^15 x)
};
struct SpreadSums {
    uint64_t count, sum, squares; // of finite logits: round((largest - x) * scale)
};

struct SampleScans {
    const char *name;
    // The largest of each block. False if a value is NaN or above kLargestLogit.
    bool (*maxima)(const float *x, int num_blocks, float *maxima);
    float (*largest)(const float *x, int count);
    float (*smallest_finite)(const float *x, int count); // +infinity if there is none
    uint64_t (*mass)(const float *x, int count, float scale, float largest);
    void (*masses)(const float *x, int count, float scale, float largest, uint64_t *out);
    WeightedDistance (*weighted_distance)(const float *x, int count, float scale, float largest);
    SpreadSums (*spread)(const float *x, int count, float scale, float largest, double steps_per_unit);
    // Appends scale * x and the ids of those between lowest and highest; may write 8 values beyond the last. Returns
    // how many.
    int (*collect)(const float *x, int first_id, int count, float scale, float lowest, float highest, float *values,
                   int32_t *ids);
    // out = bit set ? x : -infinity, for one block and its 8 words.
    void (*mask)(const float *x, const uint32_t *words, float *out);
    // min((key - lowest) * kKeyBucketsPerUnit, kKeyBuckets - 1), rounded down.
    void (*buckets)(const float *keys, int count, float lowest, int32_t *out);
};

extern const SampleScans portable_scans;
#ifdef QUIPU_X86
extern const SampleScans avx2_scans;
#endif

// The best ones that this processor runs.
const SampleScans &choose_sample_scans();

} // namespace quipu
