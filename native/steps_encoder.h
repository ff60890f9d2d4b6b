// The steps of encoders that decoders do not have.
#pragma once

#include <memory>
#include <optional>

#include "program.h"

namespace quipu {

using Activation = void (*)(const float *, float *, int64_t);

// out = tokens[id] (+ positions[position]) (+ types[type of the token]).
std::unique_ptr<Step> make_embed_sum(const Kernels &kernels, Matrix tokens, std::optional<Matrix> positions,
                                     std::optional<Matrix> types, ValueBuffer out);
std::unique_ptr<Step> make_layer_norm(const Kernels &kernels, ValueBuffer x, const float *weight, const float *bias,
                                      float epsilon, ValueBuffer out);
std::unique_ptr<Step> make_activation(Activation activation, ValueBuffer x, ValueBuffer out);

} // namespace quipu
