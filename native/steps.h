// The steps a program is made of: one class per op of quipu.backends.program, plus the packing of activations.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "program.h"

namespace quipu {

// How the weights of the linear step that follows read their input.
struct ActivationUses {
    bool as_blocks, as_int8, as_float; // int8 weights with blocks of 256 values, the other int8 weights, float weights
};

// Activations packed for the matrix kernels. One exists per program: a step packs the input of the linear step that
// follows. Rows are quantized one by one up to what the row kernels of a reading weight take; more become panels.
struct PackedActivations {
    uint8_t *rows = nullptr;                // [kMaxBlockTokens][activation_row_bytes]
    TokenPanel *token_panels = nullptr;     // [K / 256][token_panels], or two for each of num_panels
    ActivationPanel *code_panels = nullptr; // [K / 256][num_panels]
    FloatPanel *float_panels = nullptr;

    Panels panels() const { return {token_panels, code_panels, float_panels}; }
};

// The units of attention in a run, and the memory of their partial results: shared by all layers with the same window,
// number of query heads per KV head, and mask. Without a causal mask every query of a sequence sees all its keys, as
// the one at its last position does with it.
//
// A unit is a block of queries of one sequence against a chunk of its keys. Chunks lie at multiples of their size,
// which depends on the number of new tokens alone and is the same for all small ones; so neither the threads nor other
// sequences change how a token's result is put together. The size grows with the number of query blocks, which give
// work to all threads by themselves, and so bounds the memory of partial results.
class AttentionPlan final : public RunPlan {
  public:
    struct Unit {
        int32_t sequence, first_token, num_queries; // token: of the run
        int32_t first_position, key_begin, key_end;
        int32_t query_block, chunk, num_chunks;
        int64_t partial_rows; // queries whose partial results lie before those of this query block
    };

    AttentionPlan(int window, int group_size, bool causal)
        : window_(window), group_size_(group_size), causal_(causal) {}
    // Called while the program is recorded: floats of one query's partial result over all its heads.
    void reserve(int num_kv_heads, int64_t floats_per_query);
    void prepare(const RunArguments &run) override;

    int window() const { return window_; }
    int group_size() const { return group_size_; }
    const std::vector<Unit> &units() const { return units_; }
    float *partials(int64_t partial_rows) const { return partials_.get() + partial_rows * floats_per_query_; }
    // Counts the finished chunks of a query block and head; the last one sets it back to zero.
    std::atomic<int> &finished(int query_block, int kv_head) const {
        return finished_[int64_t(query_block) * max_kv_heads_ + kv_head];
    }

  private:
    void append_block(int sequence, int first_token, int num_queries, int first_position, int chunk_size);

    int window_, group_size_;
    bool causal_;
    int max_kv_heads_ = 0;
    int64_t floats_per_query_ = 0;
    std::vector<Unit> units_;
    int num_blocks_ = 0, counted_blocks_ = 0;
    int64_t partial_rows_ = 0, allocated_rows_ = 0;
    std::unique_ptr<float[]> partials_;
    std::unique_ptr<std::atomic<int>[]> finished_;
};

struct RopeTable {
    float *cosines = nullptr; // [num_tokens][num_rotated / 2]
    float *sines = nullptr;
    int num_rotated = 0;
};

// One product of a linear step: out = w x (+ bias) (+ residual).
struct Product {
    Matrix weight;
    const float *bias; // or nullptr
    ValueBuffer out;
};

std::unique_ptr<Step> make_embed(Matrix table, ValueBuffer out);
std::unique_ptr<Step> make_rms_norm(const Kernels &kernels, ValueBuffer x, const float *weight, int group,
                                    float epsilon, ValueBuffer out);
// Packs x for linear steps; with a norm weight it normalizes x into `normalized` first.
std::unique_ptr<Step> make_pack(const Kernels &kernels, ValueBuffer x, const float *norm_weight, float epsilon,
                                ValueBuffer normalized, ActivationUses uses, PackedActivations packed);
std::unique_ptr<Step> make_linear(const Kernels &kernels, ValueBuffer x, std::vector<Product> products,
                                  ValueBuffer residual, PackedActivations packed);
std::unique_ptr<Step> make_swiglu_linear(const Kernels &kernels, ValueBuffer x, Matrix gate, Matrix up, ValueBuffer out,
                                         PackedActivations packed);
std::unique_ptr<Step> make_rope_table(std::vector<float> inverse_frequencies, float magnitude, RopeTable table);
std::unique_ptr<Step> make_rope(const Kernels &kernels, ValueBuffer x, int head_dim, bool neox, RopeTable table,
                                ValueBuffer out);
std::unique_ptr<Step> make_kv_write(const Kernels &kernels, ValueBuffer k, ValueBuffer v, int layer);
std::unique_ptr<Step> make_attention(const Kernels &kernels, ValueBuffer q, int layer, const AttentionShape &shape,
                                     std::shared_ptr<AttentionPlan> plan, ValueBuffer out);
std::unique_ptr<Step> make_swiglu(const Kernels &kernels, ValueBuffer gate, ValueBuffer up, ValueBuffer out);
std::unique_ptr<Step> make_add(const Kernels &kernels, ValueBuffer x, ValueBuffer y, ValueBuffer out);
std::unique_ptr<Step> make_select_outputs(ValueBuffer x, ValueBuffer out);

} // namespace quipu
