// Memory layouts that kernels and steps share: prepared activations, weight matrices, the paged KV cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quipu {

constexpr int kGroup = 32;  // values that share one activation scale
constexpr int kBlock = 256; // values along K that one tile and one panel cover
constexpr int kGroupsPerBlock = kBlock / kGroup;
constexpr int kPanelTokens = 16;    // tokens in the lanes of one panel
constexpr int kTileRows = 48;       // weight rows unpacked at once: divisible by 4 and 6, codes fit L1
constexpr int kMaxRowTokens = 8;    // the most tokens that the row kernels of any instruction set take
constexpr int kMaxBlockTokens = 16; // the same for formats with blocks of 256 values
constexpr int kRowStreams = 4;      // weight rows that the row kernels read side by side

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
// its block, in units of 2^-15 of which 32767 is one, and sums are of codes times that ratio, 8 times (per 32 values)
// or 16 times (per 16). Rounding the ratio moves a product by less than 2^-15 of the block's largest scale, where
// rounding the activations to 8 bits moves it by 2^-8.
struct ActivationRow {
    int8_t *codes;         // [K]
    float *scales;         // [K / 32]
    float *sums32;         // [K / 32]
    float *sums16;         // [K / 16]
    int16_t *ratios32;     // [K / 32]
    int16_t *ratios16;     // [K / 16], each ratio twice
    int16_t *ratio_sums32; // [K / 32]
    int16_t *ratio_sums16; // [K / 16]
    int16_t *code_sums16;  // [K / 16], of codes alone
    float *block_scales;   // [K / 256]

    // The row from value k on, a multiple of 256.
    ActivationRow from(int64_t k) const {
        const int64_t groups = k / kGroup;
        return {.codes = codes + k,
                .scales = scales + groups,
                .sums32 = sums32 + groups,
                .sums16 = sums16 + 2 * groups,
                .ratios32 = ratios32 + groups,
                .ratios16 = ratios16 + 2 * groups,
                .ratio_sums32 = ratio_sums32 + groups,
                .ratio_sums16 = ratio_sums16 + 2 * groups,
                .code_sums16 = code_sums16 + 2 * groups,
                .block_scales = block_scales + k / kBlock};
    }
};

// Bytes of one ActivationRow for K values, and its parts inside them: every part begins at a multiple of 16 bytes.
constexpr int64_t activation_row_bytes(int64_t k) {
    const int64_t padded = round_up(k, kBlock);
    return padded + padded / 32 * 4 * 2 + padded / 16 * 4 + padded / 32 * 2 * 2 + padded / 16 * 2 * 3 +
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
            .code_sums16 = integers + 6 * groups,
            .block_scales = reinterpret_cast<float *>(integers + 8 * groups)};
}

// Activations of up to 8 tokens over 256 values for the row kernels of several tokens, made from rows; more tokens take
// several panels. Each vector of 32 codes holds 2, 4 or 8 tokens (T) with 32 / T neighbours along K of each. What
// belongs to one token stands in its lanes.
struct alignas(32) TokenPanel {
    int8_t codes[64][32];      // [8 T used]
    int16_t code_sums[32][16]; // of the codes that an int16 lane sums, over 8 values (T = 2: over 16)
    int16_t ratios[8][16];     // per 32 values
    int16_t ratio_sums16[8][8][2], ratio_sums32[4][8][2]; // pairs of neighbours, in the lanes of results
    float block_scales[8];                                // in the lanes of results
};
static_assert(sizeof(TokenPanel) % 64 == 32); // loads from two panels side by side are from different halves of lines

// Panels that hold up to 16 tokens, and the tokens in each of their vectors.
constexpr int token_panels(int num_tokens) {
    return (num_tokens + 7) / 8;
}
constexpr int token_lanes(int num_tokens) {
    return num_tokens <= 2 ? 2 : num_tokens <= 4 ? 4 : 8;
}

// Floats of scratch that the row kernels want for rows of k values.
constexpr int64_t matvec_scratch_floats(int64_t k) {
    return token_panels(kMaxBlockTokens) * round_up(k, kBlock) / kBlock * int64_t(sizeof(TokenPanel) / 4) + 16;
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

// What the tile kernels of a weight read, each [K / 256][num_panels]. Panels of tokens come in pairs, of 8 tokens each.
struct Panels {
    const TokenPanel *tokens = nullptr;
    const ActivationPanel *codes = nullptr;
    const FloatPanel *floats = nullptr;
};

// A weight matrix as it lies in the mapped file.
struct Matrix {
    const uint8_t *data;
    int64_t row_bytes;
    int32_t rows;
    int32_t cols;
    int32_t type; // ggml type id
};

// One layer of the paged KV cache. A page of a KV head holds keys in tiles of 16 tokens and values in rows.
//
// Keys of a float type are [page_size / 16][key_length][16], so that a query meets 16 keys per vector without
// horizontal sums. Quantized keys are [page_size / 16][blocks] groups of 16 blocks, one per token, with their fields
// turned the same way: scales [16], minima [16], fifth bits [4 bytes][16] with the bytes in the order 0 2 1 3, codes
// [bytes][16]. Every byte belongs to one token, so tokens of a tile can be written at the same time.
//
// Values are [page_size] rows as in a file: numbers, or blocks along the head. Heads that are no whole number of blocks
// are padded with zeros.
struct KvLayer {
    uint8_t *k;
    uint8_t *v;
    int32_t num_kv_heads, key_length, value_length, page_size;
    int32_t k_type, v_type;           // ggml type ids
    int64_t k_row_bytes, v_row_bytes; // per token and head

    int64_t k_head_bytes() const { return page_size * k_row_bytes; }
    int64_t v_head_bytes() const { return page_size * v_row_bytes; }
    uint8_t *k_page(int64_t page, int head) const { return k + (page * num_kv_heads + head) * k_head_bytes(); }
    uint8_t *v_page(int64_t page, int head) const { return v + (page * num_kv_heads + head) * v_head_bytes(); }
};

constexpr int kKeyTile = 16;    // tokens in the lanes of one key tile
constexpr int kKeyBlock = 64;   // keys that get one softmax step; blocks lie at multiples of it, whatever the page size
constexpr int kValueSlice = 32; // dimensions of a value that are widened at a time

// What one attention op computes, the same for every unit of a run.
struct AttentionShape {
    int32_t num_kv_heads, group_size; // query heads per KV head
    int32_t key_length, value_length;
    int32_t window;     // a query sees this many tokens up to its own; 0: all
    float scale;        // of q . k
    float softcap;      // scores become softcap * tanh(score / softcap); 0: they stay
    const float *sinks; // a logit per query head that takes part in the softmax and has no value, or nullptr
};

// Queries of one sequence that share a KV head, against a range of keys: what one unit of attention works on.
struct AttentionWork {
    const float *q;         // first query row of the unit, head 0 of the group
    int64_t q_stride;       // floats between tokens
    int num_queries;        // tokens
    int first_position;     // of the first query
    int key_begin, key_end; // positions
    int kv_head;
    const int32_t *page_table; // of the sequence
};

constexpr int kMaxQueryRows = 128; // queries times group_size of a unit, unless one query alone has more heads

// Queries of a unit: as many as fill the rows, so that a tile of keys is widened once for all of them.
constexpr int queries_per_unit(int group_size) {
    const int n = kMaxQueryRows / group_size;
    return n < 1 ? 1 : n > 64 ? 64 : n;
}

// Floats of one query row in a partial result: the weighted sum of values, the maximum score, the sum of weights.
constexpr int64_t partial_row_floats(int value_length) {
    return round_up(value_length, 16) + 2;
}

} // namespace quipu
