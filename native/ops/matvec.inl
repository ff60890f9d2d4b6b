// Matrix times up to 8 tokens, straight from the file's blocks: the kernels of decode. Each token's result has the same
// bits whatever the number of tokens beside it.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// 32 codes against 32 activations; the sums of four neighbours land in 8 lanes.
template <class W, int G> inline I32x8 group_dot(const typename W::Block &block, B8x32 activations) {
    const B8x32 codes = W::template codes<G>(block);
    if constexpr (W::kSigned)
        return dot_fours_signed(zero_i32(), codes, activations);
    else if constexpr (W::kPairScales)
        return dot_scaled<G>(codes, activations, W::pair_scales(block));
    else
        return dot_fours(zero_i32(), codes, activations);
}

constexpr int kPrefetchBytes = 2048;
constexpr int kChunkGroups = 64; // groups whose decoded scales are held at once (2,048 values)

// One chunk of one row against one token. `products` are weight scale times activation scale, per group.
template <class W>
inline F32x8 chunk_dot(const typename W::Block *blocks, int num_groups, const int8_t *codes, const float *products) {
    F32x8 acc[4] = {zero_f32(), zero_f32(), zero_f32(), zero_f32()};
    constexpr int kUnroll = W::kGroups == 1 ? 4 : W::kGroups;
    int g = 0;
    for (; g + kUnroll <= num_groups; g += kUnroll) {
        const typename W::Block *block = blocks + g / W::kGroups;
        // The hardware prefetcher stops at page borders; asking for every line two kilobytes ahead keeps the stream
        // going.
        const auto *ahead = reinterpret_cast<const uint8_t *>(block) + kPrefetchBytes;
        for (size_t line = 0; line < sizeof(*block) * (kUnroll / W::kGroups); line += 64)
            prefetch(ahead + line);
        unrolled<kUnroll>([&]<int U>() {
            constexpr int G = W::kGroups == 1 ? 0 : U;
            const B8x32 a = load_b8(codes + (g + U) * kGroup);
            const I32x8 dot = group_dot<W, G>(W::kGroups == 1 ? block[U] : *block, a);
            acc[U % 4] = fma(to_f32(dot), splat_load(products + g + U), acc[U % 4]);
        });
    }
    if constexpr (W::kGroups == 1)
        for (; g < num_groups; g++)
            acc[0] =
                fma(to_f32(group_dot<W, 0>(blocks[g], load_b8(codes + g * kGroup))), splat_load(products + g), acc[0]);
    return (acc[0] + acc[1]) + (acc[2] + acc[3]);
}

// The offsets of eight groups against the activation sums that belong to them.
template <class W> inline F32x8 add_offsets(const F32x8 *offsets, const ActivationRow &a, int group, F32x8 correction) {
    if constexpr (W::kPairScales)
        return fma(offsets[1], load(a.sums16 + 2 * group + 8), fma(offsets[0], load(a.sums16 + 2 * group), correction));
    else
        return fma(offsets[0], load(a.sums32 + group), correction);
}

// One row against one token: scales go from the block to products without a stop in memory.
template <class W> inline F32x8 row_dot(const typename W::Block *blocks, int total_groups, const ActivationRow &a) {
    alignas(32) float products[kChunkGroups];
    F32x8 acc = zero_f32(), correction = zero_f32();
    for (int first = 0; first < total_groups; first += kChunkGroups) {
        const int groups = std::min(kChunkGroups, total_groups - first);
        const auto *chunk = blocks + first / W::kGroups;
        for_decoded<W>(chunk, groups, [&](int g, const Decoded<W> &decoded) {
            store(products + g, decoded.scales * load(a.scales + first + g));
            if constexpr (!W::kSigned)
                correction = add_offsets<W>(decoded.offsets, a, first + g, correction);
        });
        acc = acc + chunk_dot<W>(chunk, groups, a.codes + first * kGroup, products);
    }
    return acc - correction;
}

// One row against several tokens: scales are decoded once. The sums have the order of row_dot, and so its bits.
template <class W>
inline void row_dots(const typename W::Block *blocks, int total_groups, const ActivationRow *a, int num_tokens,
                     F32x8 *results) {
    constexpr int kOffsetsPerGroup = W::kPairScales ? 2 : 1;
    alignas(32) float scales[kChunkGroups], offsets[kOffsetsPerGroup * kChunkGroups], products[kChunkGroups];
    F32x8 acc[kMaxRowTokens], correction[kMaxRowTokens];
    for (int t = 0; t < num_tokens; t++)
        acc[t] = correction[t] = zero_f32();
    for (int first = 0; first < total_groups; first += kChunkGroups) {
        const int groups = std::min(kChunkGroups, total_groups - first);
        const auto *chunk = blocks + first / W::kGroups;
        decode_groups<W>(chunk, groups, scales, offsets);
        for (int t = 0; t < num_tokens; t++) {
            for (int g = 0; g < groups; g += 8) {
                store(products + g, load(scales + g) * load(a[t].scales + first + g));
                if constexpr (!W::kSigned) {
                    const F32x8 here[2] = {load(offsets + g * kOffsetsPerGroup),
                                           load(offsets + g * kOffsetsPerGroup + (W::kPairScales ? 8 : 0))};
                    correction[t] = add_offsets<W>(here, a[t], first + g, correction[t]);
                }
            }
            acc[t] = acc[t] + chunk_dot<W>(chunk, groups, a[t].codes + first * kGroup, products);
        }
    }
    for (int t = 0; t < num_tokens; t++)
        results[t] = acc[t] - correction[t];
}

template <class W>
void matvec_int8(const Matrix &w, int row_begin, int row_end, uint8_t *quantized, int num_tokens, float *out,
                 int64_t out_stride) {
    ActivationRow activations[kMaxRowTokens];
    for (int t = 0; t < num_tokens; t++)
        activations[t] = activation_row(quantized + t * activation_row_bytes(w.cols), w.cols);
    const int groups = w.cols / kGroup;
    for (int row = row_begin; row < row_end; row++) {
        const auto *blocks = reinterpret_cast<const typename W::Block *>(w.data + row * w.row_bytes);
        if (num_tokens == 1) {
            out[row] = sum(row_dot<W>(blocks, groups, activations[0]));
            continue;
        }
        F32x8 results[kMaxRowTokens];
        row_dots<W>(blocks, groups, activations, num_tokens, results);
        for (int t = 0; t < num_tokens; t++)
            out[t * out_stride + row] = sum(results[t]);
    }
}

inline float dot_f32(const float *a, const float *b, int n) {
    F32x8 acc[4] = {zero_f32(), zero_f32(), zero_f32(), zero_f32()};
    int i = 0;
    for (; i + 32 <= n; i += 32)
        unrolled<4>([&]<int U>() { acc[U] = fma(load(a + i + 8 * U), load(b + i + 8 * U), acc[U]); });
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
    with_int8_weights(
        w.type, [&]<class W>(W) { matvec_int8<W>(w, row_begin, row_end, quantized, num_tokens, out, out_stride); });
}

} // namespace
} // namespace quipu::QUIPU_ISA
