// Python's view of the steps of encoders. As in bind_program.cpp, every size is checked here, once.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bind.h"
#include "steps_encoder.h"

namespace {

using namespace quipu;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char *message) {
    if (!condition)
        throw nb::value_error(message);
}

Activation find_activation(const Kernels &kernels, const std::string &name) {
    if (name == "gelu")
        return kernels.gelu;
    if (name == "gelu_tanh")
        return kernels.gelu_tanh;
    require(name == "tanh", "activation: unknown name");
    return kernels.tanh;
}

} // namespace

void bind_encoder(nb::module_ &m) {
    m.def(
        "append_embed_sum",
        [](Program &program, const Matrix &tokens, const std::optional<Matrix> &positions,
           const std::optional<Matrix> &types, ValueBuffer out, bool waits) {
            require(tokens.cols == out.width && (!positions || positions->cols == out.width) &&
                        (!types || types->cols == out.width),
                    "embed: sizes do not match");
            program.append(make_embed_sum(program.kernels(), tokens, positions, types, out), waits);
        },
        nb::arg("program"), nb::arg("tokens"), nb::arg("positions").none(), nb::arg("types").none(), nb::arg("out"),
        nb::arg("waits"));
    m.def(
        "append_layer_norm",
        [](Program &program, ValueBuffer x, const Floats &weight, const Floats &bias, float epsilon, ValueBuffer out,
           bool waits) {
            require(int(weight.shape(0)) == x.width && int(bias.shape(0)) == x.width && out.width == x.width,
                    "layer_norm: sizes do not match");
            program.append(make_layer_norm(program.kernels(), x, weight.data(), bias.data(), epsilon, out), waits);
        },
        nb::arg("program"), nb::arg("x"), nb::arg("weight"), nb::arg("bias"), nb::arg("epsilon"), nb::arg("out"),
        nb::arg("waits"));
    m.def(
        "append_activation",
        [](Program &program, const std::string &name, ValueBuffer x, ValueBuffer out, bool waits) {
            require(x.width == out.width && x.per_output == out.per_output, "activation: sizes do not match");
            program.append(make_activation(find_activation(program.kernels(), name), x, out), waits);
        },
        nb::arg("program"), nb::arg("name"), nb::arg("x"), nb::arg("out"), nb::arg("waits"));
}
