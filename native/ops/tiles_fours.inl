// Tile kernels for sets whose vectors have 8 lanes and sum four products at once: R rows and the first 8 * H tokens of
// a panel, H = 1 or 2 vectors of tokens for each row. A panel that is at most half full is done with H = 1 and twice
// the rows. Arrays keep two vectors per row in both cases: in this form gcc 12 holds them in registers.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// Products summed over `count` steps of four values: |sum| <= 32 * 255 * 128 at most. Signed codes come as code + 128
// where the set cannot multiply them as they are; 128 times the activations then goes off again.
template <bool Signed, int R, int H>
QUIPU_INLINE inline void sum_fours(const uint8_t *codes, const int8_t *activations, int count, I32x8 (&dots)[R][2]) {
    constexpr bool kBiased = Signed && !kDotsSignedCodes;
    I32x8 excess[2] = {zero_i32(), zero_i32()};
    unrolled<R>([&]<int I>() QUIPU_INLINE { dots[I][0] = dots[I][1] = zero_i32(); });
#pragma GCC unroll 1
    for (int step = 0; step < count; step++, codes += 4, activations += 4 * kPanelTokens) {
        const B8x32 a[2] = {load_b8(activations), load_b8(activations + (H == 2 ? 32 : 0))};
        if constexpr (kBiased)
            unrolled<H>([&]<int J>() QUIPU_INLINE { excess[J] = pinned(dot_fours(excess[J], splat_b8(128), a[J])); });
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const B8x32 code = splat_4bytes(codes + I * kBlock);
            unrolled<H>([&]<int J>() QUIPU_INLINE { dots[I][J] = pinned(dot_fours(dots[I][J], code, a[J])); });
        });
    }
    if constexpr (kBiased)
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            unrolled<H>([&]<int J>() QUIPU_INLINE { dots[I][J] = dots[I][J] - excess[J]; });
        });
}

// c[row][16] += products of groups [0, num_groups).
template <class K, int R, int H>
[[gnu::noinline]] void multiply_rows(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                     float *c) {
    constexpr int kPieces = K::kPairScales ? 2 : 1, kSteps = 8 / kPieces; // pieces that have one scale
    for (int piece = 0; piece < num_groups * kPieces; piece++) {
        I32x8 dots[R][2];
        const auto &codes = K::kSigned && !kDotsSignedCodes ? tile.unsigned_codes : tile.codes;
        sum_fours<K::kSigned, R, H>(&codes[r][4 * piece * kSteps], panel.codes[piece * kSteps][0], kSteps, dots);
        const float *activation_scales = panel.scales[piece / kPieces];
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const F32x8 scale =
                splat_load(K::kPairScales ? &tile.pair_scales[r + I][piece] : &tile.scales[r + I][piece]);
            unrolled<H>([&]<int J>() QUIPU_INLINE {
                float *ci = c + I * kPanelTokens + 8 * J;
                store(ci, fma(to_f32(dots[I][J]) * load(activation_scales + 8 * J), scale, load(ci)));
            });
        });
        keep_in_memory(); // c has no registers to live in
    }
}

// c -= offsets . sums of activations.
template <class K, int R, int H>
[[gnu::noinline]] void subtract_offsets(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                        float *c) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() QUIPU_INLINE { acc[I][0] = acc[I][1] = zero_f32(); });
    const float (*sums)[kPanelTokens] = K::kPairScales ? panel.sums16 : panel.sums32;
    const int n = K::kPairScales ? 2 * num_groups : num_groups;
    for (int g = 0; g < n; g++) {
        const F32x8 s0 = load(sums[g]), s1 = load(sums[g] + 8);
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const F32x8 offset = splat_load(&tile.offsets[r + I][g]);
            acc[I][0] = fma(offset, s0, acc[I][0]);
            if constexpr (H == 2)
                acc[I][1] = fma(offset, s1, acc[I][1]);
        });
    }
    unrolled<R>([&]<int I>() QUIPU_INLINE {
        float *ci = c + I * kPanelTokens;
        store(ci, load(ci) - acc[I][0]);
        if constexpr (H == 2)
            store(ci + 8, load(ci + 8) - acc[I][1]);
    });
}

// All rows of a tile against one panel. Rows past num_rows in the last step multiply stale codes; the caller ignores
// them.
template <class K, int H>
inline void multiply_panel(const CodeTile &tile, int num_rows, const ActivationPanel &panel, int num_groups, float *c) {
    constexpr int kRows = 8 / H; // eight sums in 16 vector registers
    static_assert(kTileRows % kRows == 0);
    for (int r = 0; r < num_rows; r += kRows) {
        float *cr = c + r * kPanelTokens;
        multiply_rows<K, kRows, H>(tile, r, panel, num_groups, cr);
        if constexpr (K::kOffsets)
            subtract_offsets<K, kRows, H>(tile, r, panel, num_groups, cr);
    }
}

// All rows of a tile against the panels of num_tokens tokens. c: [panel][kTileRows][16].
template <class K>
void multiply_tile(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                   float *c) {
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens)
        if (num_tokens - p * kPanelTokens > 8)
            multiply_panel<K, 2>(tile, num_rows, panels[p], num_groups, c);
        else
            multiply_panel<K, 1>(tile, num_rows, panels[p], num_groups, c);
}

} // namespace
} // namespace quipu::QUIPU_ISA
