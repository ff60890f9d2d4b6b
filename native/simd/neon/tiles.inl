// Tile kernels of the NEON sets with dot products: 8 rows by 8 tokens, half a panel, in 16 of 32 registers.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

constexpr int kTileTokens = 8; // half a panel
constexpr int kRowsAtOnce = 8;
static_assert(kTileRows % kRowsAtOnce == 0 && kTileRows % 12 == 0);

// Integer products of a row with tokens 0-3 and 4-7.
using RowDots = int32x4_t[kRowsAtOnce][2];

#ifdef __ARM_FEATURE_MATMUL_INT8
// An instruction multiplies 2 rows x 8 codes with 8 codes x 2 tokens. Panels hold 4 codes of a token side by side, so
// that two steps, zipped, are what it takes; sums are apart by row again at the end.
[[gnu::always_inline]] inline void sum_products(const CodeTile &tile, int r, const ActivationPanel &panel, int token,
                                                int step, int count, RowDots &dots) {
    constexpr int kPairs = kRowsAtOnce / 2;
    int32x4_t acc[kPairs][4]; // rows 2 * i and 2 * i + 1 by tokens 2 * j and 2 * j + 1
    unrolled<kPairs * 4>([&]<int I>() QUIPU_INLINE { acc[I / 4][I % 4] = vdupq_n_s32(0); });
#pragma GCC unroll 1
    for (const int end = step + count; step < end; step += 2) {
        const auto load_step = [&](int s, int t) { return vreinterpretq_s32_s8(vld1q_s8(panel.codes[s][token + t])); };
        int8x16_t a[4];
        unrolled<2>([&]<int Half>() QUIPU_INLINE {
            const int32x4_t first = load_step(step, 4 * Half), second = load_step(step + 1, 4 * Half);
            a[2 * Half] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
            a[2 * Half + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
        });
        unrolled<kPairs>([&]<int I>() QUIPU_INLINE {
            const auto row = [&](int i) {
                return vld1_s8(reinterpret_cast<const int8_t *>(&tile.codes[r + i][4 * step]));
            };
            const int8x16_t codes = vcombine_s8(row(2 * I), row(2 * I + 1));
            unrolled<4>([&]<int J>() QUIPU_INLINE { acc[I][J] = vmmlaq_s32(acc[I][J], codes, a[J]); });
        });
    }
    unrolled<kPairs * 2>([&]<int I>() QUIPU_INLINE {
        constexpr int kPair = I / 2, kHalf = I % 2;
        const int64x2_t first = vreinterpretq_s64_s32(acc[kPair][2 * kHalf]),
                        second = vreinterpretq_s64_s32(acc[kPair][2 * kHalf + 1]);
        dots[2 * kPair][kHalf] = vreinterpretq_s32_s64(vzip1q_s64(first, second));
        dots[2 * kPair + 1][kHalf] = vreinterpretq_s32_s64(vzip2q_s64(first, second));
    });
}
#else
// 16 codes of a row serve four steps, a lane each.
[[gnu::always_inline]] inline void sum_products(const CodeTile &tile, int r, const ActivationPanel &panel, int token,
                                                int step, int count, RowDots &dots) {
    unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE { dots[I][0] = dots[I][1] = vdupq_n_s32(0); });
#pragma GCC unroll 1
    for (const int end = step + count; step < end; step += 4) {
        int8x16_t codes[kRowsAtOnce];
        unrolled<kRowsAtOnce>([&]<int I>()
                                  QUIPU_INLINE { codes[I] = as_signed(vld1q_u8(&tile.codes[r + I][4 * step])); });
        unrolled<4>([&]<int Lane>() QUIPU_INLINE {
            const int8x16_t a0 = vld1q_s8(panel.codes[step + Lane][token]),
                            a1 = vld1q_s8(panel.codes[step + Lane][token + 4]);
            unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
                dots[I][0] = vdotq_laneq_s32(dots[I][0], a0, codes[I], Lane);
                dots[I][1] = vdotq_laneq_s32(dots[I][1], a1, codes[I], Lane);
            });
        });
    }
}
#endif

// c[8 rows][16] += products of 8 tokens over groups [0, num_groups) - offsets . sums. A piece is what has one scale: a
// group, or half of one.
template <class K>
[[gnu::noinline]] void multiply_half_panel(const CodeTile &tile, int r, const ActivationPanel &panel, int token,
                                           int num_groups, float *c) {
    constexpr int kPieces = K::kPairScales ? 2 : 1, kSteps = 8 / kPieces;
    for (int piece = 0; piece < num_groups * kPieces; piece++) {
        RowDots dots;
        sum_products(tile, r, panel, token, piece * kSteps, kSteps, dots);
        const float *scales = panel.scales[piece / kPieces] + token;
        const float *sums = (K::kPairScales ? panel.sums16[piece] : panel.sums32[piece / kPieces]) + token;
        unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
            const float scale = K::kPairScales ? tile.pair_scales[r + I][piece] : tile.scales[r + I][piece / kPieces];
            unrolled<2>([&]<int J>() QUIPU_INLINE {
                float *ci = c + I * kPanelTokens + 4 * J;
                const float32x4_t x = vmulq_f32(vcvtq_f32_s32(dots[I][J]), vld1q_f32(scales + 4 * J));
                float32x4_t sum = vfmaq_n_f32(vld1q_f32(ci), x, scale);
                if constexpr (K::kOffsets)
                    sum = vfmsq_n_f32(sum, vld1q_f32(sums + 4 * J), tile.offsets[r + I][piece]);
                vst1q_f32(ci, sum);
            });
        });
        keep_in_memory(); // c has no registers to live in
    }
}

template <class K>
void multiply_tile(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                   float *c) {
    for (int first = 0; first < num_tokens; first += kTileTokens) {
        const int p = first / kPanelTokens, token = first % kPanelTokens;
        float *cp = c + p * kTileRows * kPanelTokens + token;
        for (int r = 0; r < num_rows; r += kRowsAtOnce)
            multiply_half_panel<K>(tile, r, panels[p], token, num_groups, cp + r * kPanelTokens);
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
