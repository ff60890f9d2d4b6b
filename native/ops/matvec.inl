// Matrix times up to 8 tokens, straight from the file's blocks: the kernels of decode. Each token's result has the same
// bits whatever the number of tokens beside it.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

constexpr int kPrefetchBytes = 1024;

// What one row and one token have summed up so far.
struct RowSums {
    F32x8 products, offsets;
    void clear() { products = offsets = zero_f32(); }
};

template <class W> inline void prefetch_groups(const typename W::Block *blocks) {
    const auto *ahead = reinterpret_cast<const uint8_t *>(blocks) + kPrefetchBytes;
    for (size_t line = 0; line < sizeof(*blocks) * (kGroupsPerBlock / W::kGroups); line += 64)
        prefetch(ahead + line);
}

// Each class below says how eight groups of a row meet activations, and has the same three functions:
//   add_rows   R rows against one token. They go in step, two groups at a time, so that activations are loaded once.
//              `pinned` keeps the compiler from loading ahead what has no register; pairs of equal instructions give
//              both schedulers of a Zen 3 core the same share of each kind.
//   add_tokens one row against several tokens: what the weights hold is taken apart once.
//   total      the result, once all groups are added.

// One group per block: each group's sum is scaled by a float of its own.
template <class W> struct GroupSums {
    static float total(const RowSums &s) { return sum(s.products - s.offsets); }

    static I32x8 dot(B8x32 codes, B8x32 activations) {
        if constexpr (kHasDotFours)
            return W::kSigned ? dot_fours_signed(zero_i32(), codes, activations)
                              : dot_fours(zero_i32(), codes, activations);
        else
            return dot_pairs(W::kSigned ? dot_pairs(abs_b8(codes), apply_sign(activations, codes))
                                        : dot_pairs(codes, activations),
                             splat_i16(1));
    }

    // Stores weight scale times activation scale of eight groups and adds up their offsets.
    QUIPU_INLINE static void multiply_scales(const Decoded<W> &decoded, const ActivationRow &a, int group,
                                             float *products, RowSums &sums) {
        store(products, decoded.scales * load(a.scales + group));
        if constexpr (!W::kSigned)
            sums.offsets = fma(decoded.offsets[0], load(a.sums32 + group), sums.offsets);
    }

    template <int R>
    QUIPU_INLINE static void add_rows(const typename W::Block *const (&rows)[R], int group, const ActivationRow &a,
                                      RowSums (&sums)[R]) {
        alignas(32) float products[R][kGroupsPerBlock];
        const int8_t *activations = a.codes + group * kGroup;
        F32x8 even[R], odd[R];
        unrolled<R>([&]<int I>() { multiply_scales(W::decode(rows[I] + group), a, group, products[I], sums[I]); });
        keep_in_memory();
        unrolled<kGroupsPerBlock / 2>([&]<int Pair>() {
            constexpr int U = 2 * Pair, V = U + 1;
            const B8x32 a0 = pinned(load_b8(activations + U * kGroup)), a1 = pinned(load_b8(activations + V * kGroup));
            unrolled<R>([&]<int I>() {
                const I32x8 d0 = pinned(dot(W::template codes<0>(rows[I][group + U]), a0)),
                            d1 = pinned(dot(W::template codes<0>(rows[I][group + V]), a1));
                const F32x8 f0 = to_f32(d0), f1 = to_f32(d1);
                const F32x8 s0 = splat_load(products[I] + U), s1 = splat_load(products[I] + V);
                even[I] = pinned(Pair == 0 ? f0 * s0 : fma(f0, s0, even[I]));
                odd[I] = pinned(Pair == 0 ? f1 * s1 : fma(f1, s1, odd[I]));
            });
        });
        unrolled<R>([&]<int I>() { sums[I].products = sums[I].products + (even[I] + odd[I]); });
    }

    [[gnu::noinline]] QUIPU_FLATTEN static void add_tokens(const typename W::Block *row, int group,
                                                           const ActivationRow *a, int num_tokens, RowSums *sums) {
        const typename W::Block *blocks = row + group;
        const Decoded<W> decoded = W::decode(blocks);
        B8x32 codes[kGroupsPerBlock];
        unrolled<kGroupsPerBlock>([&]<int U>() { codes[U] = W::template codes<0>(blocks[U]); });
        for (int t = 0; t < num_tokens; t++) {
            alignas(32) float products[kGroupsPerBlock];
            multiply_scales(decoded, a[t], group, products, sums[t]);
            keep_in_memory();
            const int8_t *activations = a[t].codes + group * kGroup;
            F32x8 even = zero_f32(), odd = zero_f32();
            unrolled<kGroupsPerBlock / 2>([&]<int Pair>() {
                constexpr int U = 2 * Pair, V = U + 1;
                const F32x8 f0 = to_f32(dot(codes[U], load_b8(activations + U * kGroup))),
                            f1 = to_f32(dot(codes[V], load_b8(activations + V * kGroup)));
                const F32x8 s0 = splat_load(products + U), s1 = splat_load(products + V);
                even = Pair == 0 ? f0 * s0 : fma(f0, s0, even);
                odd = Pair == 0 ? f1 * s1 : fma(f1, s1, odd);
            });
            sums[t].products = sums[t].products + (even + odd);
        }
    }

    // The groups of a row that ends within an eight: its last eight groups, of which `num_done` are already added.
    [[gnu::noinline]] static void add_last(const typename W::Block *row, int group, int num_done,
                                           const ActivationRow *a, int num_tokens, RowSums *sums) {
        alignas(32) static constexpr float kZerosThenOnes[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
        const typename W::Block *blocks = row + group;
        Decoded<W> decoded = W::decode(blocks);
        decoded.offsets[0] = decoded.offsets[0] * load(kZerosThenOnes + 8 - num_done);
        for (int t = 0; t < num_tokens; t++) {
            alignas(32) float products[kGroupsPerBlock];
            multiply_scales(decoded, a[t], group, products, sums[t]);
            F32x8 rest = zero_f32();
            for (int u = num_done; u < kGroupsPerBlock; u++) {
                const B8x32 activations = load_b8(a[t].codes + (group + u) * kGroup);
                rest = fma(to_f32(dot(W::template codes<0>(blocks[u]), activations)), splat_load(products + u), rest);
            }
            sums[t].products = sums[t].products + rest;
        }
    }
};

// What is left of R rows of a format with one group per block behind the last whole eight, which ended at `group`.
template <class W, int R>
inline void add_last_groups(const typename W::Block *const (&rows)[R], int group, int total_groups,
                            const ActivationRow *a, int num_tokens, RowSums (&sums)[R][kMaxRowTokens]) {
    for (int i = 0; i < R; i++) {
        if (group > 0) {
            const int last = total_groups - kGroupsPerBlock;
            GroupSums<W>::add_last(rows[i], last, group - last, a, num_tokens, sums[i]);
        } else { // a row of less than eight groups
            typename W::Block padded[kGroupsPerBlock] = {};
            std::memcpy(padded, rows[i], total_groups * sizeof(padded[0]));
            GroupSums<W>::add_tokens(padded, 0, a, num_tokens, sums[i]);
        }
    }
}

template <class W, int R>
[[gnu::noinline]] QUIPU_FLATTEN void matvec_rows(const Matrix &w, int row, int row_stride, const ActivationRow *a,
                                                 int num_tokens, float *out, int64_t out_stride) {
    using Sums = GroupSums<W>;
    const int total_groups = w.cols / kGroup;
    const typename W::Block *rows[R];
    RowSums sums[R][kMaxRowTokens];
    unrolled<R>([&]<int I>() {
        rows[I] = reinterpret_cast<const typename W::Block *>(w.data + (row + int64_t(I) * row_stride) * w.row_bytes);
    });
    int g = 0;
    if (num_tokens == 1) {
        RowSums now[R];
        unrolled<R>([&]<int I>() { now[I].clear(); });
        for (; g + kGroupsPerBlock <= total_groups; g += kGroupsPerBlock) {
            unrolled<R>([&]<int I>() { prefetch_groups<W>(rows[I] + g / W::kGroups); });
            Sums::template add_rows<R>(rows, g, a[0], now);
        }
        unrolled<R>([&]<int I>() { sums[I][0] = now[I]; });
    } else {
        for (int i = 0; i < R; i++)
            for (int t = 0; t < num_tokens; t++)
                sums[i][t].clear();
        for (; g + kGroupsPerBlock <= total_groups; g += kGroupsPerBlock)
            for (int i = 0; i < R; i++) {
                prefetch_groups<W>(rows[i] + g / W::kGroups);
                Sums::add_tokens(rows[i], g, a, num_tokens, sums[i]);
            }
    }
    if (g < total_groups)
        add_last_groups<W, R>(rows, g, total_groups, a, num_tokens, sums);
    for (int i = 0; i < R; i++)
        for (int t = 0; t < num_tokens; t++)
            out[t * out_stride + row + i * row_stride] = Sums::total(sums[i][t]);
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
            const TokenPanel *panels, int num_tokens, float *out, int64_t out_stride, float *scratch) {
    if (!runs_on_int8(w.type))
        return matvec_float(w, row_begin, row_end, x, x_stride, num_tokens, out, out_stride, scratch);
    with_int8_weights(w.type, [&]<class W>(W) {
        if constexpr (sums_blocks<W>())
            matvec_blocks<W>(w, row_begin, row_end, quantized, panels, num_tokens, out, out_stride, scratch);
        else if constexpr (reads_eights<W>())
            matvec_eights<W>(w, row_begin, row_end, quantized, num_tokens, out, out_stride);
        else
            matvec_int8<W>(w, row_begin, row_end, quantized, num_tokens, out, out_stride);
    });
}

} // namespace
} // namespace quipu::QUIPU_ISA
