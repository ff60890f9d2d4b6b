// Tile kernels on 512-bit registers: one register holds a step of 4 values of all 16 tokens of a panel, or one value of
// them in float. 24 sums stay in registers: 12 rows by two panels, or 24 rows by one. Shared by
// all sets with AVX-512.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

[[gnu::always_inline]] inline __m512i splat_word(const void *p) {
    int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

// An order barrier for the compiler's scheduler: without it, it keeps more sums at once than there are registers.
template <class V> [[gnu::always_inline]] inline V kept(V a) {
#ifndef QUIPU_EMULATED // where such a vector has no register
    asm volatile("" : "+v"(a));
#endif
    return a;
}

// Products of four codes with four activations, summed over `count` steps. Addresses are constant distances from two
// pointers. See sum_fours in ops/tiles_fours.inl for signed codes.
template <bool Signed, int R, int P>
[[gnu::always_inline]] inline void sum_wide(const uint8_t *codes, const int8_t *activations, int count,
                                            __m512i (&dots)[R][P]) {
    __m512i excess[P];
    unrolled<P>([&]<int J>() QUIPU_INLINE {
        excess[J] = _mm512_setzero_si512();
        unrolled<R>([&]<int I>() QUIPU_INLINE { dots[I][J] = _mm512_setzero_si512(); });
    });
#pragma GCC unroll 1
    for (int step = 0; step < count; step++, codes += 4, activations += 4 * kPanelTokens) {
        __m512i a[P];
        unrolled<P>([&]<int J>() QUIPU_INLINE {
            a[J] = _mm512_loadu_si512(activations + J * sizeof(ActivationPanel));
            if constexpr (Signed)
                excess[J] = kept(_mm512_dpbusd_epi32(excess[J], _mm512_set1_epi8(-128), a[J])); // 128, unsigned
        });
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const __m512i code = splat_word(codes + I * kBlock);
            unrolled<P>([&]<int J>() QUIPU_INLINE { dots[I][J] = kept(_mm512_dpbusd_epi32(dots[I][J], code, a[J])); });
        });
    }
    if constexpr (Signed)
        unrolled<P>([&]<int J>() QUIPU_INLINE {
            unrolled<R>([&]<int I>() QUIPU_INLINE { dots[I][J] = _mm512_sub_epi32(dots[I][J], excess[J]); });
        });
}

// c[panel][row][16] += products of groups [0, num_groups) - offsets . sums. A piece is what has one scale: a group, or
// half of one.
template <class K, int R, int P>
[[gnu::noinline]] void multiply_wide(const CodeTile &tile, int r, const ActivationPanel *panels, int num_groups,
                                     float *c) {
    constexpr int kPieces = K::kPairScales ? 2 : 1, kSteps = 8 / kPieces;
    for (int piece = 0; piece < num_groups * kPieces; piece++) {
        __m512i dots[R][P];
        const auto &codes = K::kSigned ? tile.unsigned_codes : tile.codes;
        sum_wide<K::kSigned, R, P>(&codes[r][4 * piece * kSteps], panels[0].codes[piece * kSteps][0], kSteps, dots);
        unrolled<P>([&]<int J>() QUIPU_INLINE {
            const ActivationPanel &panel = panels[J];
            const __m512 scales = _mm512_loadu_ps(panel.scales[piece / kPieces]);
            const __m512 sums = _mm512_loadu_ps(K::kPairScales ? panel.sums16[piece] : panel.sums32[piece / kPieces]);
            float *cj = c + J * kTileRows * kPanelTokens;
            unrolled<R>([&]<int I>() QUIPU_INLINE {
                const float scale =
                    K::kPairScales ? tile.pair_scales[r + I][piece] : tile.scales[r + I][piece / kPieces];
                float *ci = cj + I * kPanelTokens;
                __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[I][J]), scales);
                x = _mm512_fmadd_ps(x, _mm512_set1_ps(scale), _mm512_loadu_ps(ci));
                if constexpr (K::kOffsets)
                    x = _mm512_fnmadd_ps(_mm512_set1_ps(tile.offsets[r + I][piece]), sums, x);
                _mm512_storeu_ps(ci, x);
            });
        });
        keep_in_memory(); // c has no registers to live in
    }
}

// c[panel][R][16] += tile[R][kBlock] . panels.
template <int R, int P>
[[gnu::noinline]] void multiply_float_wide(const float *tile, const FloatPanel *panels, int size, float *c) {
    __m512 acc[R][P];
    unrolled<P>([&]<int J>() QUIPU_INLINE {
        unrolled<R>([&]<int I>() QUIPU_INLINE { acc[I][J] = _mm512_loadu_ps(c + (J * kTileRows + I) * kPanelTokens); });
    });
    for (int k = 0; k < size; k++) {
        __m512 x[P];
        unrolled<P>([&]<int J>() QUIPU_INLINE { x[J] = _mm512_loadu_ps(panels[J].values[k]); });
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const __m512 w = _mm512_set1_ps(tile[I * kBlock + k]);
            unrolled<P>([&]<int J>() QUIPU_INLINE { acc[I][J] = _mm512_fmadd_ps(w, x[J], acc[I][J]); });
        });
    }
    unrolled<P>([&]<int J>() QUIPU_INLINE {
        unrolled<R>([&]<int I>() QUIPU_INLINE { _mm512_storeu_ps(c + (J * kTileRows + I) * kPanelTokens, acc[I][J]); });
    });
}

// Calls f.template operator()<R, P>(row, panel) so that all rows meet all panels, two panels at a time.
template <class F> inline void for_wide_tiles(int num_rows, int num_panels, F f) {
    static_assert(kTileRows % 24 == 0);
    int p = 0;
    for (; p + 2 <= num_panels; p += 2)
        for (int r = 0; r < num_rows; r += 12)
            f.template operator()<12, 2>(r, p);
    if (p < num_panels)
        for (int r = 0; r < num_rows; r += 24)
            f.template operator()<24, 1>(r, p);
}

template <class K>
void multiply_wide_panels(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens,
                          int num_groups, float *c) {
    for_wide_tiles(num_rows, num_panels(num_tokens), [&]<int R, int P>(int r, int p) {
        multiply_wide<K, R, P>(tile, r, panels + p, num_groups, c + (p * kTileRows + r) * kPanelTokens);
    });
}

inline void multiply_wide_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens,
                                       int size, float *c) {
    for_wide_tiles(num_rows, num_panels(num_tokens), [&]<int R, int P>(int r, int p) {
        multiply_float_wide<R, P>(tile + r * kBlock, panels + p, size, c + (p * kTileRows + r) * kPanelTokens);
    });
}

} // namespace
} // namespace quipu::QUIPU_ISA
