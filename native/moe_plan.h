// The routing of mixture-of-experts layers: which tokens go to which expert, and where their values are kept.
#pragma once

#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <vector>

#include "program.h"

namespace quipu {

constexpr int kGateRows = kBlock;   // rows of gate and up in one unit of the tile kernels: whole panels of step 4
constexpr int kMaxRowUnit = kBlock; // most rows in a unit of the row kernels: what they give is packed as a block

// The three matrices of one expert.
struct Expert {
    Matrix gate, up; // [inner][width]
    Matrix down;     // [width][inner]
};

// The weights of one mixture-of-experts feed-forward.
struct MoeLayer {
    Matrix router;  // [num_experts][width]
    Expert experts; // the first one; in each tensor the others follow without a gap
    int num_experts;
    int num_used;   // experts per token
    bool normalize; // divide the chosen experts' probabilities by their sum
    float scale;    // of the experts' sum
    bool has_shared;
    Expert shared;        // sees every token
    Matrix shared_router; // [1][width]: the shared expert is multiplied by a sigmoid; no data: by 1

    int width() const { return router.cols; }
    // Expert `index`; num_experts is the shared one.
    Expert expert(int index) const;
};

// The tokens of one expert in this run.
struct Group {
    int expert;
    int first_pair, num_tokens; // pairs of token and expert are sorted by expert
    bool as_rows;               // row kernels, not tiles
    int first_panel;            // of the gathered input; groups that stay rows have no panels
    int64_t hidden_offset;      // bytes
    int first_gate_unit, gate_step;
};

// The num_used largest of a token's logits, ties to the lower index, and their weights. Whatever the logits are (NaN
// too), the ids are valid and distinct.
void choose_experts(const float *logits, const MoeLayer &layer, int32_t *ids, float *weights);

// Memory that the layers of one program share, and the routing of the run in progress.
// The kinds of panels that the tile kernels of some weights read.
struct PanelUses {
    bool tokens = false, codes = false, floats = false;
};
PanelUses panel_uses(const Kernels &kernels, std::initializer_list<int> types);

class MoeWorkspace {
  public:
    MoeWorkspace(Program &program, const std::vector<MoeLayer> &layers);

    // Sorts the chosen pairs by expert, and lays out what the groups pass on.
    void plan(const MoeLayer &layer, int num_tokens);

    const Group &group_of_panel(int panel) const {
        return *(std::upper_bound(groups.begin(), groups.end(), panel,
                                  [](int p, const Group &group) { return p < group.first_panel; }) -
                 1);
    }
    const Group &group_of_gate_unit(int unit) const {
        return *(std::upper_bound(groups.begin(), groups.end(), unit,
                                  [](int u, const Group &group) { return u < group.first_gate_unit; }) -
                 1);
    }

    uint8_t *input_rows = nullptr;          // [num_tokens][activation_row_bytes(width)]
    float *logits = nullptr;                // [num_tokens][num_experts + 1], the shared expert's last
    TokenPanel *token_panels = nullptr;     // per group [width / 256][panels of the group][2]
    ActivationPanel *code_panels = nullptr; // per group [width / 256][panels of the group]
    FloatPanel *float_panels = nullptr;     // the same
    Panels panels_from(int64_t panel) const {
        return {token_panels + 2 * panel, code_panels + panel, float_panels + panel};
    }
    uint8_t *hidden = nullptr;         // per group, at hidden_offset
    std::vector<int32_t> chosen;       // [num_tokens][num_used]
    std::vector<float> chosen_weights; // the same
    std::vector<int32_t> pair_tokens;  // sorted by expert, then by token
    std::vector<float> pair_weights;
    std::vector<Group> groups; // those with tokens
    int num_input_panels = 0, num_gate_units = 0, down_step = kTileRows;
    std::atomic<int> finished{0}; // units of the step that ends with a plan

  private:
    void add_group(const MoeLayer &layer, int expert, int first_pair, int num_tokens, bool as_rows);

    std::vector<int> starts_;
    int64_t hidden_bytes_ = 0; // used so far
    int num_threads_, max_row_tokens_;
};

} // namespace quipu
