// Four rows of blocks of 256 values against 2 to 8 tokens: codes are taken apart once, and vectors of activations hold
// 2, 4 or 8 tokens each, so that no lane is left over (see TokenPanel). Integers are the same as for one token, and so
// are results; see matvec_blocks.inl.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

inline TokenPanel *aligned_panels(float *scratch) {
    return reinterpret_cast<TokenPanel *>(round_up(reinterpret_cast<int64_t>(scratch), alignof(TokenPanel)));
}

// Where token t stands among eight results: adding up neighbours leaves each in several lanes.
inline int result_lane(int token, int lanes) {
    return lanes == 8 ? token : lanes == 4 ? token / 2 * 4 + token % 2 : token * 4;
}

// Activations of one token over a block, into the lanes of its own. Lanes: tokens in a vector.
template <int Lanes> inline void pack_token(const ActivationRow &row, int token, TokenPanel &panel) {
    constexpr int width = 32 / Lanes, words = width / 2; // neighbours of a token in a vector
    constexpr int size = width < 8 ? 8 : width;          // values of an entry of code_sums
    for (int step = 0; step < kBlock / width; step++)
        std::memcpy(&panel.codes[step][token * width], row.codes + step * width, width);
    for (int piece = 0; piece < kBlock / size; piece++)
        for (int i = 0; i < words; i++) {
            int sum = 0;
            for (int k = 2 * i; k < size; k += width)
                sum += row.codes[piece * size + k] + row.codes[piece * size + k + 1];
            panel.code_sums[piece][token * words + i] = static_cast<int16_t>(sum);
        }
    for (int g = 0; g < kGroupsPerBlock; g++)
        for (int i = 0; i < words; i++)
            panel.ratios[g][token * words + i] = row.ratios32[g];
    for (int copy = 0, first = result_lane(token, Lanes); copy < 8 / Lanes; copy++) {
        const int lane = first + copy * (Lanes == 4 ? 2 : 1);
        for (int pair = 0; pair < 8; pair++)
            std::memcpy(panel.ratio_sums16[pair][lane], row.ratio_sums16 + 2 * pair, 4);
        for (int pair = 0; pair < 4; pair++)
            std::memcpy(panel.ratio_sums32[pair][lane], row.ratio_sums32 + 2 * pair, 4);
        panel.block_scales[lane] = row.block_scales[0];
    }
}

template <int Lanes> void pack_lanes(const ActivationRow *rows, int num_tokens, int k, TokenPanel *panels, int stride) {
    for (int first = 0; first < k; first += kBlock, panels += stride) {
        if (num_tokens < Lanes)
            std::memset(panels, 0, sizeof(TokenPanel));
        for (int t = 0; t < num_tokens; t++)
            pack_token<Lanes>(rows[t].from(first), t, *panels);
    }
}

void pack_tokens(const ActivationRow *rows, int num_tokens, int k, int lanes, TokenPanel *panels, int stride) {
    if (lanes == 2)
        return pack_lanes<2>(rows, num_tokens, k, panels, stride);
    if (lanes == 4)
        return pack_lanes<4>(rows, num_tokens, k, panels, stride);
    for (int t = 0; t < num_tokens; t += 8, panels++)
        pack_lanes<8>(rows + t, std::min(num_tokens - t, 8), k, panels, stride);
}

// Codes of four rows over 256 values, as bytes that multiply activations.
struct CodeRows {
    alignas(32) uint8_t codes[kRowStreams][kBlock];
    alignas(32) uint8_t magnitudes[kRowStreams][kBlock]; // where codes keep their signs
    alignas(32) int16_t scales[kRowStreams][2 * kGroupsPerBlock];
    alignas(32) int16_t minima[kRowStreams][2 * kGroupsPerBlock]; // of halves
    float scale[kRowStreams], minimum_scale[kRowStreams];
};

// What the kernels below need to know of a format: many formats share one.
template <int Depth, bool Halves, bool Minima, bool Signs, bool Centred> struct BlockClass {
    static constexpr int kDepth = Depth; // values that an int16 can sum, once the centre is subtracted
    static constexpr bool kHalves = Halves, kMinima = Minima, kSigns = Signs, kCentred = Centred;
};
// Codes that reach 127 with a sign cannot be shifted to bytes that do not saturate: they come as sign and magnitude.
template <class W> constexpr bool has_far_signs() {
    return W::kMagnitudes && W::kMaxCode > 64;
}
template <class W> constexpr int byte_centre() { // what is to be subtracted from the bytes
    return has_far_signs<W>() ? 0 : W::kMagnitudes ? W::kMaxCode : W::kCentre;
}
template <class W> constexpr int values_depth() {
    constexpr int pairs = 32767 / (2 * 127 * W::kMaxLevel), most = W::kHalves ? 4 : 8;
    return has_far_signs<W>() ? 1 : pairs >= most ? most : pairs >= 4 ? 4 : 2;
}
template <class W>
using BlockClassOf = BlockClass<values_depth<W>(), W::kHalves, W::kMinima, has_far_signs<W>(), byte_centre<W>() != 0>;

template <class W> [[gnu::noinline]] void unpack_block_row(const typename W::Block &block, int i, CodeRows &out) {
    constexpr int shift = factor_shift<W>();
    prefetch_ahead(&block);
    const BlockScales scales = W::template block_scales<shift>(block);
    store_i16(out.scales[i], scales.integers);
    if constexpr (W::kMinima && W::kHalves)
        store_i16(out.minima[i], W::minima(block));
    out.scale[i] = first_lane(scales.scale);
    out.minimum_scale[i] = first_lane(scales.offset_scale);
    typename W::State state;
    W::prepare(&block, state);
    unrolled<kGroupsPerBlock>([&]<int G>() QUIPU_INLINE {
        const EightCodes c = codes_of<W, G>(&block, state);
        B8x32 bytes = c.codes;
        if constexpr (W::kMagnitudes)
            bytes = apply_sign(bytes, c.signs);
        if constexpr (has_far_signs<W>())
            store_b8(&out.magnitudes[i][G * kGroup], c.codes);
        else if constexpr (W::kMagnitudes)
            bytes = bytes + splat_b8(byte_centre<W>());
        store_b8(&out.codes[i][G * kGroup], bytes);
    });
}

template <class W>
void unpack_block_rows(const typename W::Block *const (&rows)[kRowStreams], int block, CodeRows &out) {
    for (int i = 0; i < kRowStreams; i++)
        unpack_block_row<W>(rows[i][block], i, out);
}

template <int T> inline B8x32 splat_codes(const uint8_t *p) {
    if constexpr (T == 4)
        return splat_8bytes(p);
    else
        return splat_16bytes(p);
}

// What the int16 sums of a piece start at, so that they end without the centre: minus the centre times the codes that
// meet it. Sums in between may wrap; addition modulo 2^16 is exact all the same.
template <int T, int Steps>
QUIPU_INLINE inline I16x16 start_of(const TokenPanel &panel, int first_step, I16x16 centre) {
    constexpr int each = T == 8 ? 2 : 1; // steps of an entry
    static_assert(Steps % each == 0);
    I16x16 sum = load_i16(panel.code_sums[first_step / each]);
    unrolled<Steps / each - 1>([&]<int I>()
                                   QUIPU_INLINE { sum = sum + load_i16(panel.code_sums[first_step / each + 1 + I]); });
    return zero_i16() - sum * centre;
}

// Adds the products of Steps vectors of activations from `step` on, times the factors of the rows.
template <class C, int T, int Steps>
QUIPU_INLINE inline void add_piece(const CodeRows &rows, const TokenPanel &panel, int step, I16x16 centre,
                                   const I16x16 (&factors)[kRowStreams], I32x8 (&dots)[kRowStreams]) {
    constexpr int width = 32 / T;
    if constexpr (C::kSigns) {
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a = load_b8(panel.codes[step + S]);
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const B8x32 x = apply_sign(a, splat_codes<T>(&rows.codes[I][(step + S) * width]));
                const I16x16 p = dot_pairs(splat_codes<T>(&rows.magnitudes[I][(step + S) * width]), x);
                dots[I] = pinned(dots[I] + dot_pairs(p, factors[I]));
            });
        });
    } else {
        I16x16 start, sums[kRowStreams];
        if constexpr (C::kCentred)
            start = start_of<T, Steps>(panel, step, centre);
        unrolled<Steps>([&]<int S>() QUIPU_INLINE {
            const B8x32 a = load_b8(panel.codes[step + S]);
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                const I16x16 p = pinned(dot_pairs(splat_codes<T>(&rows.codes[I][(step + S) * width]), a));
                if constexpr (S > 0 || C::kCentred)
                    sums[I] = pinned((S == 0 ? start : sums[I]) + p);
                else
                    sums[I] = p;
            });
        });
        unrolled<kRowStreams>([&]<int I>()
                                  QUIPU_INLINE { dots[I] = pinned(dots[I] + dot_pairs(sums[I], factors[I])); });
    }
}

// Adds the minima of row i over a block, in units of `scale`, to the sums of its tokens.
template <class C>
QUIPU_INLINE inline F32x8 add_minima(const CodeRows &rows, int i, const TokenPanel &panel, F32x8 scale, F32x8 sum) {
    I32x8 minima = zero_i32();
    const int16_t *integers = C::kHalves ? rows.minima[i] : rows.scales[i] + kGroupsPerBlock;
    unrolled<C::kHalves ? 8 : 4>([&]<int P>() QUIPU_INLINE {
        const auto *sums = C::kHalves ? &panel.ratio_sums16[P] : &panel.ratio_sums32[P];
        minima = minima + dot_pairs(splat_two(integers + 2 * P), load_i16(sums));
    });
    return fma(to_f32(minima) * scale, splat_load(&rows.minimum_scale[i]), sum);
}

// Adds a block to the sums of the rows. T: tokens in a vector, 2 or 4.
template <class C, int T>
[[gnu::noinline]] QUIPU_FLATTEN void add_block_tokens(const CodeRows &rows, const TokenPanel *panels, int byte_centre,
                                                      float product_unit, float minimum_unit, float *c) {
    const TokenPanel &panel = *panels;
    // A piece is what shares a factor, or less where an int16 cannot sum that much.
    constexpr int shared = C::kHalves ? T / 2 : T, depth = C::kDepth * T / 8 > 0 ? C::kDepth * T / 8 : 1;
    constexpr int steps = C::kSigns || depth > shared ? shared : depth;
    const I16x16 centre = splat_i16(static_cast<int16_t>(byte_centre));
    I32x8 dots[kRowStreams];
    unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE { dots[I] = zero_i32(); });
    for (int g = 0; g < kGroupsPerBlock; g++) {
        const I16x16 ratios = load_i16(panel.ratios[g]);
        unrolled<T / shared>([&]<int Part>() QUIPU_INLINE {
            I16x16 factors[kRowStreams];
            unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
                factors[I] = multiply_rounded(splat_i16(rows.scales[I][C::kHalves ? 2 * g + Part : g]), ratios);
            });
            unrolled<shared / steps>([&]<int Piece>() QUIPU_INLINE {
                add_piece<C, T, steps>(rows, panel, g * T + Part * shared + Piece * steps, centre, factors, dots);
            });
        });
    }
    const F32x8 scale = load(panel.block_scales), products = scale * splat(product_unit);
    unrolled<kRowStreams>([&]<int I>() QUIPU_INLINE {
        const I32x8 once = add_neighbours(dots[I]), dot = T == 2 ? add_neighbours(once) : once;
        float *ci = c + I * kPanelTokens;
        F32x8 sum = fma(to_f32(dot) * products, splat_load(&rows.scale[I]), load(ci));
        if constexpr (C::kMinima)
            sum = add_minima<C>(rows, I, panel, scale * splat(-minimum_unit), sum);
        store(ci, sum);
    });
}

} // namespace
} // namespace quipu::QUIPU_ISA
