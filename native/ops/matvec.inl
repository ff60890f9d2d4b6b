// Matrix times up to 8 tokens, straight from the file's blocks: the kernels of decode. Each token's result has the same
// bits whatever the number of tokens beside it.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// 32 codes against 32 activations; the two or four neighbours' sums land in 8 lanes.
template <class W, int G> inline I32x8 group_dot(const typename W::Block &block, B8x32 codes, B8x32 activations) {
    if constexpr (W::kSigned)
        return dot_pairs(dot_pairs(abs_b8(codes), apply_sign(activations, codes)), splat_i16(1));
    else if constexpr (W::kPairScales)
        return dot_pairs(dot_pairs(codes, activations), scale_pair<G>(W::pair_scales(block)));
    else
        return dot_pairs(dot_pairs(codes, activations), splat_i16(1));
}

constexpr int kPrefetchBytes = 1024;

// What one row and one token have summed up so far: products of even and of odd groups, and offsets.
struct RowSums {
    F32x8 even, odd, offsets;
    void clear() { even = odd = offsets = zero_f32(); }
    float total() const { return sum((even + odd) - offsets); }
};

template <class W, int U>
[[gnu::always_inline]] inline void add_group(const typename W::Block *blocks, B8x32 codes, const int8_t *activations,
                                             const float *products, RowSums &sums) {
    const I32x8 dot = group_dot<W, U % W::kGroups>(blocks[U / W::kGroups], codes, load_b8(activations + U * kGroup));
    F32x8 &acc = U % 2 ? sums.odd : sums.even;
    acc = fma(to_f32(dot), splat_load(products + U), acc);
}

// Stores weight scale times activation scale of eight groups and adds up their offsets.
template <class W>
[[gnu::always_inline]] inline void multiply_scales(const Decoded<W> &decoded, const ActivationRow &a, int group,
                                                   float *products, RowSums &sums) {
    store(products, decoded.scales * load(a.scales + group));
    if constexpr (W::kPairScales) {
        sums.offsets = fma(decoded.offsets[0], load(a.sums16 + 2 * group), sums.offsets);
        sums.offsets = fma(decoded.offsets[1], load(a.sums16 + 2 * group + 8), sums.offsets);
    } else if constexpr (!W::kSigned) {
        sums.offsets = fma(decoded.offsets[0], load(a.sums32 + group), sums.offsets);
    }
}

// Eight groups of R rows, from `group` on, against one token. The rows go in step, two groups at a time, so that
// activations are loaded once; `pinned` keeps the compiler from loading ahead what has no register.
template <class W, int R>
[[gnu::always_inline]] inline void add_groups(const typename W::Block *const (&rows)[R], int group,
                                              const ActivationRow &a, RowSums (&sums)[R]) {
    alignas(32) float products[R][kGroupsPerBlock];
    const int first = group / W::kGroups;
    unrolled<R>([&]<int I>() {
        multiply_scales<W>(W::decode(rows[I] + first), a, group, products[I], sums[I]);
        sums[I].offsets = pinned(sums[I].offsets);
    });
    const int8_t *activations = a.codes + group * kGroup;
    unrolled<kGroupsPerBlock / 2>([&]<int Pair>() {
        constexpr int U = 2 * Pair, V = U + 1;
        const B8x32 a0 = pinned(load_b8(activations + U * kGroup)), a1 = pinned(load_b8(activations + V * kGroup));
        unrolled<R>([&]<int I>() {
            const typename W::Block *blocks = rows[I] + first;
            const B8x32 c0 = W::template codes<U % W::kGroups>(blocks[U / W::kGroups]),
                        c1 = W::template codes<V % W::kGroups>(blocks[V / W::kGroups]);
            const I32x8 d0 = group_dot<W, U % W::kGroups>(blocks[U / W::kGroups], c0, a0),
                        d1 = group_dot<W, V % W::kGroups>(blocks[V / W::kGroups], c1, a1);
            sums[I].even = pinned(fma(to_f32(d0), splat_load(products[I] + U), sums[I].even));
            sums[I].odd = pinned(fma(to_f32(d1), splat_load(products[I] + V), sums[I].odd));
        });
    });
}

// The same for several tokens: what the weights hold is taken apart once.
template <class W>
[[gnu::noinline]] void add_groups(const typename W::Block *blocks, int group, const ActivationRow *a, int num_tokens,
                                  RowSums *sums) {
    const Decoded<W> decoded = W::decode(blocks);
    B8x32 codes[kGroupsPerBlock];
    unrolled<kGroupsPerBlock>(
        [&]<int U>() { codes[U] = W::template codes<U % W::kGroups>(blocks[U / W::kGroups]); });
    for (int t = 0; t < num_tokens; t++) {
        alignas(32) float products[kGroupsPerBlock];
        multiply_scales<W>(decoded, a[t], group, products, sums[t]);
        unrolled<kGroupsPerBlock>(
            [&]<int U>() { add_group<W, U>(blocks, codes[U], a[t].codes + group * kGroup, products, sums[t]); });
    }
}

// The last groups of a row that ends within an eight (formats with one group per block only): `group` is the first of
// the row's last eight, whose first `num_done` groups are already counted.
template <class W>
[[gnu::noinline]] void add_last_groups(const typename W::Block *blocks, int group, int num_done, const ActivationRow *a,
                                       int num_tokens, RowSums *sums) {
    alignas(32) static constexpr float kZerosThenOnes[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    Decoded<W> decoded = W::decode(blocks);
    if constexpr (!W::kSigned)
        decoded.offsets[0] = decoded.offsets[0] * load(kZerosThenOnes + 8 - num_done);
    for (int t = 0; t < num_tokens; t++) {
        alignas(32) float products[kGroupsPerBlock];
        multiply_scales<W>(decoded, a[t], group, products, sums[t]);
        for (int u = num_done; u < kGroupsPerBlock; u++)
            add_group<W, 0>(blocks + u, W::template codes<0>(blocks[u]), a[t].codes + (group + u) * kGroup,
                            products + u, sums[t]);
    }
}

template <class W> inline void prefetch_groups(const typename W::Block *blocks) {
    const auto *ahead = reinterpret_cast<const uint8_t *>(blocks) + kPrefetchBytes;
    for (size_t line = 0; line < sizeof(*blocks) * (kGroupsPerBlock / W::kGroups); line += 64)
        prefetch(ahead + line);
}

// R rows side by side against all tokens.
template <class W, int R, bool OneToken>
inline void add_rows(const typename W::Block *const (&rows)[R], int total_groups, const ActivationRow *a,
                     int num_tokens, RowSums (&sums)[R][kMaxRowTokens]) {
    int g = 0;
    if constexpr (OneToken) {
        RowSums now[R];
        unrolled<R>([&]<int I>() { now[I].clear(); });
        for (; g + kGroupsPerBlock <= total_groups; g += kGroupsPerBlock) {
            unrolled<R>([&]<int I>() { prefetch_groups<W>(rows[I] + g / W::kGroups); });
            add_groups<W, R>(rows, g, a[0], now);
        }
        unrolled<R>([&]<int I>() { sums[I][0] = now[I]; });
    } else {
        for (int i = 0; i < R; i++)
            for (int t = 0; t < num_tokens; t++)
                sums[i][t].clear();
        for (; g + kGroupsPerBlock <= total_groups; g += kGroupsPerBlock)
            for (int i = 0; i < R; i++) {
                prefetch_groups<W>(rows[i] + g / W::kGroups);
                add_groups<W>(rows[i] + g / W::kGroups, g, a, num_tokens, sums[i]);
            }
    }
    if constexpr (W::kGroups == 1) {
        if (g == total_groups)
            return;
        for (int i = 0; i < R; i++) {
            if (g > 0) {
                const int last = total_groups - kGroupsPerBlock;
                add_last_groups<W>(rows[i] + last, last, g - last, a, num_tokens, sums[i]);
            } else { // a row of less than eight groups
                typename W::Block padded[kGroupsPerBlock] = {};
                std::memcpy(padded, rows[i], total_groups * sizeof(padded[0]));
                add_groups<W>(padded, 0, a, num_tokens, sums[i]);
            }
        }
    }
}

template <class W, int R>
inline void matvec_rows(const Matrix &w, int row, int row_stride, const ActivationRow *a, int num_tokens, float *out,
                        int64_t out_stride) {
    const typename W::Block *rows[R];
    RowSums sums[R][kMaxRowTokens];
    for (int i = 0; i < R; i++)
        rows[i] = reinterpret_cast<const typename W::Block *>(w.data + (row + int64_t(i) * row_stride) * w.row_bytes);
    if (num_tokens == 1)
        add_rows<W, R, true>(rows, w.cols / kGroup, a, 1, sums);
    else
        add_rows<W, R, false>(rows, w.cols / kGroup, a, num_tokens, sums);
    for (int i = 0; i < R; i++)
        for (int t = 0; t < num_tokens; t++)
            out[t * out_stride + row + i * row_stride] = sums[i][t].total();
}

template <class W>
void matvec_int8(const Matrix &w, int row_begin, int row_end, uint8_t *quantized, int num_tokens, float *out,
                 int64_t out_stride) {
    ActivationRow activations[kMaxRowTokens];
    for (int t = 0; t < num_tokens; t++)
        activations[t] = activation_row(quantized + t * activation_row_bytes(w.cols), w.cols);
    // One stream gets two thirds of what a core can read, because the hardware prefetcher starts anew on every page.
    // Rows far apart make several streams, whose starts overlap.
    const int stride = (row_end - row_begin) / kRowStreams;
    for (int i = 0; i < stride; i++)
        matvec_rows<W, kRowStreams>(w, row_begin + i, stride, activations, num_tokens, out, out_stride);
    for (int row = row_begin + stride * kRowStreams; row < row_end; row++)
        matvec_rows<W, 1>(w, row, 0, activations, num_tokens, out, out_stride);
}

inline float dot_f32(const float *a, const float *b, int n) {
    F32x8 acc[4] = {zero_f32(), zero_f32(), zero_f32(), zero_f32()};
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        prefetch(reinterpret_cast<const uint8_t *>(a + i) + kPrefetchBytes);
        prefetch(reinterpret_cast<const uint8_t *>(a + i + 16) + kPrefetchBytes);
        unrolled<4>([&]<int U>() { acc[U] = fma(load(a + i + 8 * U), load(b + i + 8 * U), acc[U]); });
    }
    float rest = 0.0f;
    for (; i < n; i++)
        rest += a[i] * b[i];
    return sum((acc[0] + acc[1]) + (acc[2] + acc[3])) + rest;
}

struct LoadF16 {
    static F32x8 vector(const uint16_t *p) { return load_f16(p); }
    static float one(uint16_t x) { return f16_to_f32(x); }
};
struct LoadBf16 {
    static F32x8 vector(const uint16_t *p) { return load_bf16(p); }
    static float one(uint16_t x) { return bf16_to_f32(x); }
};

template <class Load> inline float dot_half(const uint16_t *w, const float *x, int n) {
    F32x8 acc[4] = {zero_f32(), zero_f32(), zero_f32(), zero_f32()};
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        prefetch(w + i + 1024);
        unrolled<4>([&]<int U>() { acc[U] = fma(Load::vector(w + i + 8 * U), load(x + i + 8 * U), acc[U]); });
    }
    float rest = 0.0f;
    for (; i < n; i++)
        rest += Load::one(w[i]) * x[i];
    return sum((acc[0] + acc[1]) + (acc[2] + acc[3])) + rest;
}

template <class F>
inline void for_rows_and_tokens(int row_begin, int row_end, int num_tokens, float *out, int64_t out_stride, F dot) {
    for (int row = row_begin; row < row_end; row++)
        for (int t = 0; t < num_tokens; t++)
            out[t * out_stride + row] = dot(row, t);
}

// Float rows: F32, F16 and BF16 are read in place, any other format is unpacked a row at a time.
void matvec_float(const Matrix &w, int row_begin, int row_end, const float *x, int64_t x_stride, int num_tokens,
                  float *out, int64_t out_stride, float *scratch) {
    const auto row_of = [&](int row) { return w.data + row * w.row_bytes; };
    const auto half = [&](int row) { return reinterpret_cast<const uint16_t *>(row_of(row)); };
    switch (w.type) {
    case kF32:
        return for_rows_and_tokens(row_begin, row_end, num_tokens, out, out_stride, [&](int row, int t) {
            return dot_f32(reinterpret_cast<const float *>(row_of(row)), x + t * x_stride, w.cols);
        });
    case kF16:
        return for_rows_and_tokens(row_begin, row_end, num_tokens, out, out_stride, [&](int row, int t) {
            return dot_half<LoadF16>(half(row), x + t * x_stride, w.cols);
        });
    case kBF16:
        return for_rows_and_tokens(row_begin, row_end, num_tokens, out, out_stride, [&](int row, int t) {
            return dot_half<LoadBf16>(half(row), x + t * x_stride, w.cols);
        });
    default: {
        const Format &format = *find_format(w.type);
        for (int row = row_begin; row < row_end; row++) {
            format.unpack(row_of(row), scratch, w.cols / format.block_size);
            for (int t = 0; t < num_tokens; t++)
                out[t * out_stride + row] = dot_f32(scratch, x + t * x_stride, w.cols);
        }
    }
    }
}

void matvec(const Matrix &w, int row_begin, int row_end, const float *x, int64_t x_stride, uint8_t *quantized,
            int num_tokens, float *out, int64_t out_stride, float *scratch) {
    if (!runs_on_int8(w.type))
        return matvec_float(w, row_begin, row_end, x, x_stride, num_tokens, out, out_stride, scratch);
    with_int8_weights(w.type, [&]<class W>(W) {
        if constexpr (reads_eights<W>())
            matvec_eights<W>(w, row_begin, row_end, quantized, num_tokens, out, out_stride);
        else
            matvec_int8<W>(w, row_begin, row_end, quantized, num_tokens, out, out_stride);
    });
}

} // namespace
} // namespace quipu::QUIPU_ISA
