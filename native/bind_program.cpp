// Python's view of programs: slots of memory, values in them, and one method per step. quipu.backends.cpu decides slots
// and barriers; here every size is checked once, so that kernels can trust them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>
#include <string>

#include "bind.h"
#include "formats/encode.h"
#include "formats/formats.h"
#include "steps.h"

namespace {

using namespace quipu;
using Ints = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using PageBytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char *message) {
    if (!condition)
        throw nb::value_error(message);
}

Matrix make_matrix(const Bytes &data, int rows, int cols, int type) {
    const Format *format = find_format(type);
    require(format != nullptr, "matrix: unknown tensor type");
    require(rows > 0 && cols > 0 && cols % format->block_size == 0, "matrix: columns are not whole blocks");
    const int64_t row_bytes = int64_t(cols) / format->block_size * format->block_bytes;
    require(int64_t(data.shape(0)) == rows && int64_t(data.shape(1)) == row_bytes,
            "matrix: data does not have rows x row bytes");
    return {data.data(), row_bytes, rows, cols, type};
}

// Memory for values: max_tokens rows of `width` floats.
struct Slot {
    float *data;
    int width;
};

Slot allocate_slot(Program &program, int width) {
    require(width > 0, "slot: width must be positive");
    return {reinterpret_cast<float *>(program.allocate(int64_t(width) * program.max_tokens() * 4)), width};
}

PackedActivations allocate_packed(Program &program, int max_width, ActivationUses uses) {
    PackedActivations packed;
    const int64_t blocks = round_up(max_width, kBlock) / kBlock, panels = num_panels(program.max_tokens());
    if (uses.as_blocks || uses.as_int8) {
        packed.rows = program.allocate(kMaxBlockTokens * activation_row_bytes(max_width));
        packed.token_panels =
            reinterpret_cast<TokenPanel *>(program.allocate(2 * blocks * panels * int64_t(sizeof(TokenPanel))));
        packed.code_panels =
            reinterpret_cast<ActivationPanel *>(program.allocate(blocks * panels * int64_t(sizeof(ActivationPanel))));
    }
    if (uses.as_float)
        packed.float_panels =
            reinterpret_cast<FloatPanel *>(program.allocate(blocks * panels * int64_t(sizeof(FloatPanel))));
    return packed;
}

void check_product(const ValueBuffer &x, const Matrix &weight, const ValueBuffer &out) {
    require(weight.cols == x.width && weight.rows == out.width, "linear: sizes do not match");
    require(!runs_on_int8(weight.type) || weight.cols % kGroup == 0, "linear: columns are not whole groups of 32");
}

// Heads that are no whole number of blocks are padded.
int64_t cache_row_bytes(int type, int length) {
    const Format &format = *find_format(type);
    return round_up(length, format.block_size) / format.block_size * format.block_bytes;
}

void check_page(const KvCache &kv, int64_t page) {
    require(page >= 0 && page < kv.num_pages(), "KvCache: page number out of range");
}

RunArguments make_arguments(const Program &program, const KvCache &kv, const Ints &token_ids, const Ints &positions,
                            const Ints &query_starts, const Ints &kv_lengths, const Ints &page_tables,
                            const Ints &output_rows) {
    require(token_ids.ndim() == 1 && positions.ndim() == 1 && query_starts.ndim() == 1 && kv_lengths.ndim() == 1 &&
                page_tables.ndim() == 2 && output_rows.ndim() == 1,
            "run: wrong number of dimensions");
    RunArguments run{};
    run.num_tokens = static_cast<int>(token_ids.shape(0));
    run.num_sequences = static_cast<int>(kv_lengths.shape(0));
    run.num_outputs = static_cast<int>(output_rows.shape(0));
    run.table_width = static_cast<int>(page_tables.shape(1));
    run.token_ids = token_ids.data();
    run.positions = positions.data();
    run.query_starts = query_starts.data();
    run.kv_lengths = kv_lengths.data();
    run.page_tables = page_tables.data();
    run.output_rows = output_rows.data();
    run.kv = &kv;
    require(run.num_tokens > 0 && run.num_tokens <= program.max_tokens() && run.num_outputs <= program.max_tokens(),
            "run: more tokens than the program was compiled for");
    require(int(positions.shape(0)) == run.num_tokens && int(query_starts.shape(0)) == run.num_sequences + 1 &&
                int(page_tables.shape(0)) == run.num_sequences,
            "run: array lengths do not match");
    return run;
}

// Page numbers and positions come from the engine; a mistake there must not become a stray write.
void check_arguments(const RunArguments &run, int vocab_size) {
    const int page_size = run.kv->shape().page_size;
    require(run.query_starts[0] == 0 && run.query_starts[run.num_sequences] == run.num_tokens,
            "run: query_starts do not cover the tokens");
    for (int s = 0; s < run.num_sequences; s++) {
        const int begin = run.query_starts[s], end = run.query_starts[s + 1];
        require(begin < end, "run: a sequence without tokens");
        require(run.kv_lengths[s] >= end - begin && run.kv_lengths[s] <= int64_t(run.table_width) * page_size,
                "run: kv_lengths do not fit the page tables");
        for (int p = 0; p * page_size < run.kv_lengths[s]; p++) {
            const int32_t page = run.page_tables[int64_t(s) * run.table_width + p];
            require(page >= 0 && page < run.kv->num_pages(), "run: page number out of range");
        }
        for (int t = begin; t < end; t++)
            require(run.positions[t] == run.kv_lengths[s] - end + t, "run: positions do not end at kv_lengths");
    }
    for (int t = 0; t < run.num_tokens; t++)
        require(run.token_ids[t] >= 0 && run.token_ids[t] < vocab_size, "run: token id out of range");
    for (int o = 0; o < run.num_outputs; o++)
        require(run.output_rows[o] >= 0 && run.output_rows[o] < run.num_tokens, "run: output row out of range");
}

} // namespace

void bind_program(nb::module_ &m, const Kernels &(*kernels_in_use)()) {
    nb::class_<Matrix>(m, "Matrix", "A weight matrix in the mapped file; the caller keeps the mapping alive.")
        .def_prop_ro("rows", [](const Matrix &w) { return w.rows; })
        .def_prop_ro("runs_on_int8", [](const Matrix &w) { return runs_on_int8(w.type); });
    m.def("matrix", &make_matrix, nb::arg("data"), nb::arg("rows"), nb::arg("cols"), nb::arg("type"));
    nb::class_<Slot>(m, "Slot", "Memory for one value at a time.");
    nb::class_<ValueBuffer>(m, "ValueBuffer");
    m.def(
        "value",
        [](const Slot &slot, int width, bool per_output) {
            require(width > 0 && width <= slot.width, "value: wider than its slot");
            return ValueBuffer{slot.data, width, per_output};
        },
        nb::arg("slot"), nb::arg("width"), nb::arg("per_output"));
    nb::class_<PackedActivations>(m, "PackedActivations");
    nb::class_<ActivationUses>(m, "ActivationUses")
        .def(
            "__init__",
            [](ActivationUses *uses, const std::vector<Matrix> &weights) {
                *uses = {};
                for (const Matrix &w : weights) {
                    uses->as_blocks |= has_block_rows(w.type);
                    uses->as_int8 |= runs_on_int8(w.type) && !has_block_rows(w.type);
                    uses->as_float |= !runs_on_int8(w.type);
                }
            },
            nb::arg("weights"))
        .def("__eq__", [](const ActivationUses &a, const ActivationUses &b) {
            return a.as_blocks == b.as_blocks && a.as_int8 == b.as_int8 && a.as_float == b.as_float;
        });
    nb::class_<RopeTable>(m, "RopeTable");
    nb::class_<KvCache>(m, "KvCache", "The memory of a paged KV cache.")
        .def(
            "__init__",
            [](KvCache *self, int num_layers, int num_kv_heads, int key_length, int value_length, int page_size,
               int k_type, int v_type, int64_t num_pages) {
                require(num_layers > 0 && num_kv_heads > 0 && key_length > 0 && value_length > 0 && num_pages > 0,
                        "KvCache: sizes must be positive");
                require(page_size > 0 && page_size % kKeyTile == 0, "KvCache: page_size must be a multiple of 16");
                require(is_cache_type(k_type) && is_cache_type(v_type), "KvCache: a type that caches cannot hold");
                const KvLayer shape{.k = nullptr,
                                    .v = nullptr,
                                    .num_kv_heads = num_kv_heads,
                                    .key_length = key_length,
                                    .value_length = value_length,
                                    .page_size = page_size,
                                    .k_type = k_type,
                                    .v_type = v_type,
                                    .k_row_bytes = cache_row_bytes(k_type, key_length),
                                    .v_row_bytes = cache_row_bytes(v_type, value_length)};
                new (self) KvCache(num_layers, shape, num_pages);
            },
            nb::arg("num_layers"), nb::arg("num_kv_heads"), nb::arg("key_length"), nb::arg("value_length"),
            nb::arg("page_size"), nb::arg("k_type"), nb::arg("v_type"), nb::arg("num_pages"))
        .def_prop_ro("page_bytes", &KvCache::page_bytes)
        .def(
            "read_page",
            [](const KvCache &kv, int64_t page, const WritableBytes &out) {
                check_page(kv, page);
                require(int64_t(out.shape(0)) == kv.page_bytes(), "read_page: the array has not the size of a page");
                nb::gil_scoped_release release;
                kv.read_page(page, out.data());
            },
            nb::arg("page"), nb::arg("out"))
        .def(
            "write_page",
            [](KvCache &kv, int64_t page, const PageBytes &data) {
                check_page(kv, page);
                require(int64_t(data.shape(0)) == kv.page_bytes(), "write_page: the array has not the size of a page");
                nb::gil_scoped_release release;
                kv.write_page(page, data.data());
            },
            nb::arg("page"), nb::arg("data"))
        .def(
            "copy_page",
            [](KvCache &kv, int64_t source, int64_t target) {
                check_page(kv, source);
                check_page(kv, target);
                require(source != target, "copy_page: source and target are the same page");
                nb::gil_scoped_release release;
                kv.copy_page(source, target);
            },
            nb::arg("source"), nb::arg("target"));
    nb::class_<AttentionPlan>(m, "AttentionPlan", "How attention with one window is divided, worked out once per run.");

    nb::class_<Program>(m, "Program", "Steps over value slots, replayed by a team in one call.")
        .def(
            "__init__",
            [kernels_in_use](Program *self, std::shared_ptr<Team> team, int max_tokens) {
                require(max_tokens > 0, "Program: max_tokens must be positive");
                new (self) Program(std::move(team), kernels_in_use(), max_tokens);
            },
            nb::arg("team"), nb::arg("max_tokens"))
        .def_prop_ro("num_steps", &Program::num_steps)
        .def("slot", &allocate_slot, nb::arg("width"))
        .def("packed_activations", &allocate_packed, nb::arg("max_width"), nb::arg("uses"))
        .def(
            "rope_table",
            [](Program &p, const Floats &inverse_frequencies, float magnitude) {
                const auto half = static_cast<int>(inverse_frequencies.shape(0));
                require(half > 0, "rope: no frequencies");
                const int64_t bytes = int64_t(half) * p.max_tokens() * 4;
                const RopeTable table{reinterpret_cast<float *>(p.allocate(bytes)),
                                      reinterpret_cast<float *>(p.allocate(bytes)), 2 * half};
                const float *f = inverse_frequencies.data();
                p.append(make_rope_table({f, f + half}, magnitude, table), false);
                return table;
            },
            nb::arg("inverse_frequencies"), nb::arg("magnitude"))
        .def(
            "embed",
            [](Program &p, Matrix table, ValueBuffer out, bool waits) {
                require(table.cols == out.width, "embed: sizes do not match");
                p.append(make_embed(table, out), waits);
            },
            nb::arg("table"), nb::arg("out"), nb::arg("waits"))
        .def(
            "rms_norm",
            [](Program &p, ValueBuffer x, const Floats &weight, float epsilon, ValueBuffer out, bool waits) {
                const auto group = static_cast<int>(weight.shape(0));
                require(group > 0 && x.width % group == 0 && out.width == x.width, "rms_norm: sizes do not match");
                p.append(make_rms_norm(p.kernels(), x, weight.data(), group, epsilon, out), waits);
            },
            nb::arg("x"), nb::arg("weight"), nb::arg("epsilon"), nb::arg("out"), nb::arg("waits"))
        .def(
            "pack",
            [](Program &p, ValueBuffer x, ActivationUses uses, PackedActivations packed, bool waits) {
                p.append(make_pack(p.kernels(), x, nullptr, 0.0f, {}, uses, packed), waits);
            },
            nb::arg("x"), nb::arg("uses"), nb::arg("packed"), nb::arg("waits"))
        .def(
            "norm_pack",
            [](Program &p, ValueBuffer x, const Floats &weight, float epsilon, ValueBuffer normalized,
               ActivationUses uses, PackedActivations packed, bool waits) {
                require(int(weight.shape(0)) == x.width && normalized.width == x.width,
                        "norm_pack: sizes do not match");
                p.append(make_pack(p.kernels(), x, weight.data(), epsilon, normalized, uses, packed), waits);
            },
            nb::arg("x"), nb::arg("weight"), nb::arg("epsilon"), nb::arg("normalized"), nb::arg("uses"),
            nb::arg("packed"), nb::arg("waits"))
        .def(
            "linear",
            [](Program &p, ValueBuffer x, const std::vector<Matrix> &weights,
               const std::vector<std::optional<Floats>> &biases, const std::vector<ValueBuffer> &outs,
               std::optional<ValueBuffer> residual, PackedActivations packed, bool waits) {
                require(!weights.empty() && weights.size() == outs.size() && weights.size() == biases.size(),
                        "linear: one bias (or None) and one output per weight");
                std::vector<Product> products;
                for (size_t i = 0; i < weights.size(); i++) {
                    check_product(x, weights[i], outs[i]);
                    require(!biases[i] || int(biases[i]->shape(0)) == weights[i].rows, "linear: bias size");
                    products.push_back({weights[i], biases[i] ? biases[i]->data() : nullptr, outs[i]});
                }
                require(!residual || residual->width == outs[0].width, "linear: residual size");
                p.append(make_linear(p.kernels(), x, std::move(products), residual.value_or(ValueBuffer{}), packed),
                         waits);
            },
            nb::arg("x"), nb::arg("weights"), nb::arg("biases"), nb::arg("outs"), nb::arg("residual").none(),
            nb::arg("packed"), nb::arg("waits"))
        .def(
            "swiglu_linear",
            [](Program &p, ValueBuffer x, Matrix gate, Matrix up, ValueBuffer out, PackedActivations packed,
               bool waits) {
                check_product(x, gate, out);
                check_product(x, up, out);
                p.append(make_swiglu_linear(p.kernels(), x, gate, up, out, packed), waits);
            },
            nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("out"), nb::arg("packed"), nb::arg("waits"))
        .def(
            "rope",
            [](Program &p, ValueBuffer x, int head_dim, bool neox, RopeTable table, ValueBuffer out, bool waits) {
                require(head_dim > 0 && x.width % head_dim == 0 && table.num_rotated <= head_dim &&
                            out.width == x.width,
                        "rope: sizes do not match");
                p.append(make_rope(p.kernels(), x, head_dim, neox, table, out), waits);
            },
            nb::arg("x"), nb::arg("head_dim"), nb::arg("neox"), nb::arg("table"), nb::arg("out"), nb::arg("waits"))
        .def(
            "attention_plan",
            [](Program &p, int window, int group_size, bool causal) {
                require(window >= 0 && group_size > 0, "attention_plan: sizes must be positive");
                require(causal || window == 0, "attention_plan: a window needs a causal mask");
                auto plan = std::make_shared<AttentionPlan>(window, group_size, causal);
                p.append_plan(plan);
                return plan;
            },
            nb::arg("window"), nb::arg("group_size"), nb::arg("causal"))
        .def(
            "attention",
            [](Program &p, ValueBuffer q, ValueBuffer k, ValueBuffer v, int layer, int num_heads, int num_kv_heads,
               float scale, float softcap, const std::optional<Floats> &sinks, std::shared_ptr<AttentionPlan> plan,
               ValueBuffer out, bool waits) {
                require(num_kv_heads > 0 && num_heads % num_kv_heads == 0 && q.width % num_heads == 0 &&
                            k.width == q.width / num_heads * num_kv_heads && v.width % num_kv_heads == 0 &&
                            out.width == v.width / num_kv_heads * num_heads,
                        "attention: sizes do not match");
                require(!sinks || int(sinks->shape(0)) == num_heads, "attention: one sink per head");
                require(plan->group_size() == num_heads / num_kv_heads, "attention: a plan for another group size");
                const AttentionShape shape{.num_kv_heads = num_kv_heads,
                                           .group_size = num_heads / num_kv_heads,
                                           .key_length = k.width / num_kv_heads,
                                           .value_length = v.width / num_kv_heads,
                                           .window = plan->window(),
                                           .scale = scale,
                                           .softcap = softcap,
                                           .sinks = sinks ? sinks->data() : nullptr};
                p.append(make_kv_write(p.kernels(), k, v, layer), waits);
                p.append(make_attention(p.kernels(), q, layer, shape, std::move(plan), out), true);
            },
            nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("layer"), nb::arg("num_heads"), nb::arg("num_kv_heads"),
            nb::arg("scale"), nb::arg("softcap"), nb::arg("sinks").none(), nb::arg("plan"), nb::arg("out"),
            nb::arg("waits"))
        .def(
            "swiglu",
            [](Program &p, ValueBuffer gate, ValueBuffer up, ValueBuffer out, bool waits) {
                require(gate.width == up.width && out.width == gate.width, "swiglu: sizes do not match");
                p.append(make_swiglu(p.kernels(), gate, up, out), waits);
            },
            nb::arg("gate"), nb::arg("up"), nb::arg("out"), nb::arg("waits"))
        .def(
            "add",
            [](Program &p, ValueBuffer x, ValueBuffer y, ValueBuffer out, bool waits) {
                require(x.width == y.width && out.width == x.width, "add: sizes do not match");
                p.append(make_add(p.kernels(), x, y, out), waits);
            },
            nb::arg("x"), nb::arg("y"), nb::arg("out"), nb::arg("waits"))
        .def(
            "select_outputs",
            [](Program &p, ValueBuffer x, ValueBuffer out, bool waits) {
                require(x.width == out.width && !x.per_output && out.per_output, "select_outputs: sizes do not match");
                p.append(make_select_outputs(x, out), waits);
            },
            nb::arg("x"), nb::arg("out"), nb::arg("waits"))
        .def("seal", &Program::seal)
        .def(
            "run",
            [](Program &p, const KvCache &kv, int vocab_size, const Ints &token_ids, const Ints &positions,
               const Ints &query_starts, const Ints &kv_lengths, const Ints &page_tables, const Ints &output_rows,
               int num_threads, const std::optional<Ints> &token_types) {
                RunArguments run =
                    make_arguments(p, kv, token_ids, positions, query_starts, kv_lengths, page_tables, output_rows);
                require(!token_types || int64_t(token_types->size()) == run.num_tokens, "run: one type per token");
                run.token_types = token_types ? token_types->data() : nullptr;
                check_arguments(run, vocab_size);
                nb::gil_scoped_release release;
                p.run(run, num_threads);
            },
            nb::arg("kv"), nb::arg("vocab_size"), nb::arg("token_ids"), nb::arg("positions"), nb::arg("query_starts"),
            nb::arg("kv_lengths"), nb::arg("page_tables"), nb::arg("output_rows"), nb::arg("num_threads"),
            nb::arg("token_types").none() = nb::none())
        .def(
            "read",
            [](nb::handle self, ValueBuffer value, int num_rows) {
                const auto rows = static_cast<size_t>(num_rows), width = static_cast<size_t>(value.width);
                return nb::ndarray<nb::numpy, const float>(value.data, {rows, width}, self);
            },
            nb::arg("value"), nb::arg("num_rows"), "A view of a value's rows, valid until the next run.");
}
