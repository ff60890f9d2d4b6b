// Checks every kernel of every instruction set that this processor (or emulator) runs against the scalar set: one line
// per check, then `passed: N passed, N failed`. The exit status is 1 if a check failed, 2 if a set named as an argument
// is unknown or not supported here. Needs neither Python nor any other library.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>

#include "checks.h"

namespace quipu::tests {

uint64_t Random::bits() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

float Random::uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits() >> 40) * 0x1p-24f;
}

float Random::normal() {
    float total = 0.0f;
    for (int i = 0; i < 4; i++)
        total += uniform(-0.8660254f, 0.8660254f); // variance 1/4 each
    return total;
}

std::vector<float> Random::normals(int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float &value : values)
        value = normal();
    return values;
}

AlignedBytes::AlignedBytes(int64_t num_bytes, uint8_t fill)
    : memory_(static_cast<uint8_t *>(::operator new[](static_cast<size_t>(num_bytes), std::align_val_t{64}))) {
    std::memset(memory_, fill, static_cast<size_t>(num_bytes)); // so that what is not written is seen
}

AlignedBytes::~AlignedBytes() {
    ::operator delete[](memory_, std::align_val_t{64});
}

void Report::check(const Kernels &kernels, const std::string &what, double error, double limit) {
    const bool ok = error <= limit; // false for NaN
    std::printf("%s %s %s: error %.2g, limit %.2g\n", ok ? "ok" : "FAILED", kernels.name, what.c_str(), error, limit);
    ++(ok ? num_passed_ : num_failed_);
}

void Report::expect(const Kernels &kernels, const std::string &what, bool holds) {
    std::printf("%s %s %s\n", holds ? "ok" : "FAILED", kernels.name, what.c_str());
    ++(holds ? num_passed_ : num_failed_);
}

double largest_error(const float *got, const float *expected, int64_t n) {
    double largest = 0.0, scale = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (std::isfinite(got[i]) != std::isfinite(expected[i]))
            return std::numeric_limits<double>::infinity();
        if (!std::isfinite(expected[i]))
            continue;
        largest = std::fmax(largest, std::fabs(double(got[i]) - expected[i]));
        scale = std::fmax(scale, std::fabs(double(expected[i])));
    }
    return scale > 0.0 ? largest / scale : largest;
}

} // namespace quipu::tests

namespace quipu {

#ifdef QUIPU_X86
namespace emulated_avxvnni {
extern const Kernels kernels;
}
namespace emulated_avx512 {
extern const Kernels kernels;
}
namespace emulated_avx512bf16 {
extern const Kernels kernels;
}
namespace emulated_amx {
extern const Kernels kernels;
}
#endif

namespace {

// All sets of this build, and those of newer processors with their instructions in plain C++.
std::vector<InstructionSet> sets_to_check() {
    std::vector<InstructionSet> sets = instruction_sets();
#ifdef QUIPU_X86
    const bool has_avx2 = select_kernels("avx2") != nullptr;
    for (const Kernels *kernels :
         {&emulated_avxvnni::kernels, &emulated_avx512::kernels, &emulated_avx512bf16::kernels, &emulated_amx::kernels})
        sets.push_back({kernels, has_avx2, false});
#endif
    return sets;
}

bool is_named(const InstructionSet &set, int argc, char **argv) {
    return std::any_of(argv + 1, argv + argc,
                       [&](const char *name) { return std::strcmp(name, set.kernels->name) == 0; });
}

} // namespace
} // namespace quipu

int main(int argc, char **argv) {
    using namespace quipu;
    const Kernels &scalar = *select_kernels("scalar");
    const auto sets = sets_to_check();
    for (int i = 1; i < argc; i++)
        if (std::none_of(sets.begin(), sets.end(), [&](const InstructionSet &set) {
                return set.supported && std::strcmp(argv[i], set.kernels->name) == 0;
            })) {
            std::fprintf(stderr, "the instruction set %s is unknown or not supported here\n", argv[i]);
            return 2;
        }
    tests::Report report;
    for (const InstructionSet &set : sets) {
        if (argc > 1 && !is_named(set, argc, argv))
            continue;
        if (!set.supported) {
            std::printf("skipped %s: this processor does not have it\n", set.kernels->name);
            continue;
        }
        tests::check_elementwise(*set.kernels, scalar, report);
        tests::check_packing(*set.kernels, scalar, report);
        tests::check_matrices(*set.kernels, scalar, report);
        tests::check_attention(*set.kernels, scalar, report);
        tests::check_reads(*set.kernels, scalar, report);
        std::fflush(stdout);
    }
    std::printf("native: %d passed, %d failed\n", report.num_passed(), report.num_failed());
    return report.num_failed() ? 1 : 0;
}
