// What sampling is told: the steps of a request, the texts of tokens, and what steps remember of a sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quipu {

constexpr int kNotANumber = -1;     // the logits hold a NaN or an infinity
constexpr int kNothingAllowed = -2; // every token is forbidden

enum class ChainStepKind {
    penalties,
    dry,
    top_n_sigma,
    top_k,
    typical,
    top_p,
    min_p,
    xtc,
    temperature,
    dynamic_temperature,
    infill,
    // The last step of a chain chooses.
    dist,
    greedy,
    adaptive_p,
    mirostat,
    mirostat_v2,
};

constexpr bool chooses(ChainStepKind kind) {
    return kind >= ChainStepKind::dist;
}

// What tokens add to a text, and those that end a generation.
struct TokenPieces {
    std::string bytes;
    std::vector<int64_t> offsets; // of piece i: from offsets[i] to offsets[i + 1]
    std::vector<int32_t> end_ids; // ascending

    std::string_view piece(int32_t id) const {
        if (size_t(id) + 1 >= offsets.size())
            return {};
        return std::string_view(bytes).substr(size_t(offsets[size_t(id)]),
                                              size_t(offsets[size_t(id) + 1] - offsets[size_t(id)]));
    }
};

// Sequences of tokens that repetitions do not reach across, by their first tokens: what follows each.
using SequenceBreakers = std::unordered_map<int32_t, std::vector<std::vector<int32_t>>>;

struct ChainStep {
    ChainStepKind kind;
    double values[4]; // as in quipu/engine/sampler.py
    SequenceBreakers breakers;
    std::shared_ptr<const TokenPieces> pieces;
};

struct SamplerChain {
    std::vector<ChainStep> steps;
    std::vector<int32_t> bias_ids;
    std::vector<float> bias_values;
    std::vector<int32_t> early_forbidden; // at positions below early_end
    int64_t early_end = 0;
    bool post_sampling_probs = false;
};

// Of the last step: mirostat's mu, or adaptive-p's weighted sum and total weight.
struct SamplerState {
    double values[2] = {0, 0};
};

inline SamplerState initial_state(const SamplerChain &chain) {
    const ChainStep &last = chain.steps.back();
    if (last.kind == ChainStepKind::mirostat || last.kind == ChainStepKind::mirostat_v2)
        return {{2.0 * last.values[0], 0.0}};
    if (last.kind == ChainStepKind::adaptive_p) // as if the target had been met all along
        return {{last.values[0] / (1.0 - last.values[1]), 1.0 / (1.0 - last.values[1])}};
    return {};
}

// How likely a token was, and the most likely ones at its place.
struct Logprobs {
    double logprob;
    std::vector<std::pair<int32_t, double>> top;
};

} // namespace quipu
