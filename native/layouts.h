// Memory layouts that kernels and steps share: prepared activations, weight matrices, the paged KV cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quipu {

constexpr int kGroup = 32;  // values that share one activation scale
constexpr int kBlock = 256; // values along K that one tile and one panel cover
constexpr int kGroupsPerBlock = kBlock / kGroup;
constexpr int kPanelTokens = 16; // tokens in the lanes of one panel
constexpr int kTileRows = 48;    // weight rows unpacked at once: divisible by 4 and 6, codes fit L1
constexpr int kMaxRowTokens = 8; // up to here tokens go one by one through the row kernels, with equal bits per token
constexpr int kRowStreams = 4;   // weight rows that the row kernels read side by side

// Panels that hold this many tokens.
constexpr int num_panels(int num_tokens) {
    return (num_tokens + kPanelTokens - 1) / kPanelTokens;
}

constexpr int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Activations of one token for the row kernels: int8 codes with one scale per 32 values. Sums are of codes, times the
// scale. Arrays are padded with zeros to a multiple of 256 values.
//
// Formats with blocks of 256 values sum in integers over a block. For them each scale is also a ratio to the largest of
// its block, in units of 2^-15 of which 32767 is one, and sums are of codes times that ratio, 8 times (per 32 values) or
// 16 times (per 16). Rounding the ratio moves a product by less than 2^-15 of the block's largest scale, where rounding
// the activations to 8 bits moves it by 2^-8.
struct ActivationRow {
    int8_t *codes;           // [K]
    float *scales;           // [K / 32]
    float *sums32;           // [K / 32]
    float *sums16;           // [K / 16]
    int16_t *ratios32;       // [K / 32]
    int16_t *ratios16;       // [K / 16], each ratio twice
    int16_t *ratio_sums32;   // [K / 32]
    int16_t *ratio_sums16;   // [K / 16]
    float *block_scales;     // [K / 256]
};

// Bytes of one ActivationRow for K values, and its parts inside them: every part begins at a multiple of 16 bytes.
constexpr int64_t activation_row_bytes(int64_t k) {
    const int64_t padded = round_up(k, kBlock);
    return padded + padded / 32 * 4 * 2 + padded / 16 * 4 + padded / 32 * 2 * 2 + padded / 16 * 2 * 2 +
           round_up(padded / kBlock * 4, 32);
}
inline ActivationRow activation_row(uint8_t *memory, int64_t k) {
    const int64_t padded = round_up(k, kBlock), groups = padded / 32;
    auto *floats = reinterpret_cast<float *>(memory + padded);
    auto *integers = reinterpret_cast<int16_t *>(floats + 4 * groups);
    return {.codes = reinterpret_cast<int8_t *>(memory),
            .scales = floats,
            .sums32 = floats + groups,
            .sums16 = floats + 2 * groups,
            .ratios32 = integers,
            .ratios16 = integers + groups,
            .ratio_sums32 = integers + 3 * groups,
            .ratio_sums16 = integers + 4 * groups,
            .block_scales = reinterpret_cast<float *>(integers + 6 * groups)};
}

// Activations of 16 tokens over 256 values for the tile kernels: tokens in lanes, 4 neighbours along K per lane.
struct alignas(32) ActivationPanel {
    int8_t codes[kBlock / 4][kPanelTokens][4];
    float scales[kGroupsPerBlock][kPanelTokens];
    float sums32[kGroupsPerBlock][kPanelTokens];
    float sums16[2 * kGroupsPerBlock][kPanelTokens];
};
static_assert(sizeof(ActivationPanel) == 4096 + 512 + 512 + 1024);

// The same without quantization, for float weights and formats that are unpacked to float.
struct alignas(32) FloatPanel {
    float values[kBlock][kPanelTokens];
};

// A weight matrix as it lies in the mapped file.
struct Matrix {
    const uint8_t *data;
    int64_t row_bytes;
    int32_t rows;
    int32_t cols;
    int32_t type; // ggml type id
};

// One layer of the paged KV cache. A page of a KV head holds K as 16-token tiles [page_size / 16][key_length][16], so
// that a query meets 16 keys per vector without horizontal sums, and V as rows [page_size][value_length].
struct KvLayer {
    uint8_t *k;
    uint8_t *v;
    int32_t num_kv_heads, key_length, value_length, page_size;
    bool k_is_f16, v_is_f16;

    int64_t k_head_bytes() const { return int64_t(page_size) * key_length * (k_is_f16 ? 2 : 4); }
    int64_t v_head_bytes() const { return int64_t(page_size) * value_length * (v_is_f16 ? 2 : 4); }
    uint8_t *k_page(int64_t page, int head) const { return k + (page * num_kv_heads + head) * k_head_bytes(); }
    uint8_t *v_page(int64_t page, int head) const { return v + (page * num_kv_heads + head) * v_head_bytes(); }
};

// Queries of one sequence that share a KV head: what one unit of attention works on.
struct AttentionWork {
    const float *q;   // first query row of the unit, head 0 of the group
    int64_t q_stride; // floats between tokens
    float *out;       // where the first query row's first head goes
    int64_t out_stride;
    int num_queries;           // tokens
    int group_size;            // query heads per KV head
    int first_position;        // of the first query
    const int32_t *page_table; // of the sequence
    const KvLayer *layer;
    int kv_head;
    float scale;
};

constexpr int kQueriesPerUnit = 16;
constexpr int kMaxPageSize = 256; // scratch holds the scores of one page

} // namespace quipu
