#include "steps_moe.h"

#include <algorithm>
#include <cstring>

namespace quipu {

namespace {

constexpr int64_t kUnitBytes = 64 << 10; // of router weights

int divide_up(int n, int by) {
    return (n + by - 1) / by;
}

int num_blocks(int k) {
    return divide_up(k, kBlock);
}

Matrix slice_rows(Matrix w, int begin, int end) {
    w.data += begin * w.row_bytes;
    w.rows = end - begin;
    return w;
}

// Asks for the first rows of a matrix while another one is being read: the row kernels look ahead in their own rows
// only.
void prefetch_start(const Matrix &w) {
    constexpr int kBytes = 2048;
    for (int i = 0; i < kBytes; i += 64)
        __builtin_prefetch(w.data + i);
}

int64_t tile_floats(int num_tokens) {
    return int64_t(num_panels(num_tokens)) * kTileRows * kPanelTokens;
}

void gather_codes(const ActivationRow *rows, int count, int block, ActivationPanel &panel) {
    if (count < kPanelTokens)
        std::memset(&panel, 0, sizeof(panel));
    const int first_group = block * kGroupsPerBlock;
    for (int i = 0; i < kBlock / 4; i++)
        for (int t = 0; t < count; t++)
            std::memcpy(panel.codes[i][t], rows[t].codes + block * kBlock + 4 * i, 4);
    for (int g = 0; g < kGroupsPerBlock; g++) {
        for (int t = 0; t < count; t++) {
            panel.scales[g][t] = rows[t].scales[first_group + g];
            panel.sums32[g][t] = rows[t].sums32[first_group + g];
            panel.sums16[2 * g][t] = rows[t].sums16[2 * (first_group + g)];
            panel.sums16[2 * g + 1][t] = rows[t].sums16[2 * (first_group + g) + 1];
        }
    }
}

void gather_floats(const float *const *rows, int count, int block, int k, FloatPanel &panel) {
    const int size = std::min(kBlock, k - block * kBlock);
    if (count < kPanelTokens || size < kBlock)
        std::memset(&panel, 0, sizeof(panel));
    for (int i = 0; i < size; i++)
        for (int t = 0; t < count; t++)
            panel.values[i][t] = rows[t][block * kBlock + i];
}

// What the four steps of a layer know.
class MoeStep : public Step {
  public:
    MoeStep(const Kernels &kernels, const MoeLayer &layer, const MoeValues &values,
            std::shared_ptr<MoeWorkspace> workspace)
        : kernels_(kernels), layer_(layer), values_(values), workspace_(std::move(workspace)), space_(*workspace_) {}

  protected:
    int num_tokens(const RunArguments &run) const { return values_.source.num_rows(run); }
    bool is_few(const RunArguments &run) const { return num_tokens(run) <= kernels_.max_row_tokens; }
    const float *input(int64_t token) const {
        return values_.norm_weight ? values_.normalized.row(token) : values_.source.row(token);
    }
    uint8_t *input_row(int64_t token) const { return space_.input_rows + token * activation_row_bytes(layer_.width()); }
    float *logits(int64_t token) const { return space_.logits + token * (layer_.num_experts + 1); }

    // Logits of tokens [first, first + count), count <= max_row_tokens, for router rows [begin, end).
    void route(const Matrix &router, int begin, int end, int first, int count, float *out, float *scratch) const {
        kernels_.matvec(router, begin, end, input(first), layer_.width(), input_row(first), nullptr, count, out,
                        layer_.num_experts + 1, scratch);
    }
    void route_shared(int first, int count, float *scratch) const {
        if (layer_.shared_router.data)
            route(layer_.shared_router, 0, 1, first, count, logits(first) + layer_.num_experts, scratch);
    }
    void choose(int token) const {
        const int64_t place = int64_t(token) * layer_.num_used;
        choose_experts(logits(token), layer_, &space_.chosen[place], &space_.chosen_weights[place]);
    }
    // Whether this was the last of the step's units; everything that the others wrote is then visible.
    bool finish_unit(int num_units) const {
        if (space_.finished.fetch_add(1, std::memory_order_acq_rel) + 1 < num_units)
            return false;
        space_.finished.store(0, std::memory_order_relaxed);
        return true;
    }

    const Kernels &kernels_;
    MoeLayer layer_;
    MoeValues values_;
    std::shared_ptr<MoeWorkspace> workspace_;
    MoeWorkspace &space_;
};

// Step 1: norm and quantization; of many tokens also their experts.
class MoePrepare final : public MoeStep {
  public:
    MoePrepare(const Kernels &kernels, const MoeLayer &layer, const MoeValues &values,
               std::shared_ptr<MoeWorkspace> workspace)
        : MoeStep(kernels, layer, values, std::move(workspace)), quantizes_(reads_int8(layer)) {}

    bool is_short(const RunArguments &run) const override { return run.num_tokens <= kShortTokens; }

    int num_units(const RunArguments &run) const override {
        return is_few(run) ? num_tokens(run) : divide_up(num_tokens(run), kernels_.max_row_tokens);
    }
    int64_t scratch_floats(int) const override { return matvec_scratch_floats(layer_.width()); }

    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        if (is_few(run))
            return prepare(unit);
        const int most = kernels_.max_row_tokens, first = unit * most, count = std::min(most, num_tokens(run) - first);
        for (int token = first; token < first + count; token++)
            prepare(token);
        route(layer_.router, 0, layer_.num_experts, first, count, logits(first), worker.scratch);
        route_shared(first, count, worker.scratch);
        for (int token = first; token < first + count; token++)
            choose(token);
        if (finish_unit(num_units(run)))
            space_.plan(layer_, num_tokens(run));
    }

  private:
    static bool reads_int8(const MoeLayer &layer) {
        bool any = runs_on_int8(layer.router.type) || runs_on_int8(layer.experts.gate.type) ||
                   runs_on_int8(layer.experts.up.type);
        if (layer.has_shared)
            any = any || runs_on_int8(layer.shared.gate.type) || runs_on_int8(layer.shared.up.type) ||
                  (layer.shared_router.data && runs_on_int8(layer.shared_router.type));
        return any;
    }

    void prepare(int token) const {
        const int width = layer_.width();
        if (values_.norm_weight)
            kernels_.rms_norm(values_.source.row(token), values_.norm_weight, values_.normalized.row(token), width,
                              width, values_.epsilon);
        if (quantizes_)
            kernels_.quantize_row(input(token), width, activation_row(input_row(token), width));
    }

    bool quantizes_;
};

// Step 2: the experts of few tokens, or the panels of many.
class MoeRoute final : public MoeStep {
  public:
    using MoeStep::MoeStep;

    int num_units(const RunArguments &run) const override {
        if (num_tokens(run) == 0)
            return 0;
        return is_few(run) ? divide_up(layer_.num_experts, router_step()) : space_.num_input_panels;
    }
    int64_t scratch_floats(int) const override { return matvec_scratch_floats(layer_.width()); }

    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        if (!is_few(run))
            return gather(unit);
        const int begin = unit * router_step(), end = std::min(begin + router_step(), layer_.num_experts);
        route(layer_.router, begin, end, 0, num_tokens(run), logits(0), worker.scratch);
        if (unit == 0)
            route_shared(0, num_tokens(run), worker.scratch);
        if (!finish_unit(num_units(run)))
            return;
        for (int token = 0; token < num_tokens(run); token++)
            choose(token);
        space_.plan(layer_, num_tokens(run));
    }

  private:
    int router_step() const {
        return static_cast<int>(std::clamp<int64_t>(kUnitBytes / layer_.router.row_bytes, 4, kMaxRowUnit));
    }

    void gather(int panel) const {
        const Group &group = space_.group_of_panel(panel);
        const Expert expert = layer_.expert(group.expert);
        const int index = panel - group.first_panel, panels = num_panels(group.num_tokens), width = layer_.width();
        const int first = index * kPanelTokens, count = std::min(kPanelTokens, group.num_tokens - first);
        const int64_t base = int64_t(group.first_panel) * num_blocks(width) + index;
        ActivationRow rows[kPanelTokens];
        const float *float_rows[kPanelTokens];
        for (int t = 0; t < count; t++) {
            const int token = space_.pair_tokens[group.first_pair + first + t];
            rows[t] = activation_row(input_row(token), width);
            float_rows[t] = input(token);
        }
        const PanelUses uses = panel_uses(kernels_, {expert.gate.type, expert.up.type});
        if (uses.tokens)
            kernels_.pack_tokens(rows, count, width, 8, space_.token_panels + 2 * base, 2 * panels);
        for (int block = 0; block < num_blocks(width); block++) {
            if (uses.codes)
                gather_codes(rows, count, block, space_.code_panels[base + int64_t(block) * panels]);
            if (uses.floats)
                gather_floats(float_rows, count, block, width, space_.float_panels[base + int64_t(block) * panels]);
        }
    }
};

// Step 3: silu(gate x) * (up x) for some inner rows of one expert and all of its tokens, packed for step 4.
class MoeGateUp final : public MoeStep {
  public:
    using MoeStep::MoeStep;

    int num_units(const RunArguments &run) const override { return num_tokens(run) ? space_.num_gate_units : 0; }

    int64_t scratch_floats(int max_tokens) const override {
        const int64_t width = round_up(layer_.width(), kBlock);
        const int64_t rows = matvec_scratch_floats(width) + 2 * kMaxRowTokens * kMaxRowUnit +
                             kMaxRowTokens * (activation_row_bytes(width) / 4 + width);
        const int64_t tiles = 2 * tile_floats(max_tokens) + int64_t(num_panels(max_tokens)) * kPanelTokens * kGateRows +
                              kPanelTokens * activation_row_bytes(kGateRows) / 4;
        return std::max(rows, tiles);
    }

    void execute(int unit, const RunArguments &, const Worker &worker) const override {
        const Group &group = space_.group_of_gate_unit(unit);
        const Expert expert = layer_.expert(group.expert);
        const int begin = (unit - group.first_gate_unit) * group.gate_step,
                  end = std::min(begin + group.gate_step, expert.gate.rows);
        if (group.as_rows)
            execute_rows(group, expert, begin, end, worker.scratch);
        else
            execute_tiles(group, expert, begin, end, worker);
    }

  private:
    void execute_rows(const Group &group, const Expert &expert, int begin, int end, float *scratch) const {
        const int width = layer_.width(), n = group.num_tokens, rows = end - begin;
        float *gate = scratch + matvec_scratch_floats(width), *up = gate + kMaxRowTokens * kMaxRowUnit;
        auto *gathered = reinterpret_cast<uint8_t *>(up + kMaxRowTokens * kMaxRowUnit);
        const int32_t *tokens = &space_.pair_tokens[group.first_pair];
        const float *x = input(tokens[0]);
        uint8_t *quantized = input_row(tokens[0]);
        if (n > 1) { // the row kernels want their tokens side by side
            const int64_t bytes = activation_row_bytes(width);
            auto *floats = reinterpret_cast<float *>(gathered + kMaxRowTokens * bytes);
            for (int t = 0; t < n; t++) {
                std::memcpy(gathered + t * bytes, input_row(tokens[t]), bytes);
                std::memcpy(floats + int64_t(t) * width, input(tokens[t]), sizeof(float) * width);
            }
            x = floats;
            quantized = gathered;
        }
        const Matrix gate_rows = slice_rows(expert.gate, begin, end), up_rows = slice_rows(expert.up, begin, end);
        prefetch_start(up_rows);
        kernels_.matvec(gate_rows, 0, rows, x, width, quantized, nullptr, n, gate, kMaxRowUnit, scratch);
        kernels_.matvec(up_rows, 0, rows, x, width, quantized, nullptr, n, up, kMaxRowUnit, scratch);
        for (int t = 0; t < n; t++) {
            float *row = gate + t * kMaxRowUnit;
            kernels_.swiglu(row, up + t * kMaxRowUnit, row, rows);
            store_row(group, expert.down, t, begin, end, row);
        }
    }

    // Puts values [begin, end) of token t's row where the row kernels of step 4 read them.
    void store_row(const Group &group, const Matrix &down, int t, int begin, int end, const float *values) const {
        const int inner = down.cols;
        uint8_t *hidden = space_.hidden + group.hidden_offset;
        if (!runs_on_int8(down.type)) {
            auto *floats = reinterpret_cast<float *>(hidden);
            std::memcpy(floats + t * round_up(inner, kBlock) + begin, values, sizeof(float) * (end - begin));
            return;
        }
        // Whole blocks, as units begin at multiples of kBlock; the last one brings the zeros that pad the row.
        kernels_.quantize_row(values, end - begin,
                              activation_row(hidden + t * activation_row_bytes(inner), inner).from(begin));
    }

    void execute_tiles(const Group &group, const Expert &expert, int begin, int end, const Worker &worker) const {
        const int n = group.num_tokens, panels = num_panels(n);
        const int64_t base = int64_t(group.first_panel) * num_blocks(layer_.width()), size = tile_floats(n);
        float *gate = worker.scratch, *up = gate + size, *rows = up + size;
        auto *quantized = reinterpret_cast<uint8_t *>(rows + int64_t(panels) * kPanelTokens * kGateRows);
        const bool on_int8 = runs_on_int8(expert.down.type);
        const auto multiply = [&](const Matrix &w, int first, int count, float *tile) {
            kernels_.matmul_tile(w, first, count, space_.panels_from(base), n, tile, worker.tile_scratch);
        };
        for (int first = begin; first < end; first += kTileRows) {
            const int count = std::min(kTileRows, end - first);
            multiply(expert.gate, first, count, gate);
            multiply(expert.up, first, count, up);
            for (int p = 0; p < panels; p++) {
                float *tile = gate + p * kTileRows * kPanelTokens;
                kernels_.swiglu(tile, up + p * kTileRows * kPanelTokens, tile, count * kPanelTokens);
                if (on_int8)
                    transpose(tile, count, rows + int64_t(p) * kPanelTokens * kGateRows + (first - begin));
                else
                    store_float_panel(group, p, first, count, tile);
            }
        }
        if (!on_int8)
            return;
        for (int p = 0; p < panels; p++)
            store_panel(group, p, begin, end, rows + int64_t(p) * kPanelTokens * kGateRows, quantized);
    }

    // [count][16 tokens] to rows of tokens, kGateRows apart.
    static void transpose(const float *tile, int count, float *rows) {
        for (int r = 0; r < count; r++)
            for (int t = 0; t < kPanelTokens; t++)
                rows[t * kGateRows + r] = tile[r * kPanelTokens + t];
    }

    // Values [begin, end) of 16 tokens: all of 256 values, or the last of them.
    void store_panel(const Group &group, int p, int begin, int end, const float *rows, uint8_t *quantized) const {
        const int count = std::min(kPanelTokens, group.num_tokens - p * kPanelTokens), size = end - begin;
        const int64_t place = int64_t(begin / kBlock) * num_panels(group.num_tokens) + p;
        uint8_t *hidden = space_.hidden + group.hidden_offset;
        if (!panel_uses(kernels_, {layer_.expert(group.expert).down.type}).tokens)
            return kernels_.quantize_panel(rows, kGateRows, count, size,
                                           reinterpret_cast<ActivationPanel *>(hidden) + place, 1);
        ActivationRow packed[kPanelTokens];
        for (int t = 0; t < count; t++) {
            packed[t] = activation_row(quantized + t * activation_row_bytes(kGateRows), kGateRows);
            kernels_.quantize_row(rows + int64_t(t) * kGateRows, size, packed[t]);
        }
        kernels_.pack_tokens(packed, count, size, 8, reinterpret_cast<TokenPanel *>(hidden) + 2 * place, 1);
    }

    void store_float_panel(const Group &group, int p, int first, int count, const float *tile) const {
        auto *panels = reinterpret_cast<FloatPanel *>(space_.hidden + group.hidden_offset);
        for (int row = first; row < first + count; row++) {
            FloatPanel &to = panels[int64_t(row / kBlock) * num_panels(group.num_tokens) + p];
            std::memcpy(to.values[row % kBlock], tile + (row - first) * kPanelTokens, sizeof(to.values[0]));
        }
    }
};

// Step 4: some output rows of all experts, weighted and summed.
class MoeDown final : public MoeStep {
  public:
    using MoeStep::MoeStep;

    int num_units(const RunArguments &run) const override {
        return num_tokens(run) ? divide_up(layer_.width(), space_.down_step) : 0;
    }

    int64_t scratch_floats(int max_tokens) const override {
        const int inner = std::max(layer_.experts.down.cols, layer_.has_shared ? layer_.shared.down.cols : 0);
        // In a run of many tokens a unit takes up to four tiles of rows.
        const int64_t rows = matvec_scratch_floats(inner) + int64_t(kMaxRowTokens) * kMaxRowUnit;
        return std::max(rows, tile_floats(max_tokens));
    }

    void execute(int unit, const RunArguments &run, const Worker &worker) const override {
        const int begin = unit * space_.down_step, end = std::min(begin + space_.down_step, layer_.width());
        for (int token = 0; token < num_tokens(run); token++) {
            float *out = values_.out.row(token);
            if (!values_.residual.data)
                std::memset(out + begin, 0, sizeof(float) * (end - begin));
            else if (out != values_.residual.row(token))
                std::memcpy(out + begin, values_.residual.row(token) + begin, sizeof(float) * (end - begin));
        }
        for (size_t i = 0; i < space_.groups.size(); i++) {
            const Group &group = space_.groups[i];
            const Matrix down = layer_.expert(group.expert).down;
            if (i + 1 < space_.groups.size())
                prefetch_start(slice_rows(layer_.expert(space_.groups[i + 1].expert).down, begin, end));
            if (group.as_rows)
                add_rows(group, down, begin, end, worker.scratch);
            else
                for (int first = begin; first < end; first += kTileRows)
                    add_tile(group, down, first, std::min(kTileRows, end - first), worker);
        }
    }

  private:
    void add_rows(const Group &group, const Matrix &down, int begin, int end, float *scratch) const {
        float *y = scratch + matvec_scratch_floats(down.cols);
        uint8_t *hidden = space_.hidden + group.hidden_offset;
        kernels_.matvec(slice_rows(down, begin, end), 0, end - begin, reinterpret_cast<const float *>(hidden),
                        round_up(down.cols, kBlock), hidden, nullptr, group.num_tokens, y, kMaxRowUnit, scratch);
        for (int t = 0; t < group.num_tokens; t++) {
            float *out = values_.out.row(space_.pair_tokens[group.first_pair + t]) + begin;
            const float weight = space_.pair_weights[group.first_pair + t];
            for (int r = 0; r < end - begin; r++)
                out[r] += weight * y[t * kMaxRowUnit + r];
        }
    }

    void add_tile(const Group &group, const Matrix &down, int first, int count, const Worker &worker) const {
        uint8_t *hidden = space_.hidden + group.hidden_offset;
        const Panels panels{reinterpret_cast<const TokenPanel *>(hidden),
                            reinterpret_cast<const ActivationPanel *>(hidden),
                            reinterpret_cast<const FloatPanel *>(hidden)}; // one of them
        kernels_.matmul_tile(down, first, count, panels, group.num_tokens, worker.scratch, worker.tile_scratch);
        for (int t = 0; t < group.num_tokens; t++) {
            const float *column =
                worker.scratch + int64_t(t / kPanelTokens) * kTileRows * kPanelTokens + t % kPanelTokens;
            float *out = values_.out.row(space_.pair_tokens[group.first_pair + t]) + first;
            const float weight = space_.pair_weights[group.first_pair + t];
            for (int r = 0; r < count; r++)
                out[r] += weight * column[r * kPanelTokens];
        }
    }
};

} // namespace

void append_moe(Program &program, const MoeLayer &layer, const MoeValues &values,
                std::shared_ptr<MoeWorkspace> workspace, bool waits) {
    const Kernels &kernels = program.kernels();
    program.append(std::make_unique<MoePrepare>(kernels, layer, values, workspace), waits);
    program.append(std::make_unique<MoeRoute>(kernels, layer, values, workspace), true);
    program.append(std::make_unique<MoeGateUp>(kernels, layer, values, workspace), true);
    program.append(std::make_unique<MoeDown>(kernels, layer, values, workspace), true);
}

} // namespace quipu
