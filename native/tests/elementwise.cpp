// Norms, activations, rotary embedding, and the packing of activations.
#include <cmath>
#include <cstring>
#include <limits>

#include "checks.h"

namespace quipu::tests {

namespace {

// Activations with values of very different size, an all-zero group, and the largest that survives squaring.
std::vector<float> activations(Random &random, int64_t n) {
    std::vector<float> x = random.normals(n);
    for (int64_t i = 0; i < n; i++) {
        if (i / 32 % 5 == 1)
            x[i] = 0.0f;
        if (i / 32 % 5 == 2)
            x[i] *= 1e-6f;
        if (i / 32 % 5 == 3)
            x[i] = i % 2 ? 1e6f : -1e6f;
    }
    return x;
}

bool same_bits(const float *a, const float *b, int64_t n) {
    return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

} // namespace

void check_elementwise(const Kernels &kernels, const Kernels &scalar, Report &report) {
    Random random(1);
    double norm_error = 0.0, swiglu_error = 0.0, add_error = 0.0, layer_norm_error = 0.0, activation_error = 0.0,
           rope_error = 0.0;
    for (const int n : {1, 7, 8, 63, 64, 65, 128, 999}) {
        const auto x = random.normals(n), y = random.normals(n);
        std::vector<float> got(n, -1.0f), expected(n, -1.0f);
        kernels.rms_norm(x.data(), y.data(), got.data(), n, n, 1e-5f);
        scalar.rms_norm(x.data(), y.data(), expected.data(), n, n, 1e-5f);
        norm_error = std::fmax(norm_error, largest_error(got.data(), expected.data(), n));
        auto gate = random.normals(n);
        for (int i = 0; i < n; i++) // exp meets both its limits
            gate[i] *= i % 7 == 0 ? 200.0f : 3.0f;
        kernels.swiglu(gate.data(), y.data(), got.data(), n);
        scalar.swiglu(gate.data(), y.data(), expected.data(), n);
        swiglu_error = std::fmax(swiglu_error, largest_error(got.data(), expected.data(), n));
        const auto bias = random.normals(n);
        kernels.layer_norm(x.data(), y.data(), bias.data(), got.data(), n, 1e-5f);
        scalar.layer_norm(x.data(), y.data(), bias.data(), expected.data(), n, 1e-5f);
        layer_norm_error = std::fmax(layer_norm_error, largest_error(got.data(), expected.data(), n));
        for (const auto activation : {&Kernels::gelu, &Kernels::gelu_tanh, &Kernels::tanh}) {
            (kernels.*activation)(gate.data(), got.data(), n);
            (scalar.*activation)(gate.data(), expected.data(), n);
            activation_error = std::fmax(activation_error, largest_error(got.data(), expected.data(), n));
        }
        kernels.add(x.data(), y.data(), got.data(), n);
        scalar.add(x.data(), y.data(), expected.data(), n);
        add_error = std::fmax(add_error, largest_error(got.data(), expected.data(), n));
    }
    for (const int group : {16, 96}) { // several norms in a row
        const auto x = random.normals(3 * group), w = random.normals(group);
        std::vector<float> weight;
        for (int i = 0; i < 3; i++)
            weight.insert(weight.end(), w.begin(), w.end());
        std::vector<float> got(3 * group), expected(3 * group);
        kernels.rms_norm(x.data(), weight.data(), got.data(), 3 * group, group, 1e-6f);
        scalar.rms_norm(x.data(), weight.data(), expected.data(), 3 * group, group, 1e-6f);
        norm_error = std::fmax(norm_error, largest_error(got.data(), expected.data(), 3 * group));
    }
    for (const bool neox : {false, true})
        for (const int rotated : {64, 40}) {
            const int heads = 3, dim = 64;
            const auto x = random.normals(heads * dim), cosines = random.normals(rotated / 2),
                       sines = random.normals(rotated / 2);
            std::vector<float> got(heads * dim), expected(heads * dim);
            kernels.rope(x.data(), got.data(), heads, dim, rotated, neox, cosines.data(), sines.data());
            scalar.rope(x.data(), expected.data(), heads, dim, rotated, neox, cosines.data(), sines.data());
            rope_error = std::fmax(rope_error, largest_error(got.data(), expected.data(), heads * dim));
        }
    report.check(kernels, "rms_norm", norm_error, 1e-6);
    report.check(kernels, "layer_norm", layer_norm_error, 2e-6);
    report.check(kernels, "gelu and tanh", activation_error, 1e-6);
    report.check(kernels, "swiglu", swiglu_error, 1e-6);
    report.check(kernels, "add", add_error, 0.0);
    report.check(kernels, "rope", rope_error, 0.0);
}

namespace {

bool rows_agree(const Kernels &kernels, const Kernels &scalar, const std::vector<float> &x) {
    const int k = static_cast<int>(x.size());
    const int64_t padded = round_up(k, kBlock);
    const AlignedBytes a(activation_row_bytes(k)), b(activation_row_bytes(k));
    const ActivationRow got = activation_row(a.data(), k), expected = activation_row(b.data(), k);
    kernels.quantize_row(x.data(), k, got);
    scalar.quantize_row(x.data(), k, expected);
    return std::memcmp(got.codes, expected.codes, static_cast<size_t>(padded)) == 0 &&
           same_bits(got.scales, expected.scales, padded / 32) && same_bits(got.sums32, expected.sums32, padded / 32) &&
           same_bits(got.sums16, expected.sums16, padded / 16) &&
           std::memcmp(got.ratios32, expected.ratios32, static_cast<size_t>(padded / 32 * 2)) == 0 &&
           std::memcmp(got.ratios16, expected.ratios16, static_cast<size_t>(padded / 16 * 2)) == 0 &&
           std::memcmp(got.ratio_sums32, expected.ratio_sums32, static_cast<size_t>(padded / 32 * 2)) == 0 &&
           std::memcmp(got.ratio_sums16, expected.ratio_sums16, static_cast<size_t>(padded / 16 * 2)) == 0 &&
           std::memcmp(got.code_sums16, expected.code_sums16, static_cast<size_t>(padded / 16 * 2)) == 0 &&
           same_bits(got.block_scales, expected.block_scales, padded / kBlock);
}

} // namespace

void check_packing(const Kernels &kernels, const Kernels &scalar, Report &report) {
    Random random(2);
    bool rows = true, panels = true, floats = true;
    for (const int k : {32, 96, 256, 288, 512}) {
        rows = rows && rows_agree(kernels, scalar, activations(random, k));
        for (const int tokens : {1, 5, 16}) {
            const int64_t blocks = round_up(k, kBlock) / kBlock, stride = k + 5, panel_stride = 2;
            const auto x = activations(random, tokens * stride);
            const int64_t bytes = blocks * panel_stride * int64_t(sizeof(ActivationPanel)),
                          float_bytes = blocks * panel_stride * int64_t(sizeof(FloatPanel));
            const AlignedBytes a(bytes), b(bytes), fa(float_bytes), fb(float_bytes);
            kernels.quantize_panel(x.data(), stride, tokens, k, a.as<ActivationPanel>(), panel_stride);
            scalar.quantize_panel(x.data(), stride, tokens, k, b.as<ActivationPanel>(), panel_stride);
            panels = panels && std::memcmp(a.data(), b.data(), static_cast<size_t>(bytes)) == 0;
            kernels.float_panel(x.data(), stride, tokens, k, fa.as<FloatPanel>(), panel_stride);
            scalar.float_panel(x.data(), stride, tokens, k, fb.as<FloatPanel>(), panel_stride);
            floats = floats && std::memcmp(fa.data(), fb.data(), static_cast<size_t>(float_bytes)) == 0;
        }
    }
    report.expect(kernels, "quantize_row: the same bits", rows);
    report.expect(kernels, "quantize_panel: the same bits", panels);
    report.expect(kernels, "float_panel: the same bits", floats);
    bool not_lost = true;
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
        for (int at = 0; at < 32; at++) {
            auto x = random.normals(32);
            x[at] = bad;
            const AlignedBytes memory(activation_row_bytes(32));
            const ActivationRow row = activation_row(memory.data(), 32);
            kernels.quantize_row(x.data(), 32, row);
            not_lost = not_lost && std::isnan(row.scales[0]);
        }
    report.expect(kernels, "quantize_row: a NaN or an infinity makes the scale NaN", not_lost);
}

void check_reads(const Kernels &kernels, const Kernels &, Report &report) {
    constexpr int64_t kBytes = 4096;
    const AlignedBytes memory(kBytes + 8192, 0);
    bool seen = true;
    for (const auto read : {kernels.read_sequential, kernels.read_prefetched, kernels.read_streams})
        for (int64_t at = 0; at < kBytes; at += 61) {
            memory.data()[at] = 4;
            seen = seen && read(memory.data(), kBytes) == 4;
            memory.data()[at] = 0;
            seen = seen && read(memory.data(), kBytes) == 0;
        }
    report.expect(kernels, "read_sequential, read_prefetched, read_streams: every byte is read", seen);
}

} // namespace quipu::tests
