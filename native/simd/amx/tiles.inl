// The tile kernels of set amx: 16 rows by the 16 tokens of one panel in each matrix product. A panel of codes is laid
// out as the right side of such a product already, a tile of codes as the left side. Needs kernels of 5 or more tokens
// to pay: a product takes the same time however few of its columns are used.
#pragma once

#include "simd/avx512/panels.inl"

namespace quipu::QUIPU_ISA {
namespace {

constexpr int kMatrixRows = 16;
static_assert(kTileRows % kMatrixRows == 0);

// Shapes of the matrix registers, as ldtilecfg reads them.
struct alignas(64) MatrixShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int index, int num_rows, int num_row_bytes) {
        rows[index] = static_cast<uint8_t>(num_rows);
        row_bytes[index] = static_cast<uint16_t>(num_row_bytes);
    }
};
static_assert(sizeof(MatrixShapes) == 64);

} // namespace
} // namespace quipu::QUIPU_ISA

#ifndef QUIPU_MATRIX_INSTRUCTIONS // native tests have them in plain C++ too
#define QUIPU_MATRIX_INSTRUCTIONS "simd/amx/instructions.inl"
#endif
#include QUIPU_MATRIX_INSTRUCTIONS

namespace quipu::QUIPU_ISA {
namespace {

using MatrixSums = int32_t[kMatrixRows][kPanelTokens];

// The integer products of 16 rows with a panel over one piece of K, through matrix registers 3 * Set to 3 * Set + 2.
template <class K, int Set>
inline void multiply_piece(const CodeTile &tile, int r, const ActivationPanel &panel, int piece, int steps,
                           MatrixSums &sums) {
    constexpr int kSums = 3 * Set, kWeights = kSums + 1, kActivations = kSums + 2;
    zero_matrix<kSums>();
    load_matrix<kWeights>(&tile.codes[r][4 * steps * piece], kBlock);
    load_matrix<kActivations>(panel.codes[steps * piece], sizeof(panel.codes[0]));
    if constexpr (K::kSigned)
        multiply_signed<kSums, kWeights, kActivations>();
    else
        multiply_unsigned<kSums, kWeights, kActivations>();
    store_matrix<kSums>(sums, sizeof(sums[0]));
}

// acc += sums * scales - offsets . sums of activations.
template <class K>
[[gnu::always_inline]] inline void add_piece(const CodeTile &tile, int r, const ActivationPanel &panel, int piece,
                                             int group, const MatrixSums &sums, __m512 (&acc)[kMatrixRows]) {
    const __m512 scales = _mm512_loadu_ps(panel.scales[group]);
    const __m512 shifts = _mm512_loadu_ps(K::kPairScales ? panel.sums16[piece] : panel.sums32[group]);
    unrolled<kMatrixRows>([&]<int I>() QUIPU_INLINE {
        const float scale = K::kPairScales ? tile.pair_scales[r + I][piece] : tile.scales[r + I][group];
        const __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[I])), scales);
        acc[I] = _mm512_fmadd_ps(x, _mm512_set1_ps(scale), acc[I]);
        if constexpr (K::kOffsets)
            acc[I] = _mm512_fnmadd_ps(_mm512_set1_ps(tile.offsets[r + I][piece]), shifts, acc[I]);
    });
}

// c[16][16] += products of 16 rows with one panel. Float sums stay in registers; while they take up the products of one
// piece, the matrix unit works on the next.
template <class K>
[[gnu::noinline]] void multiply_matrix(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                       float *c) {
    constexpr int kPieces = K::kPairScales ? 2 : 1, kSteps = 8 / kPieces;
    alignas(64) MatrixSums sums[2];
    __m512 acc[kMatrixRows];
    unrolled<kMatrixRows>([&]<int I>() QUIPU_INLINE { acc[I] = _mm512_loadu_ps(c + I * kPanelTokens); });
    const int pieces = num_groups * kPieces;
    for (int piece = 0; piece < pieces; piece += 2) {
        multiply_piece<K, 0>(tile, r, panel, piece, kSteps, sums[0]);
        if (piece + 1 < pieces)
            multiply_piece<K, 1>(tile, r, panel, piece + 1, kSteps, sums[1]);
        add_piece<K>(tile, r, panel, piece, piece / kPieces, sums[0], acc);
        if (piece + 1 < pieces)
            add_piece<K>(tile, r, panel, piece + 1, (piece + 1) / kPieces, sums[1], acc);
    }
    unrolled<kMatrixRows>([&]<int I>() QUIPU_INLINE { _mm512_storeu_ps(c + I * kPanelTokens, acc[I]); });
}

template <class K>
void multiply_tile(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                   float *c) {
    constexpr int kSteps = K::kPairScales ? 4 : 8; // of four values, with one scale
    MatrixShapes shapes;
    for (int set = 0; set < 2; set++) {
        shapes.set(3 * set, kMatrixRows, 64);
        shapes.set(3 * set + 1, kMatrixRows, 4 * kSteps);
        shapes.set(3 * set + 2, kSteps, 64);
    }
    const MatrixUnit unit(shapes);
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens)
        for (int r = 0; r < num_rows; r += kMatrixRows)
            multiply_matrix<K>(tile, r, panels[p], num_groups, c + r * kPanelTokens);
}

// --- floats as sums of bfloat16 --------------------------------------------------------------------------------------
// A float's 24 significant bits are three bfloat16 numbers of 8: x = x0 + x1 + x2, exactly. Of the nine products of two
// such sums the six of order 2^-16 and above are kept, so that the result is as good as float arithmetic; bfloat16
// weights have one part and F16 weights two. (An infinite value gives NaN: its remainder is infinity minus infinity.)
constexpr int kParts = 3;
constexpr int kMatrixDepth = 32; // values along K of one product

struct SplitPanel {
    alignas(64) uint16_t values[kParts][kBlock / 2][kPanelTokens][2]; // neighbours along K in each 32-bit lane
};
struct SplitTile {
    alignas(64) uint16_t values[kParts][kTileRows][kBlock];
    int num_parts; // that are not all zero
};

// The upper 8 significant bits of each x, cut off x.
inline __m512i take_part(__m512 &x) {
    const __m512i part = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(part));
    return part;
}

// `size` values, zeros up to the next whole product.
inline void split_panel(const FloatPanel &panel, int size, SplitPanel &out) {
    for (int k = 0; k < round_up(size, kMatrixDepth); k += 2) {
        __m512 even = k < size ? _mm512_loadu_ps(panel.values[k]) : _mm512_setzero_ps();
        __m512 odd = k + 1 < size ? _mm512_loadu_ps(panel.values[k + 1]) : _mm512_setzero_ps();
        for (int part = 0; part < kParts; part++) {
            const __m512i low = _mm512_srli_epi32(take_part(even), 16), high = take_part(odd);
            _mm512_store_si512(out.values[part][k / 2], _mm512_or_si512(low, high));
        }
    }
}

inline void split_tile(const float *tile, int num_rows, int size, SplitTile &out) {
    __m512i seen[kParts] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int r = 0; r < round_up(num_rows, kMatrixRows); r++)
        for (int k = 0; k < round_up(size, kMatrixDepth); k += 16) {
            const int count = r < num_rows ? std::clamp(size - k, 0, 16) : 0;
            __m512 x = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), tile + r * kBlock + k);
            for (int part = 0; part < kParts; part++) {
                const __m512i bits = take_part(x);
                seen[part] = _mm512_or_si512(seen[part], bits);
                _mm256_store_si256(reinterpret_cast<__m256i *>(&out.values[part][r][k]),
                                   _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
            }
        }
    const auto any = [&](int part) { return _mm512_test_epi32_mask(seen[part], seen[part]) != 0; };
    out.num_parts = any(2) ? 3 : any(1) ? 2 : 1;
}

// c[16][16] += 16 rows . panel. The smallest products come first.
inline void multiply_split(const SplitTile &tile, int r, const SplitPanel &panel, int size, float *c) {
    load_matrix<0>(c, kPanelTokens * sizeof(float));
    for (int order = kParts - 1; order >= 0; order--)
        for (int part = 0; part <= std::min(order, tile.num_parts - 1); part++)
            for (int k = 0; k < size; k += kMatrixDepth) {
                load_matrix<1>(&tile.values[part][r][k], sizeof(tile.values[0][0]));
                load_matrix<2>(panel.values[order - part][k / 2], sizeof(panel.values[0][0]));
                multiply_bf16<0, 1, 2>();
            }
    store_matrix<0>(c, kPanelTokens * sizeof(float));
}

void multiply_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens, int size,
                           float *c, uint8_t *scratch) {
    struct Scratch {
        SplitTile tile;
        SplitPanel panel;
    };
    static_assert(kTileRows * kBlock * sizeof(float) + sizeof(Scratch) <= kTileScratchBytes);
    Scratch &split = *reinterpret_cast<Scratch *>(scratch);
    split_tile(tile, num_rows, size, split.tile);
    MatrixShapes shapes;
    for (int index = 0; index < 3; index++)
        shapes.set(index, 16, 64);
    const MatrixUnit unit(shapes);
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens) {
        split_panel(panels[p], size, split.panel);
        for (int r = 0; r < num_rows; r += kMatrixRows)
            multiply_split(split.tile, r, split.panel, size, c + r * kPanelTokens);
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
