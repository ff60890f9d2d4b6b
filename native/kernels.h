// The kernel table: one set of function pointers per instruction set, chosen once at run time.
#pragma once

#include <vector>

#include "formats/formats.h"
#include "layouts.h"

namespace quipu {

// Weight types whose dot products run on int8 activations; all others are unpacked to float first.
constexpr bool runs_on_int8(int type) {
    switch (type) {
    case kQ4_0:
    case kQ5_0:
    case kQ8_0:
    case kQ4_K:
    case kQ5_K:
    case kQ6_K:
        return true;
    default:
        return false;
    }
}

struct Kernels {
    const char *name;
    int max_row_tokens; // up to here tokens go through `matvec`, with equal bits per token; at most kMaxRowTokens

    // y = x / sqrt(mean(x^2) + epsilon) * weight, over consecutive groups of `group` values.
    void (*rms_norm)(const float *x, const float *weight, float *y, int width, int group, float epsilon);
    // y = silu(gate) * up; y = a + b.
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    // Rotates heads of one token; cosines and sines [num_rotated / 2].
    void (*rope)(const float *x, float *y, int num_heads, int head_dim, int num_rotated, bool neox,
                 const float *cosines, const float *sines);

    void (*quantize_row)(const float *x, int k, ActivationRow out);
    // Packs tokens x[0..num_tokens) (stride floats apart) into panels[kb * panel_stride] for every block kb of K.
    void (*quantize_panel)(const float *x, int64_t stride, int num_tokens, int k, ActivationPanel *panels,
                           int64_t panel_stride);
    void (*float_panel)(const float *x, int64_t stride, int num_tokens, int k, FloatPanel *panels,
                        int64_t panel_stride);

    // out[token][row] = w[row] . x[token] for rows [row_begin, row_end) and up to max_row_tokens tokens.
    // Float types read x, int8 types read quantized rows (`row_bytes` of activation memory per token).
    void (*matvec)(const Matrix &w, int row_begin, int row_end, const float *x, int64_t x_stride, uint8_t *quantized,
                   int num_tokens, float *out, int64_t out_stride, float *scratch);
    // c[panel][kTileRows][16] = w[row_begin ...] . x for num_tokens packed tokens; `scratch` holds one unpacked tile.
    void (*matmul_tile)(const Matrix &w, int row_begin, int num_rows, const ActivationPanel *panels,
                        const FloatPanel *float_panels, int num_tokens, float *c, uint8_t *scratch);

    void (*kv_write)(const KvLayer &layer, const float *k, const float *v, int64_t page, int slot, int kv_head);
    void (*attention)(const AttentionWork &work, float *scratch);

    // Read n bytes in different patterns, to measure what memory gives.
    uint8_t (*read_sequential)(const uint8_t *p, int64_t n);
    uint8_t (*read_prefetched)(const uint8_t *p, int64_t n);
    uint8_t (*read_streams)(const uint8_t *p, int64_t n);
};

// Bytes of scratch that matmul_tile and attention need.
constexpr int64_t kTileScratchBytes = int64_t(kTileRows) * kBlock * 4 + 131072;
constexpr int64_t attention_scratch_floats(int group_size, int key_length, int value_length, int page_size) {
    return int64_t(kQueriesPerUnit) * group_size * (key_length + value_length + page_size + 2);
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
