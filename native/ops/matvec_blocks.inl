// Matrix times up to 8 tokens for formats with blocks of 256 values. A block is summed in integers, which is exact:
// codes times activations, times factors of 16 bits that stand for the integer scale of the weights and the ratio of
// the activations (see ActivationRow). Floats come once per block, in the same order for every number of tokens, and so
// each token's result has the same bits whatever the number of tokens beside it.
//
// A trait W says (see weights_eights.inl for codes):
//   value = scale * integer scale * (code - kCentre) - offset scale * minimum
// kHalves: integer scales, and minima if there are any (kMinima), are per 16 values, else per 32. kMaxScale and
// kMaxMinimum bound their magnitudes, kMaxLevel that of code - kCentre.
//   block_scales<Shift>(block)   integer scales shifted up, and both float scales. Not kHalves: the minima of the eight
//                                groups in the upper lanes
//   minima(block)                kHalves and kMinima: the minima, not shifted
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// How far integer scales are shifted up before ratios multiply them: the sums over a block must fit an int32.
template <class W> constexpr int factor_shift() {
    constexpr int64_t largest = INT32_MAX, largest_sum = 16 * 16 * 127; // of ratio sums, see ActivationRow
    int shift = 0;
    const auto fits = [&](int s) {
        return (int64_t(W::kHalves ? W::kMaxScale : std::max(W::kMaxScale, W::kMaxMinimum)) << s) <= 32767 &&
               (int64_t(kBlock) * 127 * W::kMaxLevel * W::kMaxScale << s) <= largest &&
               (W::kHalves || (8 * largest_sum * W::kMaxMinimum << s) <= largest);
    };
    while (fits(shift + 1))
        shift++;
    return shift;
}

template <class W> struct BlockUnits { // of the integer sums of products and of minima
    static constexpr int kShift = factor_shift<W>();
    static constexpr float kProduct = 1.0f / (1 << kShift);
    static constexpr float kMinimum = W::kHalves ? 1.0f / 16 : 1.0f / (8 << kShift);
};

template <class W, int G>
QUIPU_INLINE inline EightCodes codes_of(const typename W::Block *block, const typename W::State &state) {
    if constexpr (reads_eights<W>())
        return W::template codes<G>(block, state);
    else
        return EightCodes{.codes = W::template codes<G>(*block)};
}

template <class Block> inline void prefetch_ahead(const Block *block) {
    const auto *ahead = reinterpret_cast<const uint8_t *>(block) + 1024;
    for (size_t line = 0; line < sizeof(Block); line += 64)
        prefetch(ahead + line);
}

// Asks for one of `parts` equal parts of what is read next; so many loads at a time do not hold up the arithmetic.
template <class T> inline void prefetch_part(const T *next, int part, int parts) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(next);
    for (size_t line = sizeof(T) * part / parts / 64 * 64; line < sizeof(T) * (part + 1) / parts; line += 64)
        prefetch(bytes + line);
}

// Formats whose blocks are summed in integers.
template <class W> constexpr bool sums_blocks() {
    return requires { W::kMaxScale; };
}
static_assert(!sums_blocks<WeightsQ8_0>() && sums_blocks<WeightsQ6_K>()); // see has_block_rows

constexpr int trailing_zeros(int n) {
    return n % 2 ? 0 : 1 + trailing_zeros(n / 2);
}

// Minus kCentre times factors times the sums of codes, neighbours added.
template <class W> inline I32x8 centre_dots(I16x16 factors, I16x16 code_sums) {
    constexpr int zeros = trailing_zeros(W::kCentre), odd = W::kCentre >> zeros;
    static_assert(odd * 16 * 127 <= 32767);
    const I32x8 dots = dot_pairs(factors, odd == 1 ? code_sums : code_sums * splat_i16(odd));
    return zero_i32() - shift_left<zeros>(dots);
}

// What one block of a row and one token have in common besides codes.
struct BlockStart {
    F32x8 scale, minimum_scale;
    I32x8 dots, minima;
};
// Stores the factors of the codes, per 16 values or twice per 32.
template <class W>
QUIPU_INLINE inline BlockStart start_block(const typename W::Block &block, const ActivationRow &a, int number,
                                           int16_t *factors) {
    constexpr int shift = factor_shift<W>();
    const BlockScales scales = W::template block_scales<shift>(block);
    BlockStart start{scales.scale, scales.offset_scale, zero_i32(), zero_i32()};
    if constexpr (W::kHalves) {
        const int first = number * 2 * kGroupsPerBlock;
        const I16x16 f = multiply_rounded(scales.integers, load_i16(a.ratios16 + first));
        store_i16(factors, f);
        if constexpr (W::kCentre != 0)
            start.dots = centre_dots<W>(f, load_i16(a.code_sums16 + first));
        if constexpr (W::kMinima)
            start.minima = dot_pairs(W::minima(block), load_i16(a.ratio_sums16 + first));
    } else {
        static_assert(W::kCentre == 0);
        start.minima = factor_pairs(scales.integers, a.ratios32 + number * kGroupsPerBlock,
                                    a.ratio_sums32 + number * kGroupsPerBlock, factors);
    }
    return start;
}
template <class W> QUIPU_INLINE inline I16x16 factor_at(const int16_t *factors) {
    return W::kHalves ? splat_halves(factors) : splat_two(factors);
}

// Adds two groups of products times their factors.
template <class W, class Dots>
QUIPU_INLINE inline Dots add_two_groups(Dots dots, B8x32 codes0, B8x32 x0, B8x32 codes1, B8x32 x1,
                                        const int16_t *factors) {
    if constexpr (kHasScaledDots) {
        dots = add_scaled_dots(dots, codes0, x0, factors);
        return pinned(add_scaled_dots(dots, codes1, x1, factors + 2));
    } else {
        const I16x16 p0 = pinned(dot_pairs(codes0, x0)), p1 = pinned(dot_pairs(codes1, x1));
        const I32x8 d0 = pinned(dot_pairs(p0, factor_at<W>(factors))),
                    d1 = pinned(dot_pairs(p1, factor_at<W>(factors + 2)));
        return pinned((dots + d0) + d1);
    }
}

// Four rows against one token, block by block. Rows go in step, two groups at a time, so that activations are loaded
// once. `pinned` keeps the compiler from loading ahead what has no register; pairs of equal instructions give both
// schedulers of a Zen 3 core the same share of each kind.
template <class W>
[[gnu::noinline]] QUIPU_FLATTEN void multiply_block_rows(const typename W::Block *const (&rows)[kRowStreams],
                                                         int num_rows, int num_blocks, const ActivationRow &a,
                                                         float *out, int64_t row_stride) {
    static_assert(kRowStreams == 4);
    F32x8 sums = zero_f32(); // of row I in lane I
    for (int b = 0; b < num_blocks; b++) {
        alignas(32) int16_t factors[kRowStreams][2 * kGroupsPerBlock];
        typename W::State states[kRowStreams];
        F32x8 scales[kRowStreams], minimum_scales[kRowStreams];
        I32x8 dots[kRowStreams], minima[kRowStreams];
        unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
            prefetch_ahead(rows[I] + b);
            const BlockStart start = start_block<W>(rows[I][b], a, b, factors[I]);
            scales[I] = start.scale;
            minimum_scales[I] = start.minimum_scale;
            dots[I] = start.dots;
            minima[I] = start.minima;
            W::prepare(rows[I] + b, states[I]);
        });
        keep_in_memory();
        const int8_t *activations = a.codes + b * kBlock;
        unrolled<kGroupsPerBlock / 2>([&]<int Pair>() QUIPU_INLINE {
            constexpr int U = 2 * Pair, V = U + 1;
            const B8x32 a0 = pinned(load_b8(activations + U * kGroup)), a1 = pinned(load_b8(activations + V * kGroup));
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const EightCodes c0 = codes_of<W, U>(rows[I] + b, states[I]);
                const B8x32 x0 = W::kMagnitudes ? apply_sign(a0, c0.signs) : a0;
                const EightCodes c1 = codes_of<W, V>(rows[I] + b, states[I]);
                const B8x32 x1 = W::kMagnitudes ? apply_sign(a1, c1.signs) : a1;
                dots[I] = add_two_groups<W>(dots[I], c0.codes, x0, c1.codes, x1, factors[I] + 2 * U);
            });
        });
        const F32x8 scale = splat_load(a.block_scales + b);
        const F32x8 products =
            to_f32(sums_of(dots[0], dots[1], dots[2], dots[3])) * (scale * splat(BlockUnits<W>::kProduct));
        sums = fma(products, first_lanes(scales[0], scales[1], scales[2], scales[3]), sums);
        if constexpr (W::kMinima) {
            const F32x8 offsets =
                to_f32(sums_of(minima[0], minima[1], minima[2], minima[3])) * (scale * splat(-BlockUnits<W>::kMinimum));
            sums = fma(offsets, first_lanes(minimum_scales[0], minimum_scales[1], minimum_scales[2], minimum_scales[3]),
                       sums);
        }
    }
    alignas(32) float results[8];
    store(results, sums);
    for (int i = 0; i < num_rows; i++)
        out[i * row_stride] = results[i];
}

} // namespace
} // namespace quipu::QUIPU_ISA

#include "ops/matvec_tokens.inl"

#include "ops/matmul_blocks.inl"

namespace quipu::QUIPU_ISA {
namespace {

template <class W>
void matvec_blocks(const Matrix &w, int row_begin, int row_end, uint8_t *quantized, const TokenPanel *panels,
                   int num_tokens, float *out, int64_t out_stride, float *scratch) {
    const int num_blocks = w.cols / kBlock;
    const ActivationRow activations = activation_row(quantized, w.cols);
    if (num_tokens > 1 && !panels) {
        ActivationRow rows[kMaxBlockTokens];
        for (int t = 0; t < num_tokens; t++)
            rows[t] = activation_row(quantized + t * activation_row_bytes(w.cols), w.cols);
        pack_tokens(rows, num_tokens, w.cols, token_lanes(num_tokens), aligned_panels(scratch),
                    token_panels(num_tokens));
        panels = aligned_panels(scratch);
    }
    // Past the last of them, the first row stands in.
    const auto multiply = [&](int first, int64_t stride, int num_rows) {
        const typename W::Block *rows[kRowStreams];
        for (int i = 0; i < kRowStreams; i++)
            rows[i] = reinterpret_cast<const typename W::Block *>(w.data + (first + (i < num_rows ? i : 0) * stride) *
                                                                               w.row_bytes);
        if (num_tokens == 1)
            multiply_block_rows<W>(rows, num_rows, num_blocks, activations, out + first, stride);
        else
            multiply_block_tokens<W>(rows, num_rows, num_blocks, panels, num_tokens, out + first, stride, out_stride);
    };
    // One stream gets two thirds of what a core can read, because the hardware prefetcher starts anew on every page.
    // Rows far apart make several streams, whose starts overlap.
    const int stride = (row_end - row_begin) / kRowStreams, rest = row_begin + stride * kRowStreams;
    for (int i = 0; i < stride; i++)
        multiply(row_begin + i, stride, kRowStreams);
    if (rest < row_end)
        multiply(rest, 1, row_end - rest);
}

} // namespace
} // namespace quipu::QUIPU_ISA
