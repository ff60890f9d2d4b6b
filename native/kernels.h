// The kernel table: one set of function pointers per instruction set, chosen once at run time.
#pragma once

#include <vector>

#include "formats/formats.h"
#include "layouts.h"

namespace quipu {

// Weight types whose dot products run on int8 activations; all others are unpacked to float first. An instruction set
// has a trait WeightsX for each type X.
#define QUIPU_INT8_TYPES(TYPE)                                                                                         \
    TYPE(Q4_0)                                                                                                         \
    TYPE(Q4_1)                                                                                                         \
    TYPE(Q5_0)                                                                                                         \
    TYPE(Q5_1)                                                                                                         \
    TYPE(Q8_0)                                                                                                         \
    TYPE(Q2_K)                                                                                                         \
    TYPE(Q3_K)                                                                                                         \
    TYPE(Q4_K)                                                                                                         \
    TYPE(Q5_K)                                                                                                         \
    TYPE(Q6_K)                                                                                                         \
    TYPE(IQ1_S)                                                                                                        \
    TYPE(IQ1_M)                                                                                                        \
    TYPE(IQ2_XXS)                                                                                                      \
    TYPE(IQ2_XS)                                                                                                       \
    TYPE(IQ2_S)                                                                                                        \
    TYPE(IQ3_XXS)                                                                                                      \
    TYPE(IQ3_S)                                                                                                        \
    TYPE(IQ4_NL)                                                                                                       \
    TYPE(IQ4_XS)                                                                                                       \
    TYPE(TQ1_0)                                                                                                        \
    TYPE(TQ2_0)                                                                                                        \
    TYPE(MXFP4)                                                                                                        \
    TYPE(NVFP4)                                                                                                        \
    TYPE(Q1_0)                                                                                                         \
    TYPE(Q2_0)

constexpr bool runs_on_int8(int type) {
    switch (type) {
#define QUIPU_CASE(X) case k##X:
        QUIPU_INT8_TYPES(QUIPU_CASE)
#undef QUIPU_CASE
        return true;
    default:
        return false;
    }
}

// Formats with blocks of 256 values: several tokens share what taking a block apart costs.
constexpr bool has_block_rows(int type) {
    switch (type) {
    case kQ2_K:
    case kQ3_K:
    case kQ4_K:
    case kQ5_K:
    case kQ6_K:
    case kIQ1_S:
    case kIQ1_M:
    case kIQ2_XXS:
    case kIQ2_XS:
    case kIQ2_S:
    case kIQ3_XXS:
    case kIQ3_S:
    case kIQ4_XS:
    case kTQ1_0:
    case kTQ2_0:
        return true;
    default:
        return false;
    }
}

struct Kernels {
    const char *name;
    // Up to here tokens go through `matvec`, with equal bits per token: at most kMaxRowTokens, and of formats with
    // blocks of 256 values kMaxBlockTokens.
    int max_row_tokens, max_block_tokens;
    bool tiles_blocks; // whether the tile kernels of formats with blocks of 256 values read panels of tokens too
    int row_tokens(int type) const { return has_block_rows(type) ? max_block_tokens : max_row_tokens; }

    // y = x / sqrt(mean(x^2) + epsilon) * weight, over consecutive groups of `group` values.
    void (*rms_norm)(const float *x, const float *weight, float *y, int width, int group, float epsilon);
    // y = silu(gate) * up; y = a + b.
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    // y = (x - mean) / sqrt(variance + epsilon) * weight + bias over the row.
    void (*layer_norm)(const float *x, const float *weight, const float *bias, float *y, int width, float epsilon);
    void (*gelu)(const float *x, float *y, int64_t n); // exact
    void (*gelu_tanh)(const float *x, float *y, int64_t n);
    void (*tanh)(const float *x, float *y, int64_t n);
    // Rotates heads of one token; cosines and sines [num_rotated / 2].
    void (*rope)(const float *x, float *y, int num_heads, int head_dim, int num_rotated, bool neox,
                 const float *cosines, const float *sines);

    void (*quantize_row)(const float *x, int k, ActivationRow out);
    // Packs tokens x[0..num_tokens) (stride floats apart) into panels[kb * panel_stride] for every block kb of K.
    void (*quantize_panel)(const float *x, int64_t stride, int num_tokens, int k, ActivationPanel *panels,
                           int64_t panel_stride);
    void (*float_panel)(const float *x, int64_t stride, int num_tokens, int k, FloatPanel *panels,
                        int64_t panel_stride);

    // Puts up to 16 quantized rows of k values, a multiple of 256, side by side: as token_lanes says for `matvec`, 8 to
    // a panel for `matmul_tile`. Panels of the next 256 values lie `stride` panels further on.
    void (*pack_tokens)(const ActivationRow *rows, int num_tokens, int k, int lanes, TokenPanel *panels, int stride);
    // out[token][row] = w[row] . x[token] for rows [row_begin, row_end) and up to row_tokens tokens.
    // Float types read x, int8 types read quantized rows, one after another; several tokens also as `panels` of
    // pack_tokens, which are made anew in `scratch` where they are not given.
    void (*matvec)(const Matrix &w, int row_begin, int row_end, const float *x, int64_t x_stride, uint8_t *quantized,
                   const TokenPanel *panels, int num_tokens, float *out, int64_t out_stride, float *scratch);
    // c[panel][kTileRows][16] = w[row_begin ...] . x for num_tokens packed tokens; `scratch` holds one unpacked tile.
    void (*matmul_tile)(const Matrix &w, int row_begin, int num_rows, const Panels &panels, int num_tokens, float *c,
                        uint8_t *scratch);

    void (*kv_write)(const KvLayer &layer, const float *k, const float *v, int64_t page, int slot, int kv_head);
    // Attention of the rows of `work` over its keys alone: out [rows][round_up(value_length, 16)], not divided by the
    // sum, then the maximum [rows] and the sum [rows]. Rows are queries, then heads of the group.
    void (*attention)(const AttentionShape &shape, const KvLayer &layer, const AttentionWork &work, float *scratch,
                      float *partial);
    // Adds up `count` partial results, `stride` floats apart, in their order, with the sink if there is one. The first
    // part is overwritten.
    void (*merge_attention)(const AttentionShape &shape, int kv_head, float *partials, int count, int64_t stride,
                            int num_queries, float *out, int64_t out_stride);

    // Read n bytes in different patterns, to measure what memory gives.
    uint8_t (*read_sequential)(const uint8_t *p, int64_t n);
    uint8_t (*read_prefetched)(const uint8_t *p, int64_t n);
    uint8_t (*read_streams)(const uint8_t *p, int64_t n);
};

// Bytes of scratch that matmul_tile and attention need.
constexpr int64_t kTileScratchBytes = int64_t(kTileRows) * kBlock * 4 + 131072;
constexpr int64_t attention_scratch_floats(const AttentionShape &shape) {
    const int64_t rows = int64_t(queries_per_unit(shape.group_size)) * shape.group_size,
                  key_tile = round_up(shape.key_length, kGroup) * kKeyTile;
    return rows * (shape.key_length + kKeyBlock) + key_tile + kKeyBlock * kValueSlice +
           rows * partial_row_floats(shape.value_length);
}

struct InstructionSet {
    const Kernels *kernels;
    bool supported; // by this processor and its operating system
    bool automatic; // whether it is chosen without being asked for
};

// All sets of this build, the best last.
const std::vector<InstructionSet> &instruction_sets();

// The best set this processor runs, or the one that QUIPU_INSTRUCTION_SET names; nullptr when that name is unknown or
// not supported here.
const Kernels *select_kernels(const char *requested);

} // namespace quipu
