// Causal attention over the paged cache. All query heads that share a KV head, and up to kQueriesPerUnit tokens, form
// the rows of two small matrix products per page; softmax is computed on line (arXiv:2205.14135), so any context length
// needs only one page of scores.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// 8 cache values as floats.
template <bool IsF16> inline F32x8 load_cache(const void *base, int64_t index) {
    if constexpr (IsF16)
        return load_f16(static_cast<const uint16_t *>(base) + index);
    else
        return load(static_cast<const float *>(base) + index);
}

template <bool IsF16> inline void store_cache_value(void *base, int64_t index, float x) {
    if constexpr (IsF16) {
        alignas(16) uint16_t half[8];
        store_f16(half, splat(x));
        static_cast<uint16_t *>(base)[index] = half[0];
    } else {
        static_cast<float *>(base)[index] = x;
    }
}

template <bool IsF16> inline void store_cache_row(void *base, int64_t index, const float *x, int n) {
    int i = 0;
    if constexpr (IsF16)
        for (; i + 8 <= n; i += 8)
            store_f16(static_cast<uint16_t *>(base) + index + i, load(x + i));
    for (; i < n; i++)
        store_cache_value<IsF16>(base, index + i, x[i]);
}

// Scatters a key into the lanes of its 16-token tile.
template <bool IsF16> inline void store_key(void *page, int slot, const float *k, int key_length) {
    const int64_t tile = int64_t(slot / 16) * key_length * 16 + slot % 16;
    if constexpr (IsF16) {
        for (int d = 0; d < key_length; d += 8) {
            float x[8] = {};
            const int n = std::min(8, key_length - d);
            std::memcpy(x, k + d, n * sizeof(float));
            uint16_t half[8];
            store_f16(half, load(x));
            for (int i = 0; i < n; i++)
                static_cast<uint16_t *>(page)[tile + int64_t(d + i) * 16] = half[i];
        }
    } else {
        for (int d = 0; d < key_length; d++)
            static_cast<float *>(page)[tile + int64_t(d) * 16] = k[d];
    }
}

void kv_write(const KvLayer &layer, const float *k, const float *v, int64_t page, int slot, int kv_head) {
    void *k_page = layer.k_page(page, kv_head), *v_page = layer.v_page(page, kv_head);
    layer.k_is_f16 ? store_key<true>(k_page, slot, k, layer.key_length)
                   : store_key<false>(k_page, slot, k, layer.key_length);
    const int64_t row = int64_t(slot) * layer.value_length;
    layer.v_is_f16 ? store_cache_row<true>(v_page, row, v, layer.value_length)
                   : store_cache_row<false>(v_page, row, v, layer.value_length);
}

constexpr int kAttentionRows = 6; // rows of one register tile: 6 x 16 floats in 12 vectors

// scores[R][16] = q[R][key_length] . keys[key_length][16] for one 16-token tile.
template <int R, bool IsF16>
inline void score_tile(const float *q, const void *keys, int key_length, float *scores, int64_t scores_stride) {
    F32x8 acc[R][2];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
        acc[i][0] = acc[i][1] = zero_f32();
    for (int d = 0; d < key_length; d++) {
        const F32x8 k0 = load_cache<IsF16>(keys, d * 16), k1 = load_cache<IsF16>(keys, d * 16 + 8);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const F32x8 x = splat_load(q + i * key_length + d);
            acc[i][0] = fma(x, k0, acc[i][0]);
            acc[i][1] = fma(x, k1, acc[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        store(scores + i * scores_stride, acc[i][0]);
        store(scores + i * scores_stride + 8, acc[i][1]);
    }
}

// out[R][16 dims] += p[R][n] . values[n][16 dims].
template <int R, bool IsF16>
inline void weigh_values(const float *p, int64_t p_stride, const void *values, int value_length, int dim, int n,
                         float *out) {
    F32x8 acc[R][2];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        acc[i][0] = load(out + i * value_length + dim);
        acc[i][1] = load(out + i * value_length + dim + 8);
    }
    for (int t = 0; t < n; t++) {
        const F32x8 v0 = load_cache<IsF16>(values, int64_t(t) * value_length + dim);
        const F32x8 v1 = load_cache<IsF16>(values, int64_t(t) * value_length + dim + 8);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const F32x8 x = splat_load(p + i * p_stride + t);
            acc[i][0] = fma(x, v0, acc[i][0]);
            acc[i][1] = fma(x, v1, acc[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
        store(out + i * value_length + dim, acc[i][0]);
        store(out + i * value_length + dim + 8, acc[i][1]);
    }
}

// Runs f with the number of rows as a template argument, in steps of kAttentionRows.
template <class F> inline void for_row_tiles(int num_rows, F f) {
    int r = 0;
    for (; r + kAttentionRows <= num_rows; r += kAttentionRows)
        f.template operator()<kAttentionRows>(r);
    switch (num_rows - r) {
    case 5:
        return f.template operator()<5>(r);
    case 4:
        return f.template operator()<4>(r);
    case 3:
        return f.template operator()<3>(r);
    case 2:
        return f.template operator()<2>(r);
    case 1:
        return f.template operator()<1>(r);
    }
}

template <bool IsF16>
void score_page(const float *q, int num_rows, const void *keys, int key_length, int num_tiles, float *scores,
                int64_t stride) {
    for (int tile = 0; tile < num_tiles; tile++) {
        const auto *tile_keys = static_cast<const uint8_t *>(keys) + int64_t(tile) * key_length * 16 * (IsF16 ? 2 : 4);
        for_row_tiles(num_rows, [&]<int R>(int r) {
            score_tile<R, IsF16>(q + r * key_length, tile_keys, key_length, scores + r * stride + tile * 16, stride);
        });
    }
}

template <bool IsF16>
void weigh_page(const float *p, int64_t p_stride, int num_rows, const void *values, int value_length, int n,
                float *out) {
    for (int dim = 0; dim + 16 <= value_length; dim += 16)
        for_row_tiles(num_rows, [&]<int R>(int r) {
            weigh_values<R, IsF16>(p + r * p_stride, p_stride, values, value_length, dim, n, out + r * value_length);
        });
    // Head sizes that are no multiple of 16 are rare and small: plain loops.
    for (int dim = value_length / 16 * 16; dim < value_length; dim++)
        for (int r = 0; r < num_rows; r++)
            for (int t = 0; t < n; t++) {
                const int64_t index = int64_t(t) * value_length + dim;
                const float v = IsF16 ? f16_to_f32(static_cast<const uint16_t *>(values)[index])
                                      : static_cast<const float *>(values)[index];
                out[r * value_length + dim] += p[r * p_stride + t] * v;
            }
}

// scores[0..n) -> exp(scores - new maximum), zero up to `padded`; rescales the row's sum and output.
inline void softmax_step(float *scores, int n, int padded, float &row_max, float &row_sum, float *out,
                         int value_length) {
    float best = row_max;
    for (int i = 0; i < n; i++)
        best = scores[i] > best ? scores[i] : best;
    for (int i = n; i < padded; i++)
        scores[i] = -INFINITY;
    const F32x8 shift = splat(best);
    F32x8 total = zero_f32();
    for (int i = 0; i < padded; i += 8) {
        const F32x8 e = exp(load(scores + i) - shift);
        store(scores + i, e);
    }
    for (int i = n; i < padded; i++)
        scores[i] = 0.0f; // exp is clamped above zero
    for (int i = 0; i < padded; i += 8)
        total = total + load(scores + i);
    if (best > row_max) {
        const float factor = row_max == -INFINITY ? 0.0f : std::exp(row_max - best);
        row_sum *= factor;
        for (int i = 0; i < value_length; i++)
            out[i] *= factor;
        row_max = best;
    }
    row_sum += sum(total);
}

// scratch: q [rows][key_length], out [rows][value_length], scores [rows][page_size], max and sum [rows].
void attention(const AttentionWork &work, float *scratch) {
    const KvLayer &layer = *work.layer;
    const int rows = work.num_queries * work.group_size, key_length = layer.key_length,
              value_length = layer.value_length, page_size = layer.page_size;
    float *q = scratch, *out = q + rows * key_length, *scores = out + rows * value_length,
          *row_max = scores + rows * page_size, *row_sum = row_max + rows;
    for (int r = 0; r < rows; r++) {
        const float *from = work.q + (r / work.group_size) * work.q_stride + (r % work.group_size) * key_length;
        for (int d = 0; d < key_length; d++)
            q[r * key_length + d] = from[d] * work.scale;
        row_max[r] = -INFINITY;
        row_sum[r] = 0.0f;
    }
    std::memset(out, 0, sizeof(float) * rows * value_length);
    const int last_position = work.first_position + work.num_queries - 1;
    for (int begin = 0; begin <= last_position; begin += page_size) {
        const int64_t page = work.page_table[begin / page_size];
        const int n = std::min(page_size, last_position + 1 - begin), num_tiles = (n + 15) / 16;
        // Queries before this page see none of it.
        const int skip = std::max(0, begin - work.first_position) * work.group_size;
        const void *keys = layer.k_page(page, work.kv_head), *values = layer.v_page(page, work.kv_head);
        (layer.k_is_f16 ? score_page<true> : score_page<false>)(q + skip * key_length, rows - skip, keys, key_length,
                                                                num_tiles, scores + skip * page_size, page_size);
        for (int r = skip; r < rows; r++) {
            const int position = work.first_position + r / work.group_size;
            softmax_step(scores + r * page_size, std::min(n, position + 1 - begin), num_tiles * 16, row_max[r],
                         row_sum[r], out + r * value_length, value_length);
        }
        (layer.v_is_f16 ? weigh_page<true> : weigh_page<false>)(scores + skip * page_size, page_size, rows - skip,
                                                                values, value_length, n, out + skip * value_length);
    }
    for (int r = 0; r < rows; r++) {
        float *to = work.out + (r / work.group_size) * work.out_stride + (r % work.group_size) * value_length;
        const float inverse = 1.0f / row_sum[r];
        for (int d = 0; d < value_length; d++)
            to[d] = out[r * value_length + d] * inverse;
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
