// The Python module quipu._native. Everything that knows Python is here and in bind_*.cpp.
#include "bind.h"

#include <algorithm>
#include <cstdlib>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bandwidth.h"
#include "kernels.h"
#include "processor.h"

namespace {

const quipu::Kernels &kernels_in_use() {
    const char *requested = std::getenv("QUIPU_INSTRUCTION_SET");
    const quipu::Kernels *kernels = quipu::select_kernels(requested);
    if (!kernels)
        throw nb::value_error(("QUIPU_INSTRUCTION_SET=" + std::string(requested) +
                               " is unknown or not supported by this processor; unset it")
                                  .c_str());
    return *kernels;
}

std::vector<std::pair<std::string, bool>> instruction_sets() {
    std::vector<std::pair<std::string, bool>> sets;
    for (const quipu::InstructionSet &set : quipu::instruction_sets())
        sets.emplace_back(set.kernels->name, set.supported);
    return sets;
}

} // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native arithmetic of quipu. Python code reaches it through quipu.backends.cpu and quipu.engine.sampler.";
    m.def(
        "instruction_set", [] { return std::string(kernels_in_use().name); },
        "Name of the kernel set in use; QUIPU_INSTRUCTION_SET forces one.");
    m.def(
        "max_row_tokens", [] { return kernels_in_use().max_row_tokens; },
        "Most tokens of a run that go through the row kernels, which give a token the same bits whatever lies beside "
        "it.");
    m.def("instruction_sets", &instruction_sets,
          "All kernel sets of this build, the best last: (name, whether this processor and its system run it).");
    m.def(
        "cpu_features", [] { return quipu::feature_names(quipu::detect_processor()); },
        "Processor features that matter to kernels, are present and may be used.");
    nb::class_<quipu::Team>(m, "Team", "A persistent team of threads.")
        .def(nb::init<int>(), nb::arg("num_threads"))
        .def(nb::init<int, bool>(), nb::arg("num_threads"), nb::arg("owns_cores"))
        .def_prop_ro("owns_cores", &quipu::Team::owns_cores)
        .def_prop_ro("num_threads", &quipu::Team::num_threads);
    m.def(
        "measure_read_bandwidth",
        [](int num_threads, int64_t num_bytes, int repeats) {
            const quipu::Kernels &kernels = kernels_in_use();
            nb::gil_scoped_release release;
            quipu::Team team(num_threads);
            return quipu::measure_read_bandwidth(team, kernels, num_bytes, repeats);
        },
        nb::arg("num_threads"), nb::arg("num_bytes"), nb::arg("repeats"),
        "For each way of reading: (name, best bytes per second).");
    m.def(
        "measure_threads",
        [](const std::vector<int> &counts, int64_t num_bytes, double seconds_each) {
            const int most = counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
            if (counts.empty() || *std::min_element(counts.begin(), counts.end()) < 1)
                throw nb::value_error("measure_threads: numbers of threads must be positive");
            const quipu::Kernels &kernels = kernels_in_use();
            std::vector<std::tuple<int, double, double>> rates;
            nb::gil_scoped_release release;
            quipu::Team team(most);
            for (const quipu::ThreadRate &rate : measure_threads(team, kernels, counts, num_bytes, seconds_each))
                rates.emplace_back(rate.num_threads, rate.read_bytes_per_s, rate.meeting_s);
            return rates;
        },
        nb::arg("counts"), nb::arg("num_bytes"), nb::arg("seconds_each"),
        "For each number of threads: (number, bytes read per second, seconds until all have met).");
    bind_program(m, kernels_in_use);
    bind_moe(m);
    bind_encoder(m);
    bind_formats(m);
    bind_sample(m);
}
