// Causal attention over the paged cache. The query heads that share a KV head, of several tokens, form the rows of two
// small matrix products per block of 64 keys; softmax is computed on line (arXiv:2205.14135), in powers of two, so any
// context length needs one block of scores. A long context is cut into chunks whose partial results are merged
// (arXiv:2311.01282).
//
// What a row adds up, and in which order, depends on its own position alone: blocks lie at multiples of 64 keys, and a
// key that a row does not see has weight zero. So a token gets the same bits whatever tokens are computed beside it.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

constexpr float kLog2E = 1.44269504088896f;

// 2^x for x <= 0, to about one unit in the last place: 2^n * 2^f with |f| <= 1/2, 2^f by a minimax polynomial of degree
// 6 (error below 2e-9). Exactly 1 at 0; below 2^-126 it stays there. A NaN stays a NaN.
inline F32x8 exp2_not_positive(F32x8 x) {
    x = max(splat(-126.0f), x);
    const F32x8 n = round_nearest(x), f = x - n;
    F32x8 p = splat(0.00015353362f);
    p = fma(p, f, splat(0.0013398875f));
    p = fma(p, f, splat(0.009618437f));
    p = fma(p, f, splat(0.055503324f));
    p = fma(p, f, splat(0.24022648f));
    p = fma(p, f, splat(0.6931472f));
    p = fma(p, f, splat(1.0f));
    return p * exp2_integral(n);
}

inline float exp2_not_positive(float x) {
    float lanes[8];
    store(lanes, exp2_not_positive(splat(x)));
    return lanes[0];
}

// --- register tiles --------------------------------------------------------------------------------------------------

constexpr int kTileQueryRows = 6; // rows of one register tile: 6 x 16 floats in 12 vectors

// Rows of the next register tile: never one or two rows beside a full tile, which would wait for the latency of FMA.
constexpr int next_tile_rows(int rows_left) {
    return rows_left >= 11 || rows_left == 6 ? 6 : rows_left >= 9 ? 5 : rows_left >= 7 ? 4 : rows_left;
}

// Runs f<R>(first row) over all tiles of `num_rows` rows.
template <class F> inline void for_row_tiles(int num_rows, F f) {
    for (int r = 0, n; r < num_rows; r += n) {
        n = next_tile_rows(num_rows - r);
        switch (n) {
        case 6:
            f.template operator()<6>(r);
            break;
        case 5:
            f.template operator()<5>(r);
            break;
        case 4:
            f.template operator()<4>(r);
            break;
        case 3:
            f.template operator()<3>(r);
            break;
        case 2:
            f.template operator()<2>(r);
            break;
        default:
            f.template operator()<1>(r);
        }
    }
}

// scores[R][16] of rows kKeyBlock apart = q[key_length][R] . keys[key_length][16].
template <int R> [[gnu::noinline]] void score_tile(const float *q, const float *keys, int key_length, float *scores) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() { acc[I][0] = acc[I][1] = zero_f32(); });
#pragma GCC unroll 1
    for (const float *end = keys + key_length * kKeyTile; keys < end; keys += kKeyTile, q += R) {
        const F32x8 k0 = load(keys), k1 = load(keys + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 x = splat_load(q + I);
            acc[I][0] = pinned(fma(x, k0, acc[I][0]));
            acc[I][1] = pinned(fma(x, k1, acc[I][1]));
        });
    }
    unrolled<R>([&]<int I>() {
        store(scores + I * kKeyBlock, acc[I][0]);
        store(scores + I * kKeyBlock + 8, acc[I][1]);
    });
}

// out[R][16 dimensions] += weights[R][count] . values[count][16 of 32 dimensions].
template <int R>
[[gnu::noinline]] void weigh_values(const float *weights, const float *values, int count, float *out,
                                    int64_t out_stride) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() {
        acc[I][0] = load(out + I * out_stride);
        acc[I][1] = load(out + I * out_stride + 8);
    });
#pragma GCC unroll 1
    for (const float *end = weights + count; weights < end; weights++, values += kValueSlice) {
        const F32x8 v0 = load(values), v1 = load(values + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 x = splat_load(weights + I * kKeyBlock);
            acc[I][0] = pinned(fma(x, v0, acc[I][0]));
            acc[I][1] = pinned(fma(x, v1, acc[I][1]));
        });
    }
    unrolled<R>([&]<int I>() {
        store(out + I * out_stride, acc[I][0]);
        store(out + I * out_stride + 8, acc[I][1]);
    });
}

// --- softmax ---------------------------------------------------------------------------------------------------------

// scores = cap * tanh(x), in units of log2(e), where x are scores divided by the cap. tanh(x) = 1 - 2 / (e^2x + 1).
inline void cap_scores(float *scores, int begin, int end, float cap) {
    const F32x8 one = splat(1.0f), two = splat(2.0f), factor = splat(cap * kLog2E);
    for (int i = begin; i < end; i += 8) {
        const F32x8 x = load(scores + i);
        store(scores + i, factor * (one - two / (exp(x + x) + one)));
    }
}

// One row of scores, of which [first, last) are seen, becomes 2^(score - maximum), and zero elsewhere in [begin, end);
// the row's sum and output are rescaled when its maximum rises.
inline void softmax_row(float *scores, int begin, int end, int first, int last, float &row_max, float &row_sum,
                        float *out, int out_width) {
    const auto fill_unseen = [&](float value) {
        for (int i = begin; i < first; i++)
            scores[i] = value;
        for (int i = last; i < end; i++)
            scores[i] = value;
    };
    fill_unseen(-INFINITY);
    F32x8 highest = splat(row_max);
    for (int i = begin; i < end; i += 8)
        highest = max(load(scores + i), highest); // in this order a NaN is passed over, and found by the sum
    const float best = max_lane(highest);
    const F32x8 shift = splat(best);
    F32x8 total = zero_f32();
    for (int i = begin; i < end; i += 8) {
        const F32x8 weight = exp2_not_positive(load(scores + i) - shift);
        store(scores + i, weight);
        total = total + weight; // what is not seen adds 2^-126, less than any rounding of a sum that holds a 1
    }
    fill_unseen(0.0f);
    if (best > row_max) {
        if (row_max != -INFINITY) {
            const float factor = exp2_not_positive(row_max - best);
            row_sum *= factor;
            for (int i = 0; i < out_width; i += 8)
                store(out + i, load(out + i) * splat(factor));
        }
        row_max = best;
    }
    row_sum += sum(total);
}

// --- one unit of work ------------------------------------------------------------------------------------------------

// What the steps of a unit share. Rows are queries, then heads of the group.
struct AttentionUnit {
    const AttentionShape &shape;
    const KvLayer &layer;
    const AttentionWork &work;
    int num_rows, out_width;
    float *q, *scores, *keys, *values, *out, *row_max, *row_sum;
    WidenKeys widen_keys;
    WidenValues widen_values;

    // First position that query i sees of a window, and one behind its last.
    int first_seen(int i) const { return shape.window ? std::max(0, work.first_position + i + 1 - shape.window) : 0; }
    // The bound is met only without a causal mask, where the plan gives every query the last position.
    int end_seen(int i) const { return std::min(work.first_position + i + 1, work.key_end); }
};

// q as [key_length][R] per register tile, with all factors of the score.
inline void pack_queries(const AttentionUnit &unit) {
    const AttentionShape &shape = unit.shape;
    const int key_length = shape.key_length;
    const float factor = shape.softcap != 0.0f ? shape.scale / shape.softcap : shape.scale * kLog2E;
    for_row_tiles(unit.num_rows, [&]<int R>(int r) {
        for (int i = 0; i < R; i++) {
            const float *from = unit.work.q + int64_t((r + i) / shape.group_size) * unit.work.q_stride +
                                int64_t((r + i) % shape.group_size) * key_length;
            float *to = unit.q + int64_t(r) * key_length + i;
            for (int d = 0; d < key_length; d++)
                to[d * R] = from[d] * factor;
        }
    });
}

// A block of keys: its first position, its lanes [begin, end) in whole tiles, and where the rows of each tile lie.
struct KeyBlock {
    int position, begin, end;
    const uint8_t *keys[kKeyBlock / kKeyTile], *values[kKeyBlock / kKeyTile];
};

inline KeyBlock find_block(const AttentionUnit &unit, int position) {
    const KvLayer &layer = unit.layer;
    const AttentionWork &work = unit.work;
    KeyBlock block;
    block.position = position;
    block.begin = std::max(work.key_begin - position, 0) / kKeyTile * kKeyTile;
    block.end = static_cast<int>(round_up(std::min(work.key_end - position, kKeyBlock), kKeyTile));
    for (int lane = block.begin; lane < block.end; lane += kKeyTile) {
        const int64_t page = work.page_table[(position + lane) / layer.page_size];
        const int64_t slot = (position + lane) % layer.page_size;
        block.keys[lane / kKeyTile] = layer.k_page(page, work.kv_head) + slot * layer.k_row_bytes;
        block.values[lane / kKeyTile] = layer.v_page(page, work.kv_head) + slot * layer.v_row_bytes;
    }
    return block;
}

inline void prefetch_bytes(const uint8_t *p, int64_t num_bytes) {
    for (int64_t i = 0; i < num_bytes; i += 64)
        prefetch(p + i);
}

// Runs f<R>(first row) over the register tiles that hold rows [row_begin, row_end).
template <class F> inline void for_tiles_of(const AttentionUnit &unit, int row_begin, int row_end, F f) {
    for_row_tiles(unit.num_rows, [&]<int R>(int r) {
        if (r + R > row_begin && r < row_end)
            f.template operator()<R>(r);
    });
}

inline void score_block(const AttentionUnit &unit, const KeyBlock &block, int row_begin, int row_end) {
    const int key_length = unit.shape.key_length;
    for (int lane = block.begin; lane < block.end; lane += kKeyTile) {
        const int tile = lane / kKeyTile;
        // Pages lie anywhere, so nothing but us knows what is read next: the values of this tile, and the next keys.
        prefetch_bytes(block.values[tile], kKeyTile * unit.layer.v_row_bytes);
        if (lane + kKeyTile < block.end)
            prefetch_bytes(block.keys[tile + 1], kKeyTile * unit.layer.k_row_bytes);
        const float *keys = reinterpret_cast<const float *>(block.keys[tile]);
        if (unit.widen_keys) {
            unit.widen_keys(block.keys[tile], key_length, unit.keys);
            keys = unit.keys;
        }
        for_tiles_of(unit, row_begin, row_end, [&]<int R>(int r) {
            score_tile<R>(unit.q + int64_t(r) * key_length, keys, key_length, unit.scores + r * kKeyBlock + lane);
        });
    }
}

// Scores to weights. Returns one behind the last lane that any row sees.
inline int weigh_scores(const AttentionUnit &unit, const KeyBlock &block, int row_begin, int row_end) {
    const AttentionShape &shape = unit.shape;
    int last_lane = block.begin;
    for_tiles_of(unit, row_begin, row_end, [&]<int R>(int r) {
        int query = r / shape.group_size, head = r % shape.group_size;
        for (int row = r; row < r + R; row++) {
            const int first = std::clamp(unit.first_seen(query) - block.position, block.begin, block.end),
                      last = std::clamp(unit.end_seen(query) - block.position, block.begin, block.end);
            float *scores = unit.scores + row * kKeyBlock;
            if (first < last) {
                last_lane = std::max(last_lane, last);
                if (shape.softcap != 0.0f)
                    cap_scores(scores, block.begin, block.end, shape.softcap);
                softmax_row(scores, block.begin, block.end, first, last, unit.row_max[row], unit.row_sum[row],
                            unit.out + int64_t(row) * unit.out_width, unit.out_width);
            } else {
                std::fill(scores + block.begin, scores + block.end, 0.0f);
            }
            if (++head == shape.group_size) {
                head = 0;
                query++;
            }
        }
    });
    return last_lane;
}

inline void add_values(const AttentionUnit &unit, const KeyBlock &block, int last_lane, int row_begin, int row_end) {
    const int begin = block.begin;
    for (int slice = 0; slice * kValueSlice < unit.out_width; slice++) {
        const int width = std::min(kValueSlice, unit.out_width - slice * kValueSlice);
        for (int lane = begin; lane < last_lane; lane += kKeyTile)
            unit.widen_values(block.values[lane / kKeyTile], unit.layer.v_row_bytes, slice, width / 8,
                              std::min(kKeyTile, last_lane - lane), unit.values + (lane - begin) * kValueSlice);
        for_tiles_of(unit, row_begin, row_end, [&]<int R>(int r) {
            for (int d = 0; d < width; d += 16)
                weigh_values<R>(unit.scores + r * kKeyBlock + begin, unit.values + d, last_lane - begin,
                                unit.out + int64_t(r) * unit.out_width + slice * kValueSlice + d, unit.out_width);
        });
    }
}

void attention(const AttentionShape &shape, const KvLayer &layer, const AttentionWork &work, float *scratch,
               float *partial) {
    const int num_rows = work.num_queries * shape.group_size,
              out_width = static_cast<int>(round_up(shape.value_length, 16));
    float *q = scratch, *scores = q + int64_t(num_rows) * shape.key_length, *keys = scores + num_rows * kKeyBlock,
          *values = keys + round_up(shape.key_length, kGroup) * kKeyTile;
    float *row_max = partial + int64_t(num_rows) * out_width, *row_sum = row_max + num_rows;
    const AttentionUnit unit{shape,
                             layer,
                             work,
                             num_rows,
                             out_width,
                             q,
                             scores,
                             keys,
                             values,
                             partial,
                             row_max,
                             row_sum,
                             widen_keys_of(layer.k_type),
                             widen_values_of(layer.v_type)};
    pack_queries(unit);
    std::memset(partial, 0, sizeof(float) * num_rows * out_width);
    std::fill(row_max, row_max + num_rows, -INFINITY);
    std::fill(row_sum, row_sum + num_rows, 0.0f);
    for (int position = work.key_begin / kKeyBlock * kKeyBlock; position < work.key_end; position += kKeyBlock) {
        const KeyBlock block = find_block(unit, position);
        // Queries before the block see none of it, nor do those whose window begins behind it.
        int first_query = std::max(0, position - work.first_position), end_query = work.num_queries;
        while (end_query > first_query && unit.first_seen(end_query - 1) >= position + block.end)
            end_query--;
        if (first_query == end_query)
            continue;
        const int row_begin = first_query * shape.group_size, row_end = end_query * shape.group_size;
        score_block(unit, block, row_begin, row_end);
        const int last_lane = weigh_scores(unit, block, row_begin, row_end);
        add_values(unit, block, last_lane, row_begin, row_end);
    }
}

// --- merging ---------------------------------------------------------------------------------------------------------

void merge_attention(const AttentionShape &shape, int kv_head, float *partials, int count, int64_t stride,
                     int num_queries, float *out, int64_t out_stride) {
    const int num_rows = num_queries * shape.group_size, value_length = shape.value_length,
              width = static_cast<int>(round_up(value_length, 16));
    const float *maxima = partials + int64_t(num_rows) * width, *sums = maxima + num_rows;
    for (int row = 0; row < num_rows; row++) {
        const int head = row % shape.group_size;
        const float sink = shape.sinks ? shape.sinks[kv_head * shape.group_size + head] * kLog2E : -INFINITY;
        float best = sink;
        for (int i = 0; i < count; i++)
            best = std::max(best, maxima[i * stride + row]);
        // A part whose maximum is the highest has factor 1; one without keys adds zeros and changes no bit.
        const auto factor_of = [&](float maximum) {
            return maximum == best ? 1.0f : maximum == -INFINITY ? 0.0f : exp2_not_positive(maximum - best);
        };
        float total = shape.sinks ? factor_of(sink) : 0.0f;
        float *mixed = partials + int64_t(row) * width; // the first part takes up the others
        for (int i = 0; i < count; i++) {
            const float factor = factor_of(maxima[i * stride + row]);
            total += sums[i * stride + row] * factor;
            for (int d = 0; d < width; d += 8) {
                const F32x8 part = load(mixed + i * stride + d), scale = splat(factor);
                store(mixed + d, i == 0 ? part * scale : fma(part, scale, load(mixed + d)));
            }
        }
        const F32x8 inverse = splat(1.0f / total);
        for (int d = 0; d < width; d += 8)
            store(mixed + d, load(mixed + d) * inverse);
        std::memcpy(out + row / shape.group_size * out_stride + int64_t(head) * value_length, mixed,
                    value_length * sizeof(float));
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
