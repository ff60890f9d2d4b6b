// Mixture of experts: a router picks a few experts for every token, and each expert is a SwiGLU feed-forward.
//
// Four steps, and so four barriers. Few tokens: (1) norm and quantization, (2) router and choice, (3) gate, up and
// SwiGLU, (4) down with the weighted sum. Many tokens: (1) norm, quantization, router and choice, (2) tokens of an
// expert are gathered into panels, (3) and (4) as before. Tokens are sorted by expert, and an expert's weights are read
// once for all of its tokens. Every output value is summed by one worker, in ascending order of experts, so that the
// number of threads changes no bit.
#pragma once

#include <memory>

#include "moe_plan.h"

namespace quipu {

// What goes in and out. The input is `source`, or with a norm weight its norm, which is written to `normalized`.
struct MoeValues {
    ValueBuffer source, normalized;
    const float *norm_weight; // or nullptr
    float epsilon;
    ValueBuffer residual; // added to the result; no data: nothing is
    ValueBuffer out;      // may be the same memory as the residual
};

// Appends the steps of one layer; `waits` is for the first of them.
void append_moe(Program &program, const MoeLayer &layer, const MoeValues &values,
                std::shared_ptr<MoeWorkspace> workspace, bool waits);

} // namespace quipu
