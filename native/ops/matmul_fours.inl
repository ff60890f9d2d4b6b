// The int8 tile kernels of sets that sum four products at once, in 32 bits: no sum overflows, so all formats are
// unpacked into one kind of tile and share its kernels, which the file named by QUIPU_TILES has.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

static_assert(kHasDotFours);

// One unpacked tile: kTileRows rows of 256 codes, each with one scale per 32 or per 16 values. Signed codes are also
// kept as code + 128, where the set's dot products take one side unsigned.
struct CodeTile {
    alignas(64) uint8_t codes[kTileRows][kBlock];
    alignas(64) uint8_t unsigned_codes[kTileRows][kBlock];
    alignas(64) float scales[kTileRows][kGroupsPerBlock];
    alignas(64) float offsets[kTileRows][2 * kGroupsPerBlock];
    alignas(64) float pair_scales[kTileRows][2 * kGroupsPerBlock];
};
static_assert(sizeof(CodeTile) <= kTileScratchBytes);

// What the kernels need to know of a tile: whether codes are signed, whether scales are per 16 values, and whether
// offsets (per scale) are subtracted.
template <bool Signed, bool PairScales, bool Offsets> struct TileKind {
    static constexpr bool kSigned = Signed, kPairScales = PairScales, kOffsets = Offsets;
};

// What a trait says of it. Formats read in eights: codes with signs apart or with a centre become signed codes.
template <class W, bool = reads_eights<W>()> struct TileKindOf : TileKind<W::kSigned, W::kPairScales, !W::kSigned> {};
template <class W>
struct TileKindOf<W, true> : TileKind<W::kMagnitudes || W::kCentre != 0, W::kScaling != Scaling::kGroups, W::kOffsets> {
};

template <class K> inline void store_codes(CodeTile &tile, int row, int group, B8x32 codes) {
    store_b8(&tile.codes[row][group * kGroup], codes);
    if constexpr (K::kSigned && !kDotsSignedCodes)
        store_b8(&tile.unsigned_codes[row][group * kGroup], codes ^ splat_b8(128)); // code + 128
}

// One row of formats read group by group.
template <class W> void unpack_row(const typename W::Block *blocks, int num_groups, CodeTile &tile, int row) {
    decode_groups<W>(blocks, num_groups, tile.scales[row], tile.offsets[row]);
    if constexpr (W::kPairScales) {
        static_assert(W::kGroups == kGroupsPerBlock);
        for (int i = 0; i < 2 * kGroupsPerBlock; i++)
            tile.pair_scales[row][i] = tile.scales[row][i / 2] * W::pair_scales(*blocks)[i];
    }
    for (int b = 0; b * W::kGroups < num_groups; b++)
        unrolled<W::kGroups>([&]<int G>() {
            store_codes<TileKindOf<W>>(tile, row, b * W::kGroups + G, W::template codes<G>(blocks[b]));
        });
}

// One row of formats read in eights.
template <class W> void unpack_eight(const typename W::Block *blocks, CodeTile &tile, int row) {
    const EightScales s = W::scales(blocks);
    if constexpr (W::kScaling == Scaling::kGroups) {
        store(tile.scales[row], s.scales);
    } else if constexpr (W::kScaling == Scaling::kIntPairs) {
        store(tile.pair_scales[row], repeat_low(s.scales) * low_f32(s.pair_scales));
        store(tile.pair_scales[row] + 8, repeat_high(s.scales) * high_f32(s.pair_scales));
    } else {
        store(tile.pair_scales[row], s.scales);
        store(tile.pair_scales[row] + 8, s.high_scales);
    }
    if constexpr (W::kOffsets) {
        store(tile.offsets[row], s.offsets);
        if constexpr (W::kScaling == Scaling::kIntPairs)
            store(tile.offsets[row] + 8, s.high_offsets);
    }
    typename W::State state;
    W::prepare(blocks, state);
    unrolled<kGroupsPerBlock>([&]<int G>() {
        const EightCodes here = W::template codes<G>(blocks, state);
        B8x32 codes = here.codes;
        if constexpr (W::kMagnitudes)
            codes = apply_sign(codes, here.signs);
        else if constexpr (W::kCentre != 0)
            codes = codes - splat_b8(W::kCentre);
        store_codes<TileKindOf<W>>(tile, row, G, codes);
    });
}

// Groups [first_group, first_group + 8) of rows, as far as there are.
template <class W> void unpack_tile(const Matrix &w, int row_begin, int num_rows, int first_group, CodeTile &tile) {
    using Block = typename W::Block;
    static_assert(TileKindOf<W>::kSigned || W::kMaxCode <= 127); // unsigned codes are the same read as signed ones
    const int total_groups = w.cols / kGroup;
    for (int r = 0; r < num_rows; r++) {
        const auto *row = reinterpret_cast<const Block *>(w.data + (row_begin + r) * w.row_bytes);
        // The next 256 values of this row will be wanted when this tile has met all tokens.
        const auto *next = reinterpret_cast<const uint8_t *>(row + (first_group + kGroupsPerBlock) / W::kGroups);
        for (size_t line = 0; line < sizeof(Block) * (kGroupsPerBlock / W::kGroups); line += 64)
            prefetch(next + line);
        if constexpr (reads_eights<W>()) {
            Block padded[blocks_per_eight<W>()];
            unpack_eight<W>(blocks_of_eight<W>(row, first_group, total_groups, padded), tile, r);
        } else {
            unpack_row<W>(row + first_group / W::kGroups, std::min(kGroupsPerBlock, total_groups - first_group), tile,
                          r);
        }
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA

#include QUIPU_TILES

namespace quipu::QUIPU_ISA {
namespace {

template <class W>
void matmul_tile_int8(const Matrix &w, int row_begin, int num_rows, const Panels &all_panels, int num_tokens, float *c,
                      uint8_t *scratch) {
    auto &tile = *reinterpret_cast<CodeTile *>(scratch);
    const ActivationPanel *panels = all_panels.codes;
    using K = TileKindOf<W>;
    const int total_groups = w.cols / kGroup;
    for (int first = 0; first < total_groups; first += kGroupsPerBlock, panels += num_panels(num_tokens)) {
        unpack_tile<W>(w, row_begin, num_rows, first, tile);
        multiply_tile<TileKind<K::kSigned, K::kPairScales, K::kOffsets>>(
            tile, num_rows, panels, num_tokens, std::min(kGroupsPerBlock, total_groups - first), c);
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
