// Python's view of mixture-of-experts layers. As in bind_program.cpp, every size is checked here, once.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "steps_moe.h"

namespace {

using namespace quipu;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char *message) {
    if (!condition)
        throw nb::value_error(message);
}

void check_expert(const Expert &expert, int width) {
    const int inner = expert.gate.rows;
    require(inner > 0 && expert.up.rows == inner && expert.down.cols == inner, "moe: inner sizes do not match");
    require(expert.gate.cols == width && expert.up.cols == width && expert.down.rows == width,
            "moe: widths do not match");
    for (const Matrix &w : {expert.gate, expert.up, expert.down})
        require(!runs_on_int8(w.type) || w.cols % kGroup == 0, "moe: columns are not whole groups of 32");
}

// The first of `count` equal parts.
Matrix first_of(Matrix stacked, int count) {
    require(stacked.rows % count == 0, "moe: rows are not the same for all experts");
    stacked.rows /= count;
    return stacked;
}

MoeLayer make_layer(const Matrix &router, const Matrix &gate, const Matrix &up, const Matrix &down, int num_used,
                    bool normalize, float scale, const std::vector<Matrix> &shared,
                    const std::optional<Matrix> &shared_router) {
    MoeLayer layer{};
    layer.router = router;
    layer.num_experts = router.rows;
    layer.num_used = num_used;
    require(num_used > 0 && num_used <= layer.num_experts, "moe: experts per token out of range");
    layer.experts = {first_of(gate, router.rows), first_of(up, router.rows), first_of(down, router.rows)};
    layer.normalize = normalize;
    layer.scale = scale;
    check_expert(layer.experts, router.cols);
    require(!runs_on_int8(router.type) || router.cols % kGroup == 0, "moe: columns are not whole groups of 32");
    require(shared.empty() || shared.size() == 3, "moe: a shared expert has gate, up and down");
    require(!shared_router || !shared.empty(), "moe: a shared router without a shared expert");
    layer.has_shared = !shared.empty();
    if (layer.has_shared) {
        layer.shared = {shared[0], shared[1], shared[2]};
        check_expert(layer.shared, router.cols);
    }
    if (shared_router) {
        layer.shared_router = *shared_router;
        require(layer.shared_router.rows == 1 && layer.shared_router.cols == router.cols,
                "moe: the shared router is no row");
        require(!runs_on_int8(layer.shared_router.type) || router.cols % kGroup == 0,
                "moe: columns are not whole groups of 32");
    }
    return layer;
}

} // namespace

void bind_moe(nb::module_ &m) {
    nb::class_<MoeLayer>(m, "MoeLayer", "The weights of one mixture-of-experts feed-forward.");
    m.def("moe_layer", &make_layer, nb::arg("router"), nb::arg("gate"), nb::arg("up"), nb::arg("down"),
          nb::arg("num_used"), nb::arg("normalize"), nb::arg("scale"), nb::arg("shared"),
          nb::arg("shared_router").none(), "Matrices of the experts are stacked, one expert after another.");
    nb::class_<MoeWorkspace>(m, "MoeWorkspace", "Memory that the mixture-of-experts layers of a program share.");
    m.def(
        "moe_workspace",
        [](Program &program, const std::vector<MoeLayer> &layers) {
            return std::make_shared<MoeWorkspace>(program, layers);
        },
        nb::arg("program"), nb::arg("layers"));
    m.def(
        "append_moe",
        [](Program &program, const MoeLayer &layer, ValueBuffer source, const std::optional<Floats> &norm_weight,
           float epsilon, ValueBuffer normalized, const std::optional<ValueBuffer> &residual, ValueBuffer out,
           std::shared_ptr<MoeWorkspace> workspace, bool waits) {
            const int width = layer.width();
            require(source.width == width && normalized.width == width && out.width == width &&
                        (!residual || residual->width == width),
                    "moe: sizes do not match");
            require(!norm_weight || int(norm_weight->shape(0)) == width, "moe: norm size");
            const MoeValues values{source,
                                   normalized,
                                   norm_weight ? norm_weight->data() : nullptr,
                                   epsilon,
                                   residual.value_or(ValueBuffer{}),
                                   out};
            append_moe(program, layer, values, std::move(workspace), waits);
        },
        nb::arg("program"), nb::arg("layer"), nb::arg("source"), nb::arg("norm_weight").none(), nb::arg("epsilon"),
        nb::arg("normalized"), nb::arg("residual").none(), nb::arg("out"), nb::arg("workspace"), nb::arg("waits"));
}
