// Tiles of formats with blocks of 256 values: 48 rows are taken apart once and meet panels of 16 tokens. Integers and
// the order of float sums are those of the row kernels (matvec_blocks.inl), and so are results, bit for bit.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

constexpr int kRowsAtOnce = 4; // int16 sums of 16 tokens, and what they need, fill the vector registers
static_assert(kTileRows % kRowsAtOnce == 0);
static_assert(sizeof(CodeRows<kTileRows>) <= kTileScratchBytes);

// Adds the products of Steps vectors of activations from `step` on, times the factors of the rows, to sums in memory.
// H: halves of the panel that hold tokens.
template <class C, int H, int Steps>
QUIPU_INLINE inline void add_tile_piece(const CodeRows<kTileRows> &rows, int r, const TokenPanel *panel, int step,
                                        I16x16 centre, const I16x16 (&factors)[kRowsAtOnce][2],
                                        I32x8 (&dots)[kRowsAtOnce][2]) {
    constexpr int width = 4; // values of a token in a vector
    if constexpr (C::kSigns) {
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a0 = load_b8(panel[0].codes[step + S]), a1 = load_b8(panel[H - 1].codes[step + S]);
            unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
                const B8x32 code = splat_4bytes(&rows.codes[r + I][(step + S) * width]),
                            magnitude = splat_4bytes(&rows.magnitudes[r + I][(step + S) * width]);
                dots[I][0] = pinned(dots[I][0] + dot_pairs(dot_pairs(magnitude, apply_sign(a0, code)), factors[I][0]));
                if constexpr (H == 2)
                    dots[I][1] =
                        pinned(dots[I][1] + dot_pairs(dot_pairs(magnitude, apply_sign(a1, code)), factors[I][1]));
            });
        });
    } else {
        I16x16 start[2], sums[kRowsAtOnce][2];
        if constexpr (C::kCentred)
            unrolled<H>([&]<int J>() QUIPU_INLINE { start[J] = start_of<8, Steps>(panel[J], step, centre); });
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a0 = pinned(load_b8(panel[0].codes[step + S]));
            const B8x32 a1 = H == 2 ? pinned(load_b8(panel[H - 1].codes[step + S])) : a0;
            unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
                const B8x32 code = splat_4bytes(&rows.codes[r + I][(step + S) * width]);
                const I16x16 p0 = pinned(dot_pairs(code, a0));
                const I16x16 p1 = H == 2 ? pinned(dot_pairs(code, a1)) : p0;
                if constexpr (S > 0 || C::kCentred) {
                    sums[I][0] = pinned((S == 0 ? start[0] : sums[I][0]) + p0);
                    if constexpr (H == 2)
                        sums[I][1] = pinned((S == 0 ? start[1] : sums[I][1]) + p1);
                } else {
                    sums[I][0] = p0;
                    sums[I][1] = p1;
                }
            });
        });
        unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
            unrolled<H>([&]<int J>() QUIPU_INLINE { dots[I][J] = dots[I][J] + dot_pairs(sums[I][J], factors[I][J]); });
        });
    }
}

// c[row][16] += a block of the rows from r on.
template <class C, int H>
[[gnu::noinline]] QUIPU_FLATTEN void add_tile_block(const CodeRows<kTileRows> &rows, int r, const TokenPanel *panel,
                                                    int byte_centre, float product_unit, float minimum_unit, float *c) {
    constexpr int shared = C::kHalves ? 4 : 8, steps = C::kSigns || C::kDepth > shared ? shared : C::kDepth;
    const I16x16 centre = splat_i16(static_cast<int16_t>(byte_centre));
    I32x8 dots[kRowsAtOnce][2];
    unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE { dots[I][0] = dots[I][1] = zero_i32(); });
    for (int g = 0; g < kGroupsPerBlock; g++)
        unrolled<8 / shared>([&]<int Part>() QUIPU_INLINE {
            I16x16 factors[kRowsAtOnce][2];
            unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
                const I16x16 scale = splat_i16(rows.scales[r + I][C::kHalves ? 2 * g + Part : g]);
                unrolled<H>([&]<int J>() QUIPU_INLINE {
                    factors[I][J] = multiply_rounded(scale, load_i16(panel[J].ratios[g]));
                });
            });
            unrolled<shared / steps>([&]<int Piece>() QUIPU_INLINE {
                add_tile_piece<C, H, steps>(rows, r, panel, g * 8 + Part * shared + Piece * steps, centre, factors,
                                            dots);
            });
            keep_in_memory();
        });
    unrolled<H>([&]<int J>() QUIPU_INLINE {
        const F32x8 scale = load(panel[J].block_scales), products = scale * splat(product_unit);
        unrolled<kRowsAtOnce>([&]<int I>() QUIPU_INLINE {
            float *ci = c + I * kPanelTokens + 8 * J;
            F32x8 sum = fma(to_f32(dots[I][J]) * products, splat_load(&rows.scale[r + I]), load(ci));
            if constexpr (C::kMinima)
                sum = add_minima<C>(rows, r + I, panel[J], scale * splat(-minimum_unit), sum);
            store(ci, sum);
        });
    });
}

template <class W>
void matmul_tile_blocks(const Matrix &w, int row_begin, int num_rows, const TokenPanel *panels, int num_tokens,
                        float *c, CodeRows<kTileRows> &tile) {
    using C = BlockClassOf<W>;
    const int panels_per_block = num_panels(num_tokens);
    for (int b = 0; b < w.cols / kBlock; b++) {
        for (int i = 0; i < num_rows; i++)
            unpack_block_row<W>(reinterpret_cast<const typename W::Block *>(w.data + (row_begin + i) * w.row_bytes)[b],
                                tile, i);
        for (int p = 0; p < panels_per_block; p++) {
            const TokenPanel *panel = panels + 2 * (int64_t(b) * panels_per_block + p);
            const auto add = num_tokens - p * kPanelTokens > 8 ? add_tile_block<C, 2> : add_tile_block<C, 1>;
            float *cp = c + p * kTileRows * kPanelTokens;
            for (int r = 0; r < num_rows; r += kRowsAtOnce) // past num_rows stale codes, which the caller ignores
                add(tile, r, panel, byte_centre<W>(), BlockUnits<W>::kProduct, BlockUnits<W>::kMinimum,
                    cp + r * kPanelTokens);
        }
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
