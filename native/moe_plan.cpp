#include "moe_plan.h"

#include <cmath>

namespace quipu {

namespace {

constexpr int64_t kUnitBytes = 64 << 10; // weights a unit of the row kernels reads
// In a run of many tokens, an expert with up to so many of them uses the row kernels: a tile would be mostly empty.
constexpr int kFewTokens = 4;

int divide_up(int n, int by) {
    return (n + by - 1) / by;
}

int num_blocks(int k) {
    return divide_up(k, kBlock);
}

// Bytes of the SwiGLU result of up to 16 tokens, as panels or as rows, whichever the group needs.
int64_t hidden_slot_bytes(const Expert &expert) {
    const int64_t codes = std::max(2 * sizeof(TokenPanel), sizeof(ActivationPanel));
    const int64_t block = runs_on_int8(expert.down.type) ? codes : int64_t(sizeof(FloatPanel));
    static_assert(sizeof(ActivationPanel) >= kMaxRowTokens * activation_row_bytes(kBlock));
    static_assert(sizeof(FloatPanel) >= kMaxRowTokens * kBlock * sizeof(float));
    return num_blocks(expert.down.cols) * block;
}

} // namespace

PanelUses panel_uses(const Kernels &kernels, std::initializer_list<int> types) {
    PanelUses uses;
    for (const int type : types) {
        const bool tokens = kernels.tiles_blocks && has_block_rows(type);
        uses.tokens |= tokens;
        uses.codes |= runs_on_int8(type) && !tokens;
        uses.floats |= !runs_on_int8(type);
    }
    return uses;
}

void choose_experts(const float *logits, const MoeLayer &layer, int32_t *ids, float *weights) {
    int count = 0;
    for (int e = 0; e < layer.num_experts; e++) {
        if (count == layer.num_used && !(logits[e] > logits[ids[count - 1]]))
            continue;
        int place = count < layer.num_used ? count++ : count - 1;
        for (; place > 0 && logits[e] > logits[ids[place - 1]]; place--)
            ids[place] = ids[place - 1];
        ids[place] = e;
    }
    const float largest = logits[ids[0]];
    float all = 0.0f, chosen = 0.0f;
    for (int e = 0; e < layer.num_experts; e++)
        all += std::exp(logits[e] - largest);
    for (int i = 0; i < count; i++)
        chosen += weights[i] = std::exp(logits[ids[i]] - largest);
    // The probability of the largest is 1 / all, so neither sum can be zero. `all` is kept in the normalized case only
    // as far as it is not finite: a NaN among the logits must reach the result.
    const float divisor = !layer.normalize || !(all < INFINITY) ? all : chosen;
    for (int i = 0; i < count; i++)
        weights[i] *= layer.scale / divisor;
}

Expert MoeLayer::expert(int index) const {
    if (index == num_experts)
        return shared;
    const auto at = [index](Matrix w) {
        w.data += index * w.rows * w.row_bytes;
        return w;
    };
    return {at(experts.gate), at(experts.up), at(experts.down)};
}

MoeWorkspace::MoeWorkspace(Program &program, const std::vector<MoeLayer> &layers)
    : num_threads_(program.num_threads()), max_row_tokens_(program.kernels().max_row_tokens) {
    const int64_t tokens = program.max_tokens();
    int64_t row_bytes = 0, logits_width = 0, used = 0, experts = 0, hidden_bytes = 0;
    int64_t token_blocks = 0, code_blocks = 0, float_blocks = 0;
    for (const MoeLayer &layer : layers) {
        // Each group wastes less than one panel.
        const int64_t pairs = tokens * layer.num_used;
        const int64_t slots = pairs / kPanelTokens + std::min<int64_t>(layer.num_experts, pairs);
        const int64_t shared_slots = layer.has_shared ? num_panels(program.max_tokens()) : 0;
        int64_t hidden_here = slots * hidden_slot_bytes(layer.experts);
        if (layer.has_shared)
            hidden_here += shared_slots * hidden_slot_bytes(layer.shared);
        for (const Expert &expert : {layer.experts, layer.has_shared ? layer.shared : layer.experts}) {
            const PanelUses uses = panel_uses(program.kernels(), {expert.gate.type, expert.up.type});
            const int64_t needed = (slots + shared_slots) * num_blocks(layer.width());
            token_blocks = std::max(token_blocks, uses.tokens ? 2 * needed : 0);
            code_blocks = std::max(code_blocks, uses.codes ? needed : 0);
            float_blocks = std::max(float_blocks, uses.floats ? needed : 0);
        }
        hidden_bytes = std::max(hidden_bytes, hidden_here);
        row_bytes = std::max(row_bytes, activation_row_bytes(layer.width()));
        logits_width = std::max<int64_t>(logits_width, layer.num_experts + 1);
        used = std::max<int64_t>(used, layer.num_used);
        experts = std::max<int64_t>(experts, layer.num_experts);
    }
    input_rows = program.allocate(tokens * row_bytes);
    logits = reinterpret_cast<float *>(program.allocate(tokens * logits_width * 4));
    token_panels = reinterpret_cast<TokenPanel *>(program.allocate(token_blocks * int64_t(sizeof(TokenPanel))));
    code_panels = reinterpret_cast<ActivationPanel *>(program.allocate(code_blocks * int64_t(sizeof(ActivationPanel))));
    float_panels = reinterpret_cast<FloatPanel *>(program.allocate(float_blocks * int64_t(sizeof(FloatPanel))));
    hidden = program.allocate(hidden_bytes);
    chosen.resize(tokens * used);
    chosen_weights.resize(tokens * used);
    pair_tokens.resize(tokens * (used + 1));
    pair_weights.resize(tokens * (used + 1));
    starts_.resize(experts + 1);
    groups.reserve(experts + 1);
}

void MoeWorkspace::plan(const MoeLayer &layer, int num_tokens) {
    const bool all_as_rows = num_tokens <= max_row_tokens_;
    const int few_tokens = std::min(kFewTokens, max_row_tokens_);
    const int num_pairs = num_tokens * layer.num_used;
    std::fill(starts_.begin(), starts_.end(), 0);
    for (int pair = 0; pair < num_pairs; pair++)
        starts_[chosen[pair] + 1]++;
    groups.clear();
    num_input_panels = num_gate_units = 0;
    hidden_bytes_ = 0;
    for (int e = 0; e < layer.num_experts; e++) {
        const int count = starts_[e + 1];
        if (count)
            add_group(layer, e, starts_[e], count, all_as_rows || count <= few_tokens);
        starts_[e + 1] += starts_[e];
    }
    for (int pair = 0; pair < num_pairs; pair++) {
        const int place = starts_[chosen[pair]]++;
        pair_tokens[place] = pair / layer.num_used;
        pair_weights[place] = chosen_weights[pair];
    }
    if (layer.has_shared) {
        add_group(layer, layer.num_experts, num_pairs, num_tokens, all_as_rows);
        const bool gated = layer.shared_router.data != nullptr;
        for (int t = 0; t < num_tokens; t++) {
            pair_tokens[num_pairs + t] = t;
            const float logit = logits[int64_t(t) * (layer.num_experts + 1) + layer.num_experts];
            pair_weights[num_pairs + t] = gated ? 1.0f / (1.0f + std::exp(-logit)) : 1.0f;
        }
    }
    // A unit of the last step takes some output rows through all groups.
    if (all_as_rows) {
        int64_t bytes_per_row = 0;
        for (const Group &group : groups)
            bytes_per_row += layer.expert(group.expert).down.row_bytes;
        down_step = static_cast<int>(std::clamp<int64_t>(2 * kUnitBytes / bytes_per_row, 8, kMaxRowUnit)) / 8 * 8;
    } else {
        // Several tiles at a time meet each panel while it is in the near caches.
        down_step = kTileRows * std::clamp(layer.width() / (kTileRows * 8 * num_threads_), 1, 4);
    }
}

void MoeWorkspace::add_group(const MoeLayer &layer, int index, int first_pair, int num_tokens, bool as_rows) {
    const Expert expert = layer.expert(index);
    const int slots = num_panels(num_tokens), inner = expert.gate.rows;
    const int step = as_rows ? kMaxRowUnit : kGateRows;
    groups.push_back({index, first_pair, num_tokens, as_rows, num_input_panels, hidden_bytes_, num_gate_units, step});
    num_input_panels += as_rows ? 0 : slots;
    hidden_bytes_ += slots * hidden_slot_bytes(expert);
    num_gate_units += divide_up(inner, step);
}

} // namespace quipu
