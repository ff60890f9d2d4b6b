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
constexpr int kMaxRowTokens = 8; // the most tokens that the row kernels of any instruction set take

// Panels that hold this many tokens.
constexpr int num_panels(int num_tokens) {
    return (num_tokens + kPanelTokens - 1) / kPanelTokens;
}

constexpr int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Activations of one token for the row kernels: int8 codes with one scale per 32 values. Sums are of codes, times the
// scale. Arrays are padded with zeros to a multiple of 256 values.
struct ActivationRow {
    int8_t *codes; // [K]
    float *scales; // [K / 32]
    float *sums32; // [K / 32]
    float *sums16; // [K / 16]
};

// Bytes of one ActivationRow for K values, and its parts inside them.
constexpr int64_t activation_row_bytes(int64_t k) {
    const int64_t padded = round_up(k, kBlock);
    return padded + padded / 32 * 4 + padded / 32 * 4 + padded / 16 * 4; // every part a multiple of 32 bytes
}
inline ActivationRow activation_row(uint8_t *memory, int64_t k) {
    const int64_t padded = round_up(k, kBlock);
    auto *floats = reinterpret_cast<float *>(memory + padded);
    return {reinterpret_cast<int8_t *>(memory), floats, floats + padded / 32, floats + 2 * (padded / 32)};
}

// Activations of 16 tokens over 256 values for the tile kernels: tokens in lanes, 4 neighbours along K per lane.
struct alignas(64) ActivationPanel {
    int8_t codes[kBlock / 4][kPanelTokens][4];
    float scales[kGroupsPerBlock][kPanelTokens];
    float sums32[kGroupsPerBlock][kPanelTokens];
    float sums16[2 * kGroupsPerBlock][kPanelTokens];
};
static_assert(sizeof(ActivationPanel) == 4096 + 512 + 512 + 1024);

// The same without quantization, for float weights and formats that are unpacked to float.
struct alignas(64) FloatPanel {
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
