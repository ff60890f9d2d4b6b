// Matrix times many tokens: a tile of weight rows is unpacked once and meets panels of 16 tokens held in vector lanes.
// Integer arithmetic is exact: products of unsigned codes below kMaxCode and |activation| <= 127 are summed in int16
// only as deep as cannot overflow, 2 * kMaxCode * 127 * depth <= 32767.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

template <class W> constexpr int int16_depth() {
    constexpr int depth = 32767 / (2 * W::kMaxCode * 127);
    return W::kSigned ? 1 : depth >= 8 ? 8 : depth >= 4 ? 4 : depth >= 2 ? 2 : 1;
}

// One unpacked tile: kTileRows rows of 256 codes. Signed formats keep beside them what dot products take as their
// unsigned side: |code|, or code + 128 where four products are summed at once. Scales of 16 values are small integers,
// or whole scales where four products are summed at once.
struct CodeTile {
    using PairScale = std::conditional_t<kHasDotFours, float, int16_t>;
    alignas(32) uint8_t codes[kTileRows][kBlock];
    alignas(32) uint8_t unsigned_codes[kTileRows][kBlock];
    alignas(32) float scales[kTileRows][kGroupsPerBlock];
    alignas(32) float offsets[kTileRows][2 * kGroupsPerBlock];
    alignas(32) PairScale pair_scales[kTileRows][2 * kGroupsPerBlock];
};
static_assert(sizeof(CodeTile) <= kTileScratchBytes);

template <class W>
void unpack_codes(const Matrix &w, int row_begin, int num_rows, int first_group, int num_groups, CodeTile &tile) {
    for (int r = 0; r < num_rows; r++) {
        const auto *blocks = reinterpret_cast<const typename W::Block *>(w.data + (row_begin + r) * w.row_bytes) +
                             first_group / W::kGroups;
        prefetch(reinterpret_cast<const uint8_t *>(blocks) + 4 * w.row_bytes);
        decode_groups<W>(blocks, num_groups, tile.scales[r], tile.offsets[r]);
        for (int b = 0; b * W::kGroups < num_groups; b++) {
            unrolled<W::kGroups>([&]<int G>() {
                const int g = b * W::kGroups + G;
                const B8x32 codes = W::template codes<G>(blocks[b]);
                store_b8(&tile.codes[r][g * kGroup], codes);
                if constexpr (W::kSigned)
                    store_b8(&tile.unsigned_codes[r][g * kGroup], unsigned_codes(codes));
            });
            if constexpr (W::kPairScales)
                for (int i = 0; i < 2 * kGroupsPerBlock; i++)
                    tile.pair_scales[r][i] =
                        CodeTile::PairScale((kHasDotFours ? tile.scales[r][i / 2] : 1) * W::pair_scales(blocks[b])[i]);
        }
    }
}

// What kernels that sum four products at once need to know of a tile. Many formats share one.
template <bool Signed, bool PairScales, bool Offsets> struct TileKind {
    static constexpr bool kSigned = Signed, kPairScales = PairScales, kOffsets = Offsets;
};
template <class W> using TileKindOf = TileKind<W::kSigned, W::kPairScales, !W::kSigned>;

#ifdef QUIPU_TILES // a set with kernels of its own has multiply_tile there
#include QUIPU_TILES
#else

// Kernels below work on R rows and the first 8 * H tokens of a panel, H = 1 or 2 vectors of tokens for each row. A
// panel that is at most half full is done with H = 1 and twice the rows. Arrays keep two vectors per row in both cases:
// in this form gcc 12 holds them in registers.

// Products of unsigned codes with activations, summed in int16 over `count` steps of 4 values. `pinned` keeps the
// compiler from computing all products before the first sum, which needs more registers than there are.
template <int R, int H>
[[gnu::always_inline]] inline void sum_products(const CodeTile &tile, int r, const ActivationPanel &panel, int step,
                                                int count, I16x16 (&acc)[R][2]) {
    unrolled<R>([&]<int I>() { acc[I][0] = acc[I][1] = zero_i16(); });
#pragma GCC unroll 1
    for (const int end = step + count; step < end; step++) {
        const B8x32 a0 = load_b8(panel.codes[step][0]), a1 = load_b8(panel.codes[step][H == 2 ? 8 : 0]);
        unrolled<R>([&]<int I>() {
            const B8x32 code = splat_4bytes(&tile.codes[r + I][4 * step]);
            acc[I][0] = pinned(acc[I][0] + dot_pairs(code, a0));
            if constexpr (H == 2)
                acc[I][1] = pinned(acc[I][1] + dot_pairs(code, a1));
        });
    }
}

// The same for signed codes, whose products fill an int16 at once and are widened step by step.
template <int R, int H>
[[gnu::always_inline]] inline void sum_signed_products(const CodeTile &tile, int r, const ActivationPanel &panel,
                                                       int step, int count, I32x8 (&dots)[R][2]) {
    unrolled<R>([&]<int I>() { dots[I][0] = dots[I][1] = zero_i32(); });
    const I16x16 one = splat_i16(1);
#pragma GCC unroll 1
    for (const int end = step + count; step < end; step++) {
        const B8x32 a0 = load_b8(panel.codes[step][0]), a1 = load_b8(panel.codes[step][H == 2 ? 8 : 0]);
        unrolled<R>([&]<int I>() {
            const B8x32 code = splat_4bytes(&tile.codes[r + I][4 * step]),
                        magnitude = splat_4bytes(&tile.unsigned_codes[r + I][4 * step]);
            dots[I][0] = pinned(dots[I][0] + dot_pairs(dot_pairs(magnitude, apply_sign(a0, code)), one));
            if constexpr (H == 2)
                dots[I][1] = pinned(dots[I][1] + dot_pairs(dot_pairs(magnitude, apply_sign(a1, code)), one));
        });
    }
}

// The integer dot products of group g (32 values).
template <class W, int R, int H>
[[gnu::always_inline]] inline void group_dots(const CodeTile &tile, int r, const ActivationPanel &panel, int g,
                                              I32x8 (&dots)[R][2]) {
    constexpr int kDepth = int16_depth<W>();
    if constexpr (W::kSigned)
        return sum_signed_products<R, H>(tile, r, panel, g * 8, 8, dots);
    unrolled<8 / kDepth>([&]<int Piece>() {
        I16x16 acc[R][2];
        sum_products<R, H>(tile, r, panel, g * 8 + Piece * kDepth, kDepth, acc);
        unrolled<R>([&]<int I>() {
            const I16x16 factor =
                splat_i16(W::kPairScales ? tile.pair_scales[r + I][2 * g + Piece * kDepth / 4] : int16_t(1));
            unrolled<H>([&]<int J>() {
                const I32x8 dot = dot_pairs(acc[I][J], factor);
                dots[I][J] = Piece == 0 ? dot : dots[I][J] + dot;
            });
        });
    });
}

// c[row][16] += products of groups [0, num_groups).
template <class W, int R, int H>
[[gnu::noinline]] void multiply_rows(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                     float *c) {
    for (int g = 0; g < num_groups; g++) {
        I32x8 dots[R][2];
        group_dots<W, R, H>(tile, r, panel, g, dots);
        const F32x8 s0 = load(panel.scales[g]), s1 = load(panel.scales[g] + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 scale = splat_load(&tile.scales[r + I][g]);
            float *ci = c + I * kPanelTokens;
            store(ci, fma(to_f32(dots[I][0]) * s0, scale, load(ci)));
            if constexpr (H == 2)
                store(ci + 8, fma(to_f32(dots[I][1]) * s1, scale, load(ci + 8)));
        });
        keep_in_memory(); // c has no registers to live in
    }
}

// Four products at a time, summed over `count` steps in int32: |sum| <= 32 * 255 * 128 at most. Signed codes come as
// code + 128 where the set cannot multiply them as they are; 128 times the activations then goes off again.
template <bool Signed, int R, int H>
[[gnu::always_inline]] inline void sum_fours(const uint8_t *codes, const int8_t *activations, int count,
                                             I32x8 (&dots)[R][2]) {
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

// c[row][16] += products of groups [0, num_groups), for sets that sum four products at once.
template <class K, int R, int H>
[[gnu::noinline]] void multiply_rows_by_fours(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                              float *c) {
    constexpr int kPieces = K::kPairScales ? 2 : 1, kSteps = 8 / kPieces;
    for (int piece = 0; piece < num_groups * kPieces; piece++) {
        I32x8 dots[R][2];
        const auto &codes = K::kSigned && !kDotsSignedCodes ? tile.unsigned_codes : tile.codes;
        sum_fours<K::kSigned, R, H>(&codes[r][4 * piece * kSteps], panel.codes[piece * kSteps][0], kSteps, dots);
        const float *activation_scales = panel.scales[piece / kPieces];
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const F32x8 scale =
                splat_load(K::kPairScales ? reinterpret_cast<const float *>(&tile.pair_scales[r + I][piece])
                                          : &tile.scales[r + I][piece]);
            unrolled<H>([&]<int J>() QUIPU_INLINE {
                float *ci = c + I * kPanelTokens + 8 * J;
                store(ci, fma(to_f32(dots[I][J]) * load(activation_scales + 8 * J), scale, load(ci)));
            });
        });
        keep_in_memory(); // c has no registers to live in
    }
}

// c -= offsets . sums, for formats whose codes are shifted.
template <class W, int R, int H>
[[gnu::noinline]] void subtract_offsets(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                        float *c) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() { acc[I][0] = acc[I][1] = zero_f32(); });
    const float (*sums)[kPanelTokens] = W::kPairScales ? panel.sums16 : panel.sums32;
    const int n = W::kPairScales ? 2 * num_groups : num_groups;
    for (int g = 0; g < n; g++) {
        const F32x8 s0 = load(sums[g]), s1 = load(sums[g] + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 offset = splat_load(&tile.offsets[r + I][g]);
            acc[I][0] = fma(offset, s0, acc[I][0]);
            if constexpr (H == 2)
                acc[I][1] = fma(offset, s1, acc[I][1]);
        });
    }
    unrolled<R>([&]<int I>() {
        float *ci = c + I * kPanelTokens;
        store(ci, load(ci) - acc[I][0]);
        if constexpr (H == 2)
            store(ci + 8, load(ci + 8) - acc[I][1]);
    });
}

// All rows of a tile against one panel. Rows past num_rows in the last step multiply stale codes; the caller ignores
// them.
template <class W, int H>
inline void multiply_panel(const CodeTile &tile, int num_rows, const ActivationPanel &panel, int num_groups, float *c) {
    // What fits 16 vector registers: eight sums where they are int16 throughout, else four int16 and four int32.
    constexpr int kSums = kHasDotFours || int16_depth<W>() >= 8 || W::kSigned ? 8 : 4, kRows = kSums / H;
    static_assert(kTileRows % kRows == 0);
    for (int r = 0; r < num_rows; r += kRows) {
        float *cr = c + r * kPanelTokens;
        if constexpr (kHasDotFours)
            multiply_rows_by_fours<TileKindOf<W>, kRows, H>(tile, r, panel, num_groups, cr);
        else
            multiply_rows<W, kRows, H>(tile, r, panel, num_groups, cr);
        if constexpr (!W::kSigned)
            subtract_offsets<W, kRows, H>(tile, r, panel, num_groups, cr);
    }
}

#endif // QUIPU_TILES

// All rows of a tile against the panels of num_tokens tokens. c: [panel][kTileRows][16].
template <class W>
void multiply_panels(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                     float *c) {
#ifdef QUIPU_TILES
    multiply_tile<TileKindOf<W>>(tile, num_rows, panels, num_tokens, num_groups, c);
#else
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens)
        if (num_tokens - p * kPanelTokens > 8)
            multiply_panel<W, 2>(tile, num_rows, panels[p], num_groups, c);
        else
            multiply_panel<W, 1>(tile, num_rows, panels[p], num_groups, c);
#endif
}

#ifndef QUIPU_FLOAT_TILES // defined by sets whose QUIPU_TILES has multiply_float_panels too
// c[R][16] += w[R][kBlock] . panel, all in floats.
template <int R, int H>
inline void multiply_float_rows(const float *tile, const FloatPanel &panel, int size, float *c) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() {
        acc[I][0] = load(c + I * kPanelTokens);
        acc[I][1] = load(c + I * kPanelTokens + 8);
    });
    for (int k = 0; k < size; k++) {
        const F32x8 x0 = load(panel.values[k]), x1 = load(panel.values[k] + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 wi = splat_load(tile + I * kBlock + k);
            acc[I][0] = fma(wi, x0, acc[I][0]);
            if constexpr (H == 2)
                acc[I][1] = fma(wi, x1, acc[I][1]);
        });
    }
    unrolled<R>([&]<int I>() {
        store(c + I * kPanelTokens, acc[I][0]);
        if constexpr (H == 2)
            store(c + I * kPanelTokens + 8, acc[I][1]);
    });
}

// The same for a tile of floats, [kTileRows][kBlock], of which the first `size` columns count.
void multiply_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens, int size,
                           float *c, uint8_t * /*scratch*/) {
    constexpr int kRows = 6; // 12 sums in vector registers
    static_assert(kTileRows % (2 * kRows) == 0);
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens)
        if (num_tokens - p * kPanelTokens > 8)
            for (int r = 0; r < num_rows; r += kRows)
                multiply_float_rows<kRows, 2>(tile + r * kBlock, panels[p], size, c + r * kPanelTokens);
        else
            for (int r = 0; r < num_rows; r += 2 * kRows)
                multiply_float_rows<2 * kRows, 1>(tile + r * kBlock, panels[p], size, c + r * kPanelTokens);
}

#endif

template <class W>
void matmul_tile_int8(const Matrix &w, int row_begin, int num_rows, const ActivationPanel *panels, int num_tokens,
                      float *c, CodeTile &tile) {
    const int total_groups = w.cols / kGroup;
    for (int first = 0; first < total_groups; first += kGroupsPerBlock, panels += num_panels(num_tokens)) {
        const int groups = std::min(kGroupsPerBlock, total_groups - first);
        unpack_codes<W>(w, row_begin, num_rows, first, groups, tile);
        multiply_panels<W>(tile, num_rows, panels, num_tokens, groups, c);
    }
}

template <class Load> inline void convert_half(const uint16_t *w, float *out, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        store(out + i, Load::vector(w + i));
    for (; i < n; i++)
        out[i] = Load::one(w[i]);
}

// 256 values of each row as floats. Formats with blocks below 256 values reach here at any multiple of their block.
void unpack_floats(const Matrix &w, int row_begin, int num_rows, int first, int size, float *tile) {
    for (int r = 0; r < num_rows; r++) {
        const uint8_t *row = w.data + (row_begin + r) * w.row_bytes;
        float *out = tile + r * kBlock;
        if (w.type == kF32) {
            std::memcpy(out, row + first * sizeof(float), size * sizeof(float));
        } else if (w.type == kF16) {
            convert_half<LoadF16>(reinterpret_cast<const uint16_t *>(row) + first, out, size);
        } else if (w.type == kBF16) {
            convert_half<LoadBf16>(reinterpret_cast<const uint16_t *>(row) + first, out, size);
        } else {
            const Format &format = *find_format(w.type);
            format.unpack(row + int64_t(first / format.block_size) * format.block_bytes, out, size / format.block_size);
        }
    }
}

void matmul_tile_float(const Matrix &w, int row_begin, int num_rows, const FloatPanel *panels, int num_tokens, float *c,
                       uint8_t *scratch) {
    float *tile = reinterpret_cast<float *>(scratch);
    for (int first = 0; first < w.cols; first += kBlock, panels += num_panels(num_tokens)) {
        const int size = std::min(kBlock, w.cols - first);
        unpack_floats(w, row_begin, num_rows, first, size, tile);
        multiply_float_panels(tile, num_rows, panels, num_tokens, size, c,
                              scratch + kTileRows * kBlock * sizeof(float));
    }
}

void matmul_tile(const Matrix &w, int row_begin, int num_rows, const ActivationPanel *panels,
                 const FloatPanel *float_panels, int num_tokens, float *c, uint8_t *scratch) {
    std::memset(c, 0, sizeof(float) * num_panels(num_tokens) * kTileRows * kPanelTokens);
    if (!runs_on_int8(w.type))
        return matmul_tile_float(w, row_begin, num_rows, float_panels, num_tokens, c, scratch);
    with_int8_weights(w.type, [&]<class W>(W) {
        matmul_tile_int8<W>(w, row_begin, num_rows, panels, num_tokens, c, *reinterpret_cast<CodeTile *>(scratch));
    });
}

} // namespace
} // namespace quipu::QUIPU_ISA
