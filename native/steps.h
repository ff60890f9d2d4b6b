// The steps a program is made of: one class per op of quipu.backends.program, plus the packing of activations.
#pragma once

#include <memory>
#include <vector>

#include "program.h"

namespace quipu {

// Activations packed for the matrix kernels. One exists per program: a step packs the input of the linear step that
// follows. Up to kMaxRowTokens rows are quantized one by one; more become panels.
struct PackedActivations {
    uint8_t *rows = nullptr;           // [kMaxRowTokens][activation_row_bytes]
    ActivationPanel *panels = nullptr; // [K / 256][num_panels]
    FloatPanel *float_panels = nullptr;
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
                                ValueBuffer normalized, bool as_int8, bool as_float, PackedActivations packed);
std::unique_ptr<Step> make_linear(const Kernels &kernels, ValueBuffer x, std::vector<Product> products,
                                  ValueBuffer residual, PackedActivations packed);
std::unique_ptr<Step> make_swiglu_linear(const Kernels &kernels, ValueBuffer x, Matrix gate, Matrix up, ValueBuffer out,
                                         PackedActivations packed);
std::unique_ptr<Step> make_rope_table(std::vector<float> inverse_frequencies, float magnitude, RopeTable table);
std::unique_ptr<Step> make_rope(const Kernels &kernels, ValueBuffer x, int head_dim, bool neox, RopeTable table,
                                ValueBuffer out);
std::unique_ptr<Step> make_kv_write(const Kernels &kernels, ValueBuffer k, ValueBuffer v, int layer);
std::unique_ptr<Step> make_attention(const Kernels &kernels, ValueBuffer q, int layer, int num_heads,
                                     const KvLayer &shape, float scale, ValueBuffer out);
std::unique_ptr<Step> make_swiglu(const Kernels &kernels, ValueBuffer gate, ValueBuffer up, ValueBuffer out);
std::unique_ptr<Step> make_add(const Kernels &kernels, ValueBuffer x, ValueBuffer y, ValueBuffer out);
std::unique_ptr<Step> make_select_outputs(ValueBuffer x, ValueBuffer out);

} // namespace quipu
