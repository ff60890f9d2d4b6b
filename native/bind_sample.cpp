// Python's view of sampling: chains are made once per request, and all rows of a step are sampled in one call.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "ops/sample.h"

namespace {

using namespace quipu;
using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Seeds = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Biases = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

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
    {"penalties", ChainStepKind::penalties, 3}, {"top_k", ChainStepKind::top_k, 1},
    {"typical", ChainStepKind::typical, 2},     {"top_p", ChainStepKind::top_p, 2},
    {"min_p", ChainStepKind::min_p, 2},         {"temperature", ChainStepKind::temperature, 1},
    {"dist", ChainStepKind::dist, 0},           {"greedy", ChainStepKind::greedy, 0},
};

ChainStep make_step(const std::string &name, const std::vector<double> &values) {
    for (const StepName &known : kStepNames)
        if (name == known.name) {
            require(values.size() == known.num_values, "SamplerChain: wrong number of values for a step");
            ChainStep step{known.kind, {}};
            std::copy(values.begin(), values.end(), step.values);
            return step;
        }
    throw nb::value_error(("SamplerChain: there is no step " + name).c_str());
}

// Penalties change the row and come first; dist or greedy ends the chain.
void check_order(const std::vector<ChainStep> &steps) {
    require(!steps.empty(), "SamplerChain: no steps");
    for (size_t i = 0; i < steps.size(); i++) {
        require(steps[i].kind != ChainStepKind::penalties || i == 0, "SamplerChain: penalties come first");
        const bool ends = steps[i].kind == ChainStepKind::dist || steps[i].kind == ChainStepKind::greedy;
        require(ends == (i + 1 == steps.size()), "SamplerChain: dist or greedy comes last");
        require(steps[i].kind != ChainStepKind::greedy || i == 0 || steps[i - 1].kind == ChainStepKind::penalties,
                "SamplerChain: greedy follows penalties only");
    }
}

void check_tokens(const int32_t *tokens, size_t count, int vocab_size) {
    for (size_t i = 0; i < count; i++)
        require(tokens[i] >= 0 && tokens[i] < vocab_size, "sample_batch: token id out of range");
}

std::vector<int> sample_batch(const Logits &logits, const std::vector<const SamplerChain *> &chains,
                              const std::vector<Tokens> &histories, const Seeds &seeds, const Positions &positions) {
    const size_t num_rows = logits.shape(0);
    const int vocab_size = int(logits.shape(1));
    require(vocab_size > 0 && vocab_size <= 1 << 19, "sample_batch: vocabularies have 1 to 524288 tokens");
    require(chains.size() == num_rows && histories.size() == num_rows && seeds.shape(0) == num_rows &&
                positions.shape(0) == num_rows,
            "sample_batch: one chain, history, seed and position per row");
    for (size_t row = 0; row < num_rows; row++) {
        require(chains[row] != nullptr, "sample_batch: a chain is missing");
        check_tokens(chains[row]->bias_ids.data(), chains[row]->bias_ids.size(), vocab_size);
        check_tokens(histories[row].data(), histories[row].shape(0), vocab_size);
    }
    std::vector<int> chosen(num_rows);
    nb::gil_scoped_release release;
    RowSampler sampler(vocab_size);
    for (size_t row = 0; row < num_rows; row++)
        chosen[row] = sampler.sample(*chains[row], logits.data() + row * size_t(vocab_size),
                                     {histories[row].data(), histories[row].shape(0)},
                                     random_word(seeds.data()[row], uint64_t(positions.data()[row])));
    return chosen;
}

} // namespace

void bind_sample(nb::module_ &m) {
    nb::class_<SamplerChain>(m, "SamplerChain", "The sampling steps of one request, after adding biases to logits.")
        .def(
            "__init__",
            [](SamplerChain *self, const std::vector<std::pair<std::string, std::vector<double>>> &steps,
               const Tokens &bias_ids, const Biases &bias_values) {
                SamplerChain chain;
                for (const auto &[name, values] : steps)
                    chain.steps.push_back(make_step(name, values));
                check_order(chain.steps);
                require(bias_ids.shape(0) == bias_values.shape(0), "SamplerChain: one value per biased token");
                chain.bias_ids.assign(bias_ids.data(), bias_ids.data() + bias_ids.shape(0));
                chain.bias_values.assign(bias_values.data(), bias_values.data() + bias_values.shape(0));
                new (self) SamplerChain(std::move(chain));
            },
            nb::arg("steps"), nb::arg("bias_ids"), nb::arg("bias_values"));
    m.def("sample_batch", &sample_batch, nb::arg("logits"), nb::arg("chains"), nb::arg("histories"), nb::arg("seeds"),
          nb::arg("positions"),
          "One token id per row of logits, which are left as they are: -1 where they hold a NaN or an infinity, -2 "
          "where every token is forbidden.");
}
