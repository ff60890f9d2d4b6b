// The tile kernels of set avx512bf16: those of avx512, but for tiles whose weights all are bfloat16 numbers.
#pragma once

#include "simd/avx512/panels.inl"

namespace quipu::QUIPU_ISA {
namespace {

template <class K>
void multiply_tile(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                   float *c) {
    multiply_wide_panels<K>(tile, num_rows, panels, num_tokens, num_groups, c);
}

// 256 values of 16 tokens, two neighbours along K in each 32-bit lane.
struct HalfPanel {
    alignas(64) uint16_t values[kBlock / 2][kPanelTokens][2];
};
// Weights of one tile, neighbours along K side by side.
struct HalfTile {
    alignas(64) uint16_t values[kTileRows][kBlock];
};

// Rounds a panel to nearest; values past `size` become zero.
inline void round_panel(const FloatPanel &panel, int size, HalfPanel &out) {
    // Lane i of the low half and lane i of the high half become neighbours.
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int k = 0; k < size; k += 2) {
        const __m512 even = _mm512_loadu_ps(panel.values[k]);
        const __m512 odd = k + 1 < size ? _mm512_loadu_ps(panel.values[k + 1]) : _mm512_setzero_ps();
        const __m512i both = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
        _mm512_store_si512(out.values[k / 2], _mm512_permutexvar_epi16(order, both));
    }
}

// The upper halves of the weights; false if a lower half has a bit, when the weights are no bfloat16 numbers.
inline bool shorten_tile(const float *tile, int num_rows, int size, HalfTile &out) {
    __m512i rest = _mm512_setzero_si512();
    for (int r = 0; r < num_rows; r++)
        for (int k = 0; k < size; k += 16) {
            const __mmask16 valid = static_cast<__mmask16>((1u << std::min(16, size - k)) - 1);
            const __m512i bits = _mm512_maskz_loadu_epi32(valid, tile + r * kBlock + k);
            rest = _mm512_or_si512(rest, bits);
            _mm256_store_si256(reinterpret_cast<__m256i *>(&out.values[r][k]),
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
        }
    return _mm512_test_epi32_mask(rest, _mm512_set1_epi32(0xFFFF)) == 0;
}

template <int R, int P>
[[gnu::noinline]] void multiply_half_wide(const HalfTile &tile, int r, const HalfPanel *panels, int size, float *c) {
    const uint16_t *weights = tile.values[r], *activations = panels[0].values[0][0];
    __m512 acc[R][P];
    unrolled<P>([&]<int J>() QUIPU_INLINE {
        unrolled<R>([&]<int I>() QUIPU_INLINE { acc[I][J] = _mm512_loadu_ps(c + (J * kTileRows + I) * kPanelTokens); });
    });
    for (int k = 0; k < size; k += 2, weights += 2, activations += 2 * kPanelTokens) {
        __m512bh x[P];
        unrolled<P>([&]<int J>() QUIPU_INLINE {
            x[J] = std::bit_cast<__m512bh>(_mm512_load_si512(activations + J * sizeof(HalfPanel) / 2));
        });
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const auto w = std::bit_cast<__m512bh>(splat_word(weights + I * kBlock));
            unrolled<P>([&]<int J>() QUIPU_INLINE { acc[I][J] = _mm512_dpbf16_ps(acc[I][J], w, x[J]); });
        });
    }
    unrolled<P>([&]<int J>() QUIPU_INLINE {
        unrolled<R>([&]<int I>() QUIPU_INLINE { _mm512_storeu_ps(c + (J * kTileRows + I) * kPanelTokens, acc[I][J]); });
    });
}

void multiply_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens, int size,
                           float *c, uint8_t *scratch) {
    struct Scratch {
        HalfTile tile;
        HalfPanel panels[2];
    };
    static_assert(kTileRows * kBlock * sizeof(float) + sizeof(Scratch) <= kTileScratchBytes);
    Scratch &half = *reinterpret_cast<Scratch *>(scratch);
    if (!shorten_tile(tile, num_rows, size, half.tile))
        return multiply_wide_float_panels(tile, num_rows, panels, num_tokens, size, c);
    for (int p = 0; p < num_panels(num_tokens); p += 2, c += 2 * kTileRows * kPanelTokens) {
        const int pair = std::min(2, num_panels(num_tokens) - p);
        for (int j = 0; j < pair; j++)
            round_panel(panels[p + j], size, half.panels[j]);
        for_wide_tiles(num_rows, pair, [&]<int R, int P>(int r, int) {
            multiply_half_wide<R, P>(half.tile, r, half.panels, size, c + r * kPanelTokens);
        });
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
