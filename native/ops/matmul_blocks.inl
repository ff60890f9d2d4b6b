// Tiles of formats with blocks of 256 values: 48 rows are taken apart once and meet panels of 16 tokens. Integers and
// the order of float sums are those of the row kernels (matvec_blocks.inl), and so are results, bit for bit.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// int16 sums of four rows and 16 tokens, and what they need, fill the vector registers.
static_assert(kTileRows % kRowStreams == 0);
static_assert(sizeof(CodeRows) * (kTileRows / kRowStreams) <= kTileScratchBytes);

// Adds the products of Steps vectors of activations from `step` on, times the factors of the rows, to sums in memory.
// H: halves of the panel that hold tokens.
template <class C, int H, int Steps>
QUIPU_INLINE inline void add_tile_piece(const CodeRows &rows, const TokenPanel *panel, int step, I16x16 centre,
                                        const I16x16 (&factors)[kRowStreams][2], I32x8 (&dots)[kRowStreams][2]) {
    constexpr int width = 4; // values of a token in a vector
    if constexpr (C::kSigns) {
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a0 = load_b8(panel[0].codes[step + S]), a1 = load_b8(panel[H - 1].codes[step + S]);
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const B8x32 code = splat_4bytes(&rows.codes[I][(step + S) * width]),
                            magnitude = splat_4bytes(&rows.magnitudes[I][(step + S) * width]);
                dots[I][0] = pinned(dots[I][0] + dot_pairs(dot_pairs(magnitude, apply_sign(a0, code)), factors[I][0]));
                if constexpr (H == 2)
                    dots[I][1] =
                        pinned(dots[I][1] + dot_pairs(dot_pairs(magnitude, apply_sign(a1, code)), factors[I][1]));
            });
        });
    } else {
        I16x16 start[2], sums[kRowStreams][2];
        if constexpr (C::kCentred)
            unrolled<H>([&]<int J>() QUIPU_INLINE { start[J] = start_of<8, Steps>(panel[J], step, centre); });
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a0 = pinned(load_b8(panel[0].codes[step + S]));
            const B8x32 a1 = H == 2 ? pinned(load_b8(panel[H - 1].codes[step + S])) : a0;
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const B8x32 code = splat_4bytes(&rows.codes[I][(step + S) * width]);
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
        unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
            unrolled<H>([&]<int J>() QUIPU_INLINE { dots[I][J] = dots[I][J] + dot_pairs(sums[I][J], factors[I][J]); });
        });
    }
}

// c[4][16] += a block of the rows.
template <class C, int H>
[[gnu::noinline]] QUIPU_FLATTEN void add_tile_block(const CodeRows &rows, const TokenPanel *panel, int byte_centre,
                                                    float product_unit, float minimum_unit, float *c) {
    constexpr int shared = C::kHalves ? 4 : 8, steps = C::kSigns || C::kDepth > shared ? shared : C::kDepth;
    const I16x16 centre = splat_i16(static_cast<int16_t>(byte_centre));
    I32x8 dots[kRowStreams][2];
    unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE { dots[I][0] = dots[I][1] = zero_i32(); });
    for (int g = 0; g < kGroupsPerBlock; g++)
        unrolled<8 / shared>([&]<int Part>() QUIPU_INLINE {
            I16x16 factors[kRowStreams][2];
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const I16x16 scale = splat_i16(rows.scales[I][C::kHalves ? 2 * g + Part : g]);
                unrolled<H>([&]<int J>() QUIPU_INLINE {
                    factors[I][J] = multiply_rounded(scale, load_i16(panel[J].ratios[g]));
                });
            });
            unrolled<shared / steps>([&]<int Piece>() QUIPU_INLINE {
                add_tile_piece<C, H, steps>(rows, panel, g * 8 + Part * shared + Piece * steps, centre, factors, dots);
            });
            keep_in_memory();
        });
    unrolled<H>([&]<int J>() QUIPU_INLINE {
        const F32x8 scale = load(panel[J].block_scales), products = scale * splat(product_unit);
        unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
            float *ci = c + I * kPanelTokens + 8 * J;
            F32x8 sum = fma(to_f32(dots[I][J]) * products, splat_load(&rows.scale[I]), load(ci));
            if constexpr (C::kMinima)
                sum = add_minima<C>(rows, I, panel[J], scale * splat(-minimum_unit), sum);
            store(ci, sum);
        });
    });
}

using AddBlock = void (*)(const CodeRows &rows, const TokenPanel *panel, int byte_centre, float product_unit,
                          float minimum_unit, float *c);

template <class W> inline AddBlock add_tile_block_for(int num_tokens) {
    return num_tokens > 8 ? add_tile_block<BlockClassOf<W>, 2> : add_tile_block<BlockClassOf<W>, 1>;
}

template <class W>
void matmul_tile_blocks(const Matrix &w, int row_begin, int num_rows, const TokenPanel *panels, int num_tokens,
                        float *c, CodeRows *tile) {
    using Block = typename W::Block;
    const int panels_per_block = num_panels(num_tokens);
    for (int b = 0; b < w.cols / kBlock; b++) {
        for (int r = 0; r < num_rows; r += kRowStreams) {
            const Block *rows[kRowStreams]; // past the last row, the last once more
            for (int i = 0; i < kRowStreams; i++)
                rows[i] =
                    reinterpret_cast<const Block *>(w.data + (row_begin + std::min(r + i, num_rows - 1)) * w.row_bytes);
            unpack_block_rows<W>(rows, b, tile[r / kRowStreams]);
        }
        for (int p = 0; p < panels_per_block; p++) {
            const TokenPanel *panel = panels + 2 * (int64_t(b) * panels_per_block + p);
            const AddBlock add_block = add_tile_block_for<W>(num_tokens - p * kPanelTokens);
            float *cp = c + p * kTileRows * kPanelTokens;
            for (int r = 0; r < num_rows; r += kRowStreams) {
                // All panels together are larger than the caches of a core.
                prefetch_part(panel + 2, r / kRowStreams, kTileRows / kRowStreams);
                prefetch_part(panel + 3, r / kRowStreams, kTileRows / kRowStreams);
                add_block(tile[r / kRowStreams], panel, byte_centre<W>(), BlockUnits<W>::kProduct,
                          BlockUnits<W>::kMinimum, cp + r * kPanelTokens);
            }
        }
    }
}

// Four rows, the first num_rows of which are wanted, and 2 to 16 tokens.
template <class W>
void multiply_block_tokens(const typename W::Block *const (&rows)[kRowStreams], int num_rows, int num_blocks,
                           const TokenPanel *panels, int num_tokens, float *out, int64_t row_stride,
                           int64_t token_stride) {
    using C = BlockClassOf<W>;
    const int lanes = token_lanes(num_tokens);
    alignas(32) float sums[kRowStreams][kPanelTokens] = {};
    CodeRows codes;
    const AddBlock add_block = lanes == 2   ? add_block_tokens<C, 2>
                               : lanes == 4 ? add_block_tokens<C, 4>
                                            : add_tile_block_for<W>(num_tokens);
    for (int b = 0; b < num_blocks; b++) {
        unpack_block_rows<W>(rows, b, codes);
        add_block(codes, panels + b * token_panels(num_tokens), byte_centre<W>(), BlockUnits<W>::kProduct,
                  BlockUnits<W>::kMinimum, &sums[0][0]);
    }
    for (int i = 0; i < num_rows; i++)
        for (int t = 0; t < num_tokens; t++)
            out[t * token_stride + i * row_stride] = sums[i][t / 8 * 8 + result_lane(t % 8, lanes)];
}

} // namespace
} // namespace quipu::QUIPU_ISA
