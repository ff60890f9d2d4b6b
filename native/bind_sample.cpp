// Python's view of sampling: chains are made once per request, and all rows of a step are sampled in one call.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "bind.h"
#include "ops/sample.h"
#include "ops/sample_scans.h"

namespace {

using namespace quipu;
using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Masks = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// Draw of quipu/engine/sampler.py.
using Draw =
    std::tuple<const SamplerChain *, SamplerState *, Tokens, uint64_t, int64_t, Tokens, std::optional<Masks>, int>;
using Step =
    std::tuple<std::string, std::vector<double>, std::vector<std::vector<int32_t>>, std::shared_ptr<const TokenPieces>>;
using TokenLogprobs = std::tuple<int32_t, double, std::vector<std::pair<int32_t, double>>>;
using Drawn = std::pair<std::vector<int32_t>, std::optional<std::vector<TokenLogprobs>>>;

constexpr int kMostTokens = 1 << 19; // sums of their masses fit 64 bits

void require(bool condition, const char *message) {
    if (!condition)
        throw nb::value_error(message);
}

struct StepName {
    const char *name;
    ChainStepKind kind;
    size_t num_values;
};

constexpr StepName kStepNames[] = {
    {"penalties", ChainStepKind::penalties, 4},
    {"dry", ChainStepKind::dry, 4},
    {"top_n_sigma", ChainStepKind::top_n_sigma, 1},
    {"top_k", ChainStepKind::top_k, 1},
    {"typical", ChainStepKind::typical, 2},
    {"top_p", ChainStepKind::top_p, 2},
    {"min_p", ChainStepKind::min_p, 2},
    {"xtc", ChainStepKind::xtc, 3},
    {"temperature", ChainStepKind::temperature, 1},
    {"dynamic_temperature", ChainStepKind::dynamic_temperature, 3},
    {"infill", ChainStepKind::infill, 0},
    {"dist", ChainStepKind::dist, 0},
    {"greedy", ChainStepKind::greedy, 0},
    {"adaptive_p", ChainStepKind::adaptive_p, 2},
    {"mirostat", ChainStepKind::mirostat, 2},
    {"mirostat_v2", ChainStepKind::mirostat_v2, 2},
};

ChainStep make_step(const Step &given) {
    const auto &[name, values, sequences, pieces] = given;
    for (const StepName &known : kStepNames)
        if (name == known.name) {
            require(values.size() == known.num_values, "SamplerChain: wrong number of values for a step");
            ChainStep step{known.kind, {}, {}, pieces};
            for (size_t i = 0; i < values.size(); i++) {
                require(std::isfinite(values[i]), "SamplerChain: values are finite");
                step.values[i] = values[i];
            }
            for (const std::vector<int32_t> &sequence : sequences) {
                require(!sequence.empty(), "SamplerChain: a sequence breaker has no tokens");
                step.breakers[sequence[0]].emplace_back(sequence.begin() + 1, sequence.end());
            }
            require((step.kind == ChainStepKind::infill) == (pieces != nullptr), "SamplerChain: infill needs pieces");
            return step;
        }
    throw nb::value_error(("SamplerChain: there is no step " + name).c_str());
}

// A step that chooses ends the chain; temperatures multiply logits only so far.
void check_order(const std::vector<ChainStep> &steps) {
    require(!steps.empty(), "SamplerChain: no steps");
    int num_temperatures = 0;
    for (size_t i = 0; i < steps.size(); i++) {
        const ChainStepKind kind = steps[i].kind;
        require(chooses(kind) == (i + 1 == steps.size()), "SamplerChain: a step that chooses comes last");
        num_temperatures += kind == ChainStepKind::temperature || kind == ChainStepKind::dynamic_temperature;
        require(kind != ChainStepKind::top_k || steps[i].values[0] >= 1, "SamplerChain: top_k keeps 1 or more");
        require(kind != ChainStepKind::temperature || steps[i].values[0] >= 1e-6, "SamplerChain: temperature too low");
    }
    require(num_temperatures <= 1, "SamplerChain: one temperature");
}

void check_tokens(const int32_t *tokens, size_t count, int vocab_size) {
    for (size_t i = 0; i < count; i++)
        require(tokens[i] >= 0 && tokens[i] < vocab_size, "sample_batch: token id out of range");
}

int checked_vocab_size(const Logits &logits) {
    require(logits.shape(1) > 0 && logits.shape(1) <= kMostTokens,
            "sample_batch: vocabularies have 1 to 524288 tokens");
    return int(logits.shape(1));
}

// Checks a draw against the rows that are left, and advances first_row.
SampleDraw checked_draw(const Draw &draw, size_t num_rows, int vocab_size, size_t &first_row) {
    const auto &[chain, state, history, seed, position, drafts, masks, num_logprobs] = draw;
    require(chain != nullptr && state != nullptr, "sample_batch: a chain or a state is missing");
    check_tokens(chain->bias_ids.data(), chain->bias_ids.size(), vocab_size);
    check_tokens(chain->early_forbidden.data(), chain->early_forbidden.size(), vocab_size);
    check_tokens(history.data(), history.shape(0), vocab_size);
    check_tokens(drafts.data(), drafts.shape(0), vocab_size);
    const size_t rows = drafts.shape(0) + 1;
    require(first_row + rows <= num_rows, "sample_batch: one row of logits per draft, and one more");
    first_row += rows;
    if (masks)
        require(masks->shape(0) == rows && masks->shape(1) == size_t(vocab_size + 31) / 32,
                "sample_batch: masks have one bit per token and one row per row of logits");
    return {chain,
            state,
            {history.data(), history.shape(0)},
            seed,
            position,
            {drafts.data(), drafts.shape(0)},
            masks ? masks->data() : nullptr,
            num_logprobs};
}

TokenLogprobs with_id(int32_t id, Logprobs &&logprobs) {
    return {id, logprobs.logprob, std::move(logprobs.top)};
}

std::vector<Drawn> sample_batch(RowSamplerPool &pool, const Logits &logits, const std::vector<Draw> &draws) {
    const int vocab_size = checked_vocab_size(logits);
    size_t num_rows = 0;
    std::vector<SampleDraw> checked;
    for (const Draw &draw : draws)
        checked.push_back(checked_draw(draw, logits.shape(0), vocab_size, num_rows));
    require(num_rows == logits.shape(0), "sample_batch: one row of logits per draft, and one more");
    std::vector<Drawn> results;
    nb::gil_scoped_release release;
    auto sampler = pool.take(vocab_size);
    size_t row = 0;
    for (const SampleDraw &draw : checked) {
        SampleDrawn drawn = sampler->sample(draw, logits.data() + row * size_t(vocab_size));
        row += draw.drafts.size() + 1;
        std::optional<std::vector<TokenLogprobs>> found;
        if (draw.num_logprobs >= 0) {
            found.emplace();
            for (size_t i = 0; i < drawn.logprobs.size(); i++)
                found->push_back(with_id(drawn.ids[i], std::move(drawn.logprobs[i])));
        }
        results.emplace_back(std::move(drawn.ids), std::move(found));
    }
    pool.give_back(std::move(sampler));
    return results;
}

std::vector<TokenLogprobs> model_logprobs(RowSamplerPool &pool, const Logits &logits, const Tokens &ids, int num_top) {
    const int vocab_size = checked_vocab_size(logits);
    require(ids.shape(0) == logits.shape(0), "logprobs: one token per row of logits");
    require(num_top >= 0, "logprobs: a negative number of tokens");
    check_tokens(ids.data(), ids.shape(0), vocab_size);
    std::vector<TokenLogprobs> results;
    nb::gil_scoped_release release;
    auto sampler = pool.take(vocab_size);
    for (size_t row = 0; row < ids.shape(0); row++) {
        const int32_t id = ids.data()[row];
        results.push_back(with_id(id, sampler->model_logprobs(logits.data() + row * size_t(vocab_size), id, num_top)));
    }
    pool.give_back(std::move(sampler));
    return results;
}

std::vector<int32_t> vector_of(const Tokens &tokens) {
    return {tokens.data(), tokens.data() + tokens.shape(0)};
}

void bind_chain(nb::module_ &m) {
    nb::class_<TokenPieces>(m, "TokenPieces", "What tokens add to a text, and those that end a generation.")
        .def(
            "__init__",
            [](TokenPieces *self, const nb::bytes &bytes, const Offsets &offsets, const Tokens &end_ids) {
                TokenPieces pieces{std::string(bytes.c_str(), bytes.size()),
                                   {offsets.data(), offsets.data() + offsets.shape(0)},
                                   vector_of(end_ids)};
                require(std::is_sorted(pieces.offsets.begin(), pieces.offsets.end()) && !pieces.offsets.empty() &&
                            pieces.offsets.front() == 0 && pieces.offsets.back() == int64_t(pieces.bytes.size()),
                        "TokenPieces: offsets rise from 0 to the number of bytes");
                require(std::is_sorted(pieces.end_ids.begin(), pieces.end_ids.end()) &&
                            (pieces.end_ids.empty() || pieces.end_ids.front() >= 0),
                        "TokenPieces: end ids are ascending");
                new (self) TokenPieces(std::move(pieces));
            },
            nb::arg("bytes"), nb::arg("offsets"), nb::arg("end_ids"));
    nb::class_<SamplerChain>(m, "SamplerChain", "The sampling steps of one request, after adding biases to logits.")
        .def(
            "__init__",
            [](SamplerChain *self, const std::vector<Step> &steps, const Tokens &bias_ids, const Biases &bias_values,
               const Tokens &early_forbidden, int64_t early_end, bool post_sampling_probs) {
                SamplerChain chain;
                for (const Step &step : steps)
                    chain.steps.push_back(make_step(step));
                check_order(chain.steps);
                require(bias_ids.shape(0) == bias_values.shape(0), "SamplerChain: one value per biased token");
                chain.bias_ids = vector_of(bias_ids);
                chain.bias_values.assign(bias_values.data(), bias_values.data() + bias_values.shape(0));
                chain.early_forbidden = vector_of(early_forbidden);
                chain.early_end = early_end;
                chain.post_sampling_probs = post_sampling_probs;
                new (self) SamplerChain(std::move(chain));
            },
            nb::arg("steps"), nb::arg("bias_ids"), nb::arg("bias_values"), nb::arg("early_forbidden"),
            nb::arg("early_end"), nb::arg("post_sampling_probs"));
    nb::class_<SamplerState>(m, "SamplerState", "What the steps of a chain remember of one sequence.")
        .def(
            "__init__",
            [](SamplerState *self, const SamplerChain &chain) { new (self) SamplerState(initial_state(chain)); },
            nb::arg("chain"))
        .def_prop_ro("values", [](const SamplerState &self) { return std::pair(self.values[0], self.values[1]); });
}

} // namespace

void bind_sample(nb::module_ &m) {
    bind_chain(m);
    nb::class_<RowSamplerPool>(m, "SamplerPool", "Samples rows of logits; keeps buffers between calls.")
        .def(nb::init<>())
        .def("sample_batch", &sample_batch, nb::arg("logits"), nb::arg("draws"),
             "(token ids, logprobs or None) for each draw, whose rows of logits follow one another and are left as "
             "they are. The last id is -1 where logits hold a NaN or an infinity, -2 where every token is forbidden.")
        .def("logprobs", &model_logprobs, nb::arg("logits"), nb::arg("token_ids"), nb::arg("num_top"),
             "(token id, logprob, [(token id, logprob), ...]) for each row.");
    m.def("sampler_scans", [] { return choose_sample_scans().name; }, "The name of the sampler's loops in use.");
}
