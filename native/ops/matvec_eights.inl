// Matrix times up to 8 tokens for formats read eight groups at a time. The sums of one token are the same operations in
// the same order whatever the number of tokens beside it.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// What eight groups of one row need for each token: scales and, for unsigned codes, the shift of the zero point.
struct EightProducts {
    alignas(32) float products[2 * kGroupsPerBlock]; // weight scale times activation scale, per group or per 16 values
    alignas(32) int16_t pair_scales[2 * kGroupsPerBlock];
};

// Whether integer scales of 16 values multiply integer sums. Where sums of four come in 32 bits, they multiply the
// scale of their group instead.
template <class W> constexpr bool scales_integers() {
    return W::kScaling == Scaling::kIntPairs && !kHasDotFours;
}
template <class W> constexpr bool scales_float_pairs() {
    return W::kScaling != Scaling::kGroups && !scales_integers<W>();
}

template <class W>
inline F32x8 multiply_eight_scales(const EightScales &s, const ActivationRow &a, int group, EightProducts &out,
                                   F32x8 correction) {
    const F32x8 x = load(a.scales + group), centre = splat(W::kCentre);
    const float *sums16 = a.sums16 + 2 * group;
    if constexpr (W::kScaling == Scaling::kFloatPairs) {
        store(out.products, s.scales * repeat_low(x));
        store(out.products + 8, s.high_scales * repeat_high(x));
        correction = fma(s.scales * centre, load(sums16), correction);
        return fma(s.high_scales * centre, load(sums16 + 8), correction);
    }
    const F32x8 products = s.scales * x;
    if constexpr (scales_float_pairs<W>()) {
        store(out.products, repeat_low(products) * low_f32(s.pair_scales));
        store(out.products + 8, repeat_high(products) * high_f32(s.pair_scales));
    } else {
        store(out.products, products);
    }
    if constexpr (W::kScaling == Scaling::kIntPairs) {
        if constexpr (W::kCentre != 0) {
            const F32x8 weighted =
                fma(low_f32(s.pair_scales), load(sums16), high_f32(s.pair_scales) * load(sums16 + 8));
            correction = fma(weighted, s.scales * centre, correction);
        }
        if constexpr (W::kOffsets)
            correction = fma(s.high_offsets, load(sums16 + 8), fma(s.offsets, load(sums16), correction));
    } else if constexpr (W::kOffsets || W::kCentre != 0) {
        const F32x8 offsets = !W::kOffsets      ? s.scales * centre
                              : W::kCentre == 0 ? s.offsets
                                                : fma(s.scales, centre, s.offsets);
        correction = fma(offsets, load(a.sums32 + group), correction);
    }
    return correction;
}

// 32 codes against 32 activations: sums of four neighbours, times their integer scale if they have one. An int16 holds
// a pair of products, 2 * kMaxCode * 127 at most.
template <class W, int G> inline I32x8 dot_eight_codes(EightCodes w, B8x32 activations, const EightProducts &p) {
    static_assert(2 * W::kMaxCode * 127 <= 32767);
    const B8x32 signed_activations = W::kMagnitudes ? apply_sign(activations, w.signs) : activations;
    if constexpr (kHasDotFours) {
        return dot_fours(zero_i32(), w.codes, signed_activations);
    } else {
        const I16x16 pairs = dot_pairs(w.codes, signed_activations);
        return dot_pairs(pairs, scales_integers<W>() ? splat_halves(p.pair_scales + 2 * G) : splat_i16(1));
    }
}

// Adds group G to the sum of the even or of the odd groups.
template <class W, int G> inline void add_eight_group(I32x8 dot, const EightProducts &p, F32x8 (&sums)[2]) {
    const F32x8 scale = scales_float_pairs<W>() ? splat_pair(p.products + 2 * G) : splat_load(p.products + G);
    sums[G % 2] = G < 2 ? to_f32(dot) * scale : fma(to_f32(dot), scale, sums[G % 2]);
}

constexpr int kEightPrefetchBytes = 2048;

template <class W> inline void prefetch_eight(const typename W::Block *blocks) {
    const auto *ahead = reinterpret_cast<const uint8_t *>(blocks) + kEightPrefetchBytes;
    for (size_t line = 0; line < sizeof(*blocks) * blocks_per_eight<W>(); line += 64)
        prefetch(ahead + line);
}

constexpr int kEightStreams = 4;

// Up to kEightStreams rows against one token, eight groups of each in turn.
template <class W>
[[gnu::noinline]] void dot_rows_eights(const typename W::Block *const *rows, int num_rows, int total_groups,
                                       const ActivationRow &a, F32x8 *results) {
    F32x8 acc[kEightStreams], correction[kEightStreams];
    for (int i = 0; i < num_rows; i++)
        acc[i] = correction[i] = zero_f32();
    typename W::Block padded[blocks_per_eight<W>()];
    for (int g = 0; g < total_groups; g += kGroupsPerBlock)
        for (int i = 0; i < num_rows; i++) {
            prefetch_eight<W>(rows[i] + g / W::kGroups);
            const auto *blocks = blocks_of_eight<W>(rows[i], g, total_groups, padded);
            EightProducts p;
            const EightScales scales = W::scales(blocks);
            correction[i] = multiply_eight_scales<W>(scales, a, g, p, correction[i]);
            if constexpr (scales_integers<W>())
                store_i16(p.pair_scales, scales.pair_scales);
            typename W::State state;
            W::prepare(blocks, state);
            F32x8 sums[2];
            unrolled<kGroupsPerBlock>([&]<int G>() QUIPU_INLINE {
                const B8x32 activations = load_b8(a.codes + (g + G) * kGroup);
                add_eight_group<W, G>(dot_eight_codes<W, G>(W::template codes<G>(blocks, state), activations, p), p,
                                      sums);
            });
            acc[i] = acc[i] + (sums[0] + sums[1]);
        }
    for (int i = 0; i < num_rows; i++)
        results[i] = acc[i] - correction[i];
}

// Several tokens: codes are taken apart once.
template <class W>
[[gnu::noinline]] void dot_row_eights(const typename W::Block *row, int total_groups, const ActivationRow *a,
                                      int num_tokens, F32x8 *results) {
    F32x8 acc[kMaxRowTokens], correction[kMaxRowTokens];
    for (int t = 0; t < num_tokens; t++)
        acc[t] = correction[t] = zero_f32();
    typename W::Block padded[blocks_per_eight<W>()];
    alignas(32) uint8_t codes[kGroupsPerBlock][kGroup], signs[kGroupsPerBlock][kGroup];
    for (int g = 0; g < total_groups; g += kGroupsPerBlock) {
        prefetch_eight<W>(row + g / W::kGroups);
        const auto *blocks = blocks_of_eight<W>(row, g, total_groups, padded);
        EightProducts p;
        const EightScales scales = W::scales(blocks);
        if constexpr (scales_integers<W>())
            store_i16(p.pair_scales, scales.pair_scales);
        typename W::State state;
        W::prepare(blocks, state);
        unrolled<kGroupsPerBlock>([&]<int G>() QUIPU_INLINE {
            const EightCodes here = W::template codes<G>(blocks, state);
            store_b8(codes[G], here.codes);
            if constexpr (W::kMagnitudes)
                store_b8(signs[G], here.signs);
        });
        for (int t = 0; t < num_tokens; t++) {
            correction[t] = multiply_eight_scales<W>(scales, a[t], g, p, correction[t]);
            F32x8 sums[2];
            unrolled<kGroupsPerBlock>([&]<int G>() QUIPU_INLINE {
                const B8x32 activations = load_b8(a[t].codes + (g + G) * kGroup);
                EightCodes here{load_b8(codes[G])};
                if constexpr (W::kMagnitudes)
                    here.signs = load_b8(signs[G]);
                add_eight_group<W, G>(dot_eight_codes<W, G>(here, activations, p), p, sums);
            });
            acc[t] = acc[t] + (sums[0] + sums[1]);
        }
    }
    for (int t = 0; t < num_tokens; t++)
        results[t] = acc[t] - correction[t];
}

template <class W>
void matvec_eights(const Matrix &w, int row_begin, int row_end, uint8_t *quantized, int num_tokens, float *out,
                   int64_t out_stride) {
    ActivationRow activations[kMaxRowTokens];
    for (int t = 0; t < num_tokens; t++)
        activations[t] = activation_row(quantized + t * activation_row_bytes(w.cols), w.cols);
    const int groups = w.cols / kGroup;
    const auto blocks = [&](int row) {
        return reinterpret_cast<const typename W::Block *>(w.data + row * w.row_bytes);
    };
    if (num_tokens > 1) {
        for (int row = row_begin; row < row_end; row++) {
            F32x8 results[kMaxRowTokens];
            dot_row_eights<W>(blocks(row), groups, activations, num_tokens, results);
            for (int t = 0; t < num_tokens; t++)
                out[t * out_stride + row] = sum(results[t]);
        }
        return;
    }
    const auto dot_rows = [&](int first, int stride, int num_rows) {
        const typename W::Block *rows[kEightStreams] = {};
        F32x8 results[kEightStreams];
        for (int i = 0; i < num_rows; i++)
            rows[i] = blocks(first + i * stride);
        dot_rows_eights<W>(rows, num_rows, groups, activations[0], results);
        for (int i = 0; i < num_rows; i++)
            out[first + i * stride] = sum(results[i]);
    };
    // Rows far apart make several streams: the hardware prefetcher starts anew on every page, and so starts overlap.
    const int stride = (row_end - row_begin) / kEightStreams, rest = row_begin + stride * kEightStreams;
    for (int i = 0; i < stride; i++)
        dot_rows(row_begin + i, stride, kEightStreams);
    dot_rows(rest, 1, row_end - rest);
}

} // namespace
} // namespace quipu::QUIPU_ISA
