// The int8 tile kernels of sets without dot products of four: products of neighbours are summed in int16, only as deep
// as cannot overflow. Products of unsigned codes up to kMaxCode and |activation| <= 127 fit while 2 * kMaxCode * 127 *
// depth <= 32767, so the arithmetic is exact.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

static_assert(!kHasDotFours);

template <class W> constexpr int int16_depth() {
    constexpr int depth = 32767 / (2 * W::kMaxCode * 127);
    return W::kSigned ? 1 : depth >= 8 ? 8 : depth >= 4 ? 4 : depth >= 2 ? 2 : 1;
}

// One unpacked tile: kTileRows rows of 256 codes. Signed formats keep |code| beside the code. Codes of four rows are
// interleaved, [row / 4][256 / 4][4 rows][4 codes]: what one step of four rows reads lies in one cache line, and loads
// of distant lines do not meet in the same set of the first-level cache.
struct CodeTile {
    alignas(32) uint8_t codes[kTileRows][kBlock];
    alignas(32) uint8_t magnitudes[kTileRows][kBlock];
    alignas(32) float scales[kTileRows][kGroupsPerBlock];
    alignas(32) float offsets[kTileRows][2 * kGroupsPerBlock];
    alignas(32) int16_t pair_scales[kTileRows][2 * kGroupsPerBlock];
};
static_assert(sizeof(CodeTile) <= kTileScratchBytes);

constexpr int kInterleavedRows = 4;
static_assert(kTileRows % kInterleavedRows == 0);

// Where the four codes of row r at a step of four values lie.
inline const uint8_t *codes_at(const uint8_t (&codes)[kTileRows][kBlock], int r, int step) {
    return &codes[r / kInterleavedRows * kInterleavedRows][0] + 16 * step + 4 * (r % kInterleavedRows);
}

template <class W>
void unpack_codes(const Matrix &w, int row_begin, int num_rows, int first_group, int num_groups, CodeTile &tile) {
    using Block = typename W::Block;
    const int last_row = row_begin + num_rows - 1;
    for (int r = 0; r < num_rows; r += kInterleavedRows) {
        const Block *rows[kInterleavedRows]; // past the last row, the last once more
        unrolled<kInterleavedRows>([&]<int I>() {
            const int row = std::min(row_begin + r + I, last_row);
            rows[I] = reinterpret_cast<const Block *>(w.data + row * w.row_bytes) + first_group / W::kGroups;
            // The next 256 values of this row will be wanted when this tile has met all tokens.
            const auto *next = reinterpret_cast<const uint8_t *>(rows[I] + kGroupsPerBlock / W::kGroups);
            for (size_t line = 0; line < sizeof(Block) * (kGroupsPerBlock / W::kGroups); line += 64)
                prefetch(next + line);
            decode_groups<W>(rows[I], num_groups, tile.scales[r + I], tile.offsets[r + I]);
            if constexpr (W::kPairScales)
                for (int i = 0; i < 2 * kGroupsPerBlock; i++)
                    tile.pair_scales[r + I][i] = W::pair_scales(*rows[I])[i];
        });
        for (int b = 0; b * W::kGroups < num_groups; b++)
            unrolled<W::kGroups>([&]<int G>() {
                const B8x32 a = W::template codes<G>(rows[0][b]), e = W::template codes<G>(rows[1][b]),
                            i = W::template codes<G>(rows[2][b]), o = W::template codes<G>(rows[3][b]);
                const int step = (b * W::kGroups + G) * (kGroup / 4);
                store_interleaved(&tile.codes[r][0] + 16 * step, a, e, i, o);
                if constexpr (W::kSigned)
                    store_interleaved(&tile.magnitudes[r][0] + 16 * step, abs_b8(a), abs_b8(e), abs_b8(i), abs_b8(o));
            });
    }
}

// Kernels below work on R rows and the first 8 * H tokens of a panel, H = 1 or 2 vectors of tokens for each row. A
// panel that is at most half full is done with H = 1 and twice the rows. Arrays keep two vectors per row in both cases:
// in this form gcc 12 holds them in registers.

// Products of unsigned codes with activations, summed in int16 over Count steps of 4 values. `pinned` fixes the order
// of instructions: with products before sums in pairs both schedulers of a Zen 3 core get the same share of each kind,
// and no more than 15 vectors are alive.
template <int R, int H, int Count>
QUIPU_INLINE inline void sum_products(const CodeTile &tile, int r, const ActivationPanel &panel, int step,
                                      I16x16 (&acc)[R][2]) {
    unrolled<Count>([&]<int S>() {
        const B8x32 a0 = pinned(load_b8(panel.codes[step + S][0]));
        const B8x32 a1 = H == 2 ? pinned(load_b8(panel.codes[step + S][8])) : a0;
        unrolled<R>([&]<int I>() {
            const B8x32 code =
                splat_4bytes(codes_at(tile.codes, r, step + S) + (I / kInterleavedRows) * kInterleavedRows * kBlock +
                             4 * (I % kInterleavedRows));
            const I16x16 p0 = pinned(dot_pairs(code, a0));
            if constexpr (H == 2) {
                const I16x16 p1 = pinned(dot_pairs(code, a1));
                acc[I][0] = S == 0 ? p0 : pinned(acc[I][0] + p0);
                acc[I][1] = S == 0 ? p1 : pinned(acc[I][1] + p1);
            } else {
                acc[I][0] = S == 0 ? p0 : pinned(acc[I][0] + p0);
            }
        });
    });
}

// The same for signed codes, whose products fill an int16 at once and are widened step by step.
template <int R, int H, int Count>
QUIPU_INLINE inline void sum_signed_products(const CodeTile &tile, int r, const ActivationPanel &panel, int step,
                                             I32x8 (&dots)[R][2]) {
    const I16x16 one = splat_i16(1);
    unrolled<Count>([&]<int S>() {
        const B8x32 a0 = pinned(load_b8(panel.codes[step + S][0]));
        const B8x32 a1 = H == 2 ? pinned(load_b8(panel.codes[step + S][8])) : a0;
        unrolled<R>([&]<int I>() {
            constexpr int offset = (I / kInterleavedRows) * kInterleavedRows * kBlock + 4 * (I % kInterleavedRows);
            const B8x32 code = splat_4bytes(codes_at(tile.codes, r, step + S) + offset),
                        magnitude = splat_4bytes(codes_at(tile.magnitudes, r, step + S) + offset);
            const B8x32 s0 = pinned(apply_sign(a0, code));
            if constexpr (H == 2) {
                const B8x32 s1 = pinned(apply_sign(a1, code));
                const I16x16 p0 = pinned(dot_pairs(magnitude, s0)), p1 = pinned(dot_pairs(magnitude, s1));
                const I32x8 d0 = pinned(dot_pairs(p0, one)), d1 = pinned(dot_pairs(p1, one));
                dots[I][0] = S == 0 ? d0 : pinned(dots[I][0] + d0);
                dots[I][1] = S == 0 ? d1 : pinned(dots[I][1] + d1);
            } else {
                const I32x8 d0 = dot_pairs(dot_pairs(magnitude, s0), one);
                dots[I][0] = S == 0 ? d0 : pinned(dots[I][0] + d0);
            }
        });
    });
}

// The integer dot products of group g (32 values).
template <class W, int R, int H>
QUIPU_INLINE inline void group_dots(const CodeTile &tile, int r, const ActivationPanel &panel, int g,
                                    I32x8 (&dots)[R][2]) {
    constexpr int kDepth = int16_depth<W>();
    if constexpr (W::kSigned)
        return sum_signed_products<R, H, 8>(tile, r, panel, g * 8, dots);
    unrolled<8 / kDepth>([&]<int Piece>() {
        I16x16 acc[R][2];
        sum_products<R, H, kDepth>(tile, r, panel, g * 8 + Piece * kDepth, acc);
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
[[gnu::noinline]] QUIPU_FLATTEN void multiply_rows(const CodeTile &tile, int r, const ActivationPanel &panel,
                                                   int num_groups, float *c) {
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
    constexpr int kSums = int16_depth<W>() >= 8 || W::kSigned ? 8 : 4, kRows = kSums / H;
    static_assert(kTileRows % kRows == 0);
    for (int r = 0; r < num_rows; r += kRows) {
        float *cr = c + r * kPanelTokens;
        prefetch_part(&panel + 1, r / kRows, kTileRows / kRows);
        multiply_rows<W, kRows, H>(tile, r, panel, num_groups, cr);
        if constexpr (!W::kSigned)
            subtract_offsets<W, kRows, H>(tile, r, panel, num_groups, cr);
    }
}

template <class W>
void matmul_tile_groups(const Matrix &w, int row_begin, int num_rows, const ActivationPanel *panels, int num_tokens,
                        float *c, CodeTile &tile) {
    const int total_groups = w.cols / kGroup, panels_per_block = num_panels(num_tokens);
    for (int first = 0; first < total_groups; first += kGroupsPerBlock) {
        const int groups = std::min(kGroupsPerBlock, total_groups - first);
        unpack_codes<W>(w, row_begin, num_rows, first, groups, tile);
        for (int p = 0; p < panels_per_block; p++) {
            const ActivationPanel &panel = panels[(first / kGroupsPerBlock) * panels_per_block + p];
            float *cp = c + p * kTileRows * kPanelTokens;
            if (num_tokens - p * kPanelTokens > 8)
                multiply_panel<W, 2>(tile, num_rows, panel, groups, cp);
            else
                multiply_panel<W, 1>(tile, num_rows, panel, groups, cp);
        }
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA

#include "ops/matmul_eights.inl"

namespace quipu::QUIPU_ISA {
namespace {

template <class W>
void matmul_tile_int8(const Matrix &w, int row_begin, int num_rows, const Panels &panels, int num_tokens, float *c,
                      uint8_t *scratch) {
    if constexpr (sums_blocks<W>()) {
        auto *tile = reinterpret_cast<CodeRows *>(scratch);
        matmul_tile_blocks<W>(w, row_begin, num_rows, panels.tokens, num_tokens, c, tile);
    } else {
        auto &tile = *reinterpret_cast<CodeTile *>(scratch);
        if constexpr (reads_eights<W>())
            matmul_tile_eights<W>(w, row_begin, num_rows, panels.codes, num_tokens, c, tile);
        else
            matmul_tile_groups<W>(w, row_begin, num_rows, panels.codes, num_tokens, c, tile);
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
