// Tiles of formats read eight groups at a time, against panels of 16 tokens.
//
// Integer sums are exact. Bytes u = code + c (c: kCentre, or kMaxCode where signs come apart) are multiplied by
// activations a, |a| <= 127: a pair of products is at most 2 * 127 * max(u) <= 32767, so no product saturates. What is
// summed in int16 starts at minus c times the sum of its activations, so that it ends at the sum of code * a, which
// fits while 2 * depth * 127 * max|code| <= 32767. Sums in between may wrap: addition modulo 2^16 is exact all the
// same.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// Codes that reach 127 with a sign cannot be shifted to bytes that do not saturate: they multiply by magnitude and
// sign.
template <class W> constexpr bool keeps_signs() {
    return W::kMagnitudes && W::kMaxCode > 64;
}
template <class W> constexpr int tile_centre() {
    return keeps_signs<W>() ? 0 : W::kMagnitudes ? W::kMaxCode : W::kCentre;
}
// Steps of 4 values that an int16 can sum.
template <class W> constexpr int eights_depth() {
    constexpr int largest_byte = W::kMagnitudes && !keeps_signs<W>() ? 2 * W::kMaxCode : W::kMaxCode;
    static_assert(2 * 127 * largest_byte <= 32767);
    constexpr int largest = std::max(tile_centre<W>(), largest_byte - tile_centre<W>());
    constexpr int depth = 32767 / (2 * 127 * largest), most = W::kScaling == Scaling::kGroups ? 8 : 4;
    return depth >= most ? most : depth >= 4 ? 4 : depth >= 2 ? 2 : 1;
}

template <class W> void unpack_eights(const Matrix &w, int row_begin, int num_rows, int first_group, CodeTile &tile) {
    const int total_groups = w.cols / kGroup;
    typename W::Block padded[blocks_per_eight<W>()];
    for (int r = 0; r < num_rows; r++) {
        const auto *row = reinterpret_cast<const typename W::Block *>(w.data + (row_begin + r) * w.row_bytes);
        prefetch(reinterpret_cast<const uint8_t *>(row + first_group / W::kGroups) + 4 * w.row_bytes);
        const auto *blocks = blocks_of_eight<W>(row, first_group, total_groups, padded);
        const EightScales scales = W::scales(blocks);
        store(tile.scales[r], scales.scales);
        if constexpr (W::kScaling == Scaling::kFloatPairs) { // no offsets there
            store(tile.offsets[r], scales.scales);
            store(tile.offsets[r] + 8, scales.high_scales);
        }
        if constexpr (W::kScaling == Scaling::kIntPairs)
            store_i16(tile.pair_scales[r], scales.pair_scales);
        if constexpr (W::kOffsets) {
            store(tile.offsets[r], scales.offsets);
            if constexpr (W::kScaling == Scaling::kIntPairs)
                store(tile.offsets[r] + 8, scales.high_offsets);
        }
        typename W::State state;
        W::prepare(blocks, state);
        unrolled<kGroupsPerBlock>([&]<int G>() {
            const EightCodes here = W::template codes<G>(blocks, state);
            B8x32 codes = here.codes;
            if constexpr (W::kMagnitudes)
                codes = apply_sign(codes, here.signs);
            if constexpr (keeps_signs<W>())
                store_b8(&tile.magnitudes[r][G * kGroup], here.codes);
            else if constexpr (W::kMagnitudes)
                codes = codes + splat_b8(tile_centre<W>());
            store_b8(&tile.codes[r][G * kGroup], codes);
        });
    }
}

// What the kernels below need to know of a format: many formats share one.
template <int Depth, Scaling S> struct TileClass {
    static constexpr int kDepth = Depth, kPieces = 8 / Depth; // steps that an int16 sums, and their number in a group
    static constexpr Scaling kScaling = S;
};
template <class W> using TileClassOf = TileClass<eights_depth<W>(), W::kScaling>;

// Where the int16 sums of a panel start: per piece, for two vectors of tokens.
using Starts = int16_t[kBlock / 4][2][16];

template <class C>
[[gnu::noinline]] void start_sums(const ActivationPanel &panel, int num_groups, int centre, Starts &starts) {
    const B8x32 factor = splat_b8(static_cast<uint8_t>(centre));
    for (int piece = 0; piece < num_groups * C::kPieces; piece++) {
        I16x16 low = zero_i16(), high = zero_i16();
        for (int step = piece * C::kDepth; step < (piece + 1) * C::kDepth; step++) {
            low = low - dot_pairs(factor, load_b8(panel.codes[step][0]));
            high = high - dot_pairs(factor, load_b8(panel.codes[step][8]));
        }
        store_i16(starts[piece][0], low);
        store_i16(starts[piece][1], high);
    }
}

// Sums in int16 over one piece. All addresses are constant distances from the two pointers; `pinned` keeps the compiler
// from computing products before their turn, for which there are no registers.
template <class C, int R, int H>
QUIPU_INLINE inline void sum_piece(const uint8_t *codes, const int8_t *activations, const int16_t *starts,
                                   I16x16 (&acc)[R][2]) {
    const I16x16 start0 = load_i16(starts), start1 = load_i16(starts + 16);
    unrolled<R>([&]<int I>() QUIPU_INLINE {
        acc[I][0] = start0;
        acc[I][1] = start1;
    });
    unrolled<C::kDepth>([&]<int Step>() QUIPU_INLINE {
        const B8x32 a0 = load_b8(activations + 64 * Step), a1 = load_b8(activations + 64 * Step + (H == 2 ? 32 : 0));
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const B8x32 code = splat_4bytes(codes + I * kBlock + 4 * Step);
            acc[I][0] = pinned(acc[I][0] + dot_pairs(code, a0));
            if constexpr (H == 2)
                acc[I][1] = pinned(acc[I][1] + dot_pairs(code, a1));
        });
    });
}

// c[row][16] += dots times the scales of one group: the panel's and the rows'.
template <int R, int H>
QUIPU_INLINE inline void add_dots(const float *panel_scales, const float *row_scales, int row_stride,
                                  const I32x8 (&dots)[R][2], float *c) {
    const F32x8 s0 = load(panel_scales), s1 = load(panel_scales + 8);
    unrolled<R>([&]<int I>() QUIPU_INLINE {
        const F32x8 scale = splat_load(row_scales + I * row_stride);
        float *ci = c + I * kPanelTokens;
        store(ci, fma(to_f32(dots[I][0]) * s0, scale, load(ci)));
        if constexpr (H == 2)
            store(ci + 8, fma(to_f32(dots[I][1]) * s1, scale, load(ci + 8)));
    });
    keep_in_memory(); // c has no registers to live in
}

// dots += (or =) the products of one piece, summed in int16 and multiplied by the integer scales of the rows.
template <class C, int R, int H, bool kIsFirst>
QUIPU_INLINE inline void dot_piece(const uint8_t *codes, const int8_t *activations, const int16_t *starts,
                                   const int16_t *scales, I32x8 (&dots)[R][2]) {
    const auto factor = [&](int i) QUIPU_INLINE {
        return splat_i16(C::kScaling == Scaling::kIntPairs ? scales[i * 2 * kGroupsPerBlock] : int16_t(1));
    };
    const auto add = [](I32x8 &sum, I32x8 dot) QUIPU_INLINE { sum = pinned(kIsFirst ? dot : sum + dot); };
    if constexpr (C::kDepth > 2) {
        I16x16 acc[R][2];
        sum_piece<C, R, H>(codes, activations, starts, acc);
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            add(dots[I][0], dot_pairs(acc[I][0], factor(I)));
            if constexpr (H == 2)
                add(dots[I][1], dot_pairs(acc[I][1], factor(I)));
        });
    } else { // so short that int16 sums need no registers of their own: row after row
        static_assert(C::kDepth == 2);
        const B8x32 a0 = load_b8(activations), a1 = load_b8(activations + (H == 2 ? 32 : 0)),
                    b0 = load_b8(activations + 64), b1 = load_b8(activations + 64 + (H == 2 ? 32 : 0));
        unrolled<R>([&]<int I>() QUIPU_INLINE {
            const B8x32 first = splat_4bytes(codes + I * kBlock), second = splat_4bytes(codes + I * kBlock + 4);
            add(dots[I][0], dot_pairs((dot_pairs(first, a0) + load_i16(starts)) + dot_pairs(second, b0), factor(I)));
            if constexpr (H == 2)
                add(dots[I][1],
                    dot_pairs((dot_pairs(first, a1) + load_i16(starts + 16)) + dot_pairs(second, b1), factor(I)));
        });
    }
}

// c[row][16] += products of groups [0, num_groups).
template <class C, int R, int H>
[[gnu::noinline]] void multiply_eights(const CodeTile &tile, int r, const ActivationPanel &panel, const Starts &starts,
                                       int num_groups, float *c) {
    constexpr bool kFloatPairs = C::kScaling == Scaling::kFloatPairs;
    for (int g = 0; g < num_groups; g++) {
        I32x8 dots[R][2];
        unrolled<C::kPieces>([&]<int Piece>() QUIPU_INLINE {
            constexpr int half = Piece * 2 / C::kPieces;
            constexpr bool is_first = Piece == 0 || (kFloatPairs && 2 * Piece == C::kPieces);
            constexpr bool is_last = Piece == C::kPieces - 1 || (kFloatPairs && 2 * Piece + 2 == C::kPieces);
            dot_piece<C, R, H, is_first>(&tile.codes[r][g * kGroup + 4 * C::kDepth * Piece],
                                         panel.codes[g * 8 + C::kDepth * Piece][0], starts[g * C::kPieces + Piece][0],
                                         &tile.pair_scales[r][2 * g + half], dots);
            if constexpr (is_last)
                add_dots<R, H>(panel.scales[g], kFloatPairs ? &tile.offsets[r][2 * g + half] : &tile.scales[r][g],
                               kFloatPairs ? 2 * kGroupsPerBlock : kGroupsPerBlock, dots, c);
        });
    }
}

// The same for codes with signs, whose products fill an int16 at once: at most 2 * 127 * 127.
template <int R, int H>
[[gnu::noinline]] void multiply_signed_eights(const CodeTile &tile, int r, const ActivationPanel &panel, int num_groups,
                                              float *c) {
    const I16x16 one = splat_i16(1);
    for (int g = 0; g < num_groups; g++) {
        const uint8_t *codes = &tile.codes[r][g * kGroup], *magnitudes = &tile.magnitudes[r][g * kGroup];
        const int8_t *activations = panel.codes[g * 8][0];
        I32x8 dots[R][2];
        unrolled<8>([&]<int Step>() QUIPU_INLINE {
            const B8x32 a0 = load_b8(activations + 64 * Step),
                        a1 = load_b8(activations + 64 * Step + (H == 2 ? 32 : 0));
            unrolled<R>([&]<int I>() QUIPU_INLINE {
                const B8x32 code = splat_4bytes(codes + I * kBlock + 4 * Step),
                            magnitude = splat_4bytes(magnitudes + I * kBlock + 4 * Step);
                const auto add = [&](I32x8 &sum, B8x32 a) QUIPU_INLINE {
                    const I32x8 dot = dot_pairs(dot_pairs(magnitude, apply_sign(a, code)), one);
                    sum = pinned(Step == 0 ? dot : sum + dot);
                };
                add(dots[I][0], a0);
                if constexpr (H == 2)
                    add(dots[I][1], a1);
            });
        });
        add_dots<R, H>(panel.scales[g], &tile.scales[r][g], kGroupsPerBlock, dots, c);
    }
}

// c -= offsets . sums over `count` groups or halves of groups.
template <int R, int H>
[[gnu::noinline]] void subtract_eight_offsets(const CodeTile &tile, int r, const float (*sums)[kPanelTokens], int count,
                                              float *c) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() QUIPU_INLINE { acc[I][0] = acc[I][1] = zero_f32(); });
    for (int g = 0; g < count; g++) {
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
template <class W, int H>
inline void multiply_eights_panel(const CodeTile &tile, int num_rows, const ActivationPanel &panel, int num_groups,
                                  float *c) {
    using C = TileClassOf<W>;
    constexpr int kRows = 8 / H; // sums in vector registers, twice as many int16 as there are int32 beside them
    static_assert(kTileRows % kRows == 0);
    alignas(32) Starts starts;
    if constexpr (!keeps_signs<W>())
        start_sums<C>(panel, num_groups, tile_centre<W>(), starts);
    for (int r = 0; r < num_rows; r += kRows) {
        float *cr = c + r * kPanelTokens;
        prefetch_part(&panel + 1, r / kRows, kTileRows / kRows);
        if constexpr (keeps_signs<W>())
            multiply_signed_eights<kRows, H>(tile, r, panel, num_groups, cr);
        else
            multiply_eights<C, kRows, H>(tile, r, panel, starts, num_groups, cr);
        if constexpr (W::kOffsets && W::kScaling == Scaling::kIntPairs)
            subtract_eight_offsets<kRows, H>(tile, r, panel.sums16, 2 * num_groups, cr);
        else if constexpr (W::kOffsets)
            subtract_eight_offsets<kRows, H>(tile, r, panel.sums32, num_groups, cr);
    }
}

template <class W>
void matmul_tile_eights(const Matrix &w, int row_begin, int num_rows, const ActivationPanel *panels, int num_tokens,
                        float *c, CodeTile &tile) {
    const int total_groups = w.cols / kGroup, panels_per_block = num_panels(num_tokens);
    for (int first = 0; first < total_groups; first += kGroupsPerBlock) {
        const int groups = std::min(kGroupsPerBlock, total_groups - first);
        unpack_eights<W>(w, row_begin, num_rows, first, tile);
        for (int p = 0; p < panels_per_block; p++) {
            const ActivationPanel &panel = panels[(first / kGroupsPerBlock) * panels_per_block + p];
            float *cp = c + p * kTileRows * kPanelTokens;
            if (num_tokens - p * kPanelTokens > 8)
                multiply_eights_panel<W, 2>(tile, num_rows, panel, groups, cp);
            else
                multiply_eights_panel<W, 1>(tile, num_rows, panel, groups, cp);
        }
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
