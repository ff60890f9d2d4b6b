// The Python module quipu._native. Everything that knows Python is here and in bind_*.cpp.
#include "bind.h"

#include <cstdlib>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bandwidth.h"
#include "kernels.h"

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

std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if defined(__x86_64__)
#define QUIPU_CHECK(feature)                                                                                           \
    if (__builtin_cpu_supports(feature))                                                                               \
    found.push_back(feature)
    QUIPU_CHECK("sse4.2");
    QUIPU_CHECK("avx");
    QUIPU_CHECK("avx2");
    QUIPU_CHECK("fma");
    QUIPU_CHECK("f16c");
    QUIPU_CHECK("bmi2");
    QUIPU_CHECK("avx512f");
    QUIPU_CHECK("avx512bw");
    QUIPU_CHECK("avx512vl");
    QUIPU_CHECK("avx512vnni");
    QUIPU_CHECK("avx512bf16");
#undef QUIPU_CHECK
#endif
    return found;
}

} // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native arithmetic of quipu. Python code reaches it through quipu.backends.cpu and quipu.engine.sampler.";
    m.def(
        "instruction_set", [] { return std::string(kernels_in_use().name); },
        "Name of the kernel set in use; QUIPU_INSTRUCTION_SET forces one.");
    m.def("cpu_features", &cpu_features, "Processor features that matter to kernels and are present.");
    nb::class_<quipu::Team>(m, "Team", "A persistent team of threads.")
        .def(nb::init<int>(), nb::arg("num_threads"))
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
    bind_program(m, kernels_in_use);
    bind_moe(m);
    bind_formats(m);
    bind_sample(m);
}
