// Matrix products of every weight type: the row kernels of decode and the tile kernels of prefill.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>

#include "blocks.h"
#include "checks.h"

namespace quipu::tests {

namespace {

// Float sums of up to 900 products, in another order or with fused multiplications.
constexpr double kFloatLimit = 5e-6;
// avx512bf16 rounds activations to 8 significant bits; that is its purpose.
constexpr double kRoundedLimit = 1e-2;

struct TypeInfo {
    int type;
    std::vector<int> halves; // offsets of the f16 scales in a block
};

const std::vector<TypeInfo> &weight_types() {
    static const std::vector<TypeInfo> types = {
        {kF32, {}},
        {kF16, {}},
        {kBF16, {}},
        {kQ4_0, {offsetof(BlockQ4_0, d)}},
        {kQ4_1, {offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, m)}},
        {kQ5_0, {offsetof(BlockQ5_0, d)}},
        {kQ5_1, {offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, m)}},
        {kQ8_0, {offsetof(BlockQ8_0, d)}},
        {kQ2_K, {offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, dmin)}},
        {kQ3_K, {offsetof(BlockQ3_K, d)}},
        {kQ4_K, {offsetof(BlockQ4_K, d), offsetof(BlockQ4_K, dmin)}},
        {kQ5_K, {offsetof(BlockQ5_K, d), offsetof(BlockQ5_K, dmin)}},
        {kQ6_K, {offsetof(BlockQ6_K, d)}},
        {kIQ2_XXS, {offsetof(BlockIQ2_XXS, d)}},
        {kIQ2_XS, {offsetof(BlockIQ2_XS, d)}},
        {kIQ2_S, {offsetof(BlockIQ2_S, d)}},
        {kIQ3_XXS, {offsetof(BlockIQ3_XXS, d)}},
        {kIQ3_S, {offsetof(BlockIQ3_S, d)}},
        {kIQ1_S, {offsetof(BlockIQ1_S, d)}},
        {kIQ1_M, {}},
        {kIQ4_NL, {offsetof(BlockIQ4_NL, d)}},
        {kIQ4_XS, {offsetof(BlockIQ4_XS, d)}},
        {kTQ1_0, {offsetof(BlockTQ1_0, d)}},
        {kTQ2_0, {offsetof(BlockTQ2_0, d)}},
        {kMXFP4, {}},
        {kNVFP4, {}},
        {kQ1_0, {offsetof(BlockQ1_0, d)}},
        {kQ2_0, {offsetof(BlockQ2_0, d)}},
    };
    return types;
}

uint16_t random_half(Random &random) { // between 2^-10 and 2^-6
    return static_cast<uint16_t>(0x1400 + random.below(0x1000));
}

// What replaces the random bytes of a block so that its values are finite and of one size.
void set_scales(const TypeInfo &info, uint8_t *block, Random &random) {
    for (const int offset : info.halves) {
        const uint16_t half = random_half(random);
        std::memcpy(block + offset, &half, 2);
    }
    if (info.type == kIQ1_M) { // the four top nibbles of `scales` together are the f16 scale
        const uint16_t half = random_half(random);
        for (int i = 0; i < 4; i++) {
            uint8_t &high = block[offsetof(BlockIQ1_M, scales) + 2 * i + 1];
            high = static_cast<uint8_t>((high & 0x0F) | (half >> (4 * i) & 0x0F) << 4);
        }
    }
    if (info.type == kMXFP4)
        block[offsetof(BlockMXFP4, e)] = static_cast<uint8_t>(118 + random.below(6));
    if (info.type == kNVFP4)
        for (int i = 0; i < 4; i++)
            block[offsetof(BlockNVFP4, d) + i] = static_cast<uint8_t>(0x10 + random.below(0x20));
}

// `filler` is the byte of all codes, or -1 for random ones.
std::vector<uint8_t> make_weights(const TypeInfo &info, int rows, int cols, int filler, Random &random) {
    const Format &format = *find_format(info.type);
    const int64_t num_values = int64_t(rows) * cols, num_blocks = num_values / format.block_size;
    std::vector<uint8_t> data(static_cast<size_t>(num_blocks * format.block_bytes));
    if (info.type == kF32 || info.type == kF16 || info.type == kBF16) {
        for (int64_t i = 0; i < num_values; i++) {
            const float value = random.normal();
            const uint16_t half = static_cast<uint16_t>(random_half(random) | (random.below(2) << 15));
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            const uint16_t upper = static_cast<uint16_t>(bits >> 16);
            if (info.type == kF32)
                std::memcpy(&data[4 * i], &value, 4);
            else
                std::memcpy(&data[2 * i], info.type == kF16 ? &half : &upper, 2);
        }
        return data;
    }
    for (uint8_t &byte : data)
        byte = static_cast<uint8_t>(filler < 0 ? random.below(256) : filler);
    for (int64_t b = 0; b < num_blocks; b++)
        set_scales(info, data.data() + b * format.block_bytes, random);
    return data;
}

Matrix as_matrix(const TypeInfo &info, const std::vector<uint8_t> &data, int rows, int cols) {
    return {data.data(), static_cast<int64_t>(data.size()) / rows, rows, cols, info.type};
}

// [token][row], with what lies outside the rows asked for left as NaN.
std::vector<float> run_rows(const Kernels &set, const Matrix &w, const std::vector<float> &x, int tokens, int begin,
                            int end) {
    const int64_t row_bytes = activation_row_bytes(w.cols);
    const AlignedBytes quantized(kMaxBlockTokens * row_bytes), scratch(matvec_scratch_floats(w.cols) * 4);
    for (int t = 0; t < tokens; t++)
        set.quantize_row(x.data() + int64_t(t) * w.cols, w.cols,
                         activation_row(quantized.data() + t * row_bytes, w.cols));
    std::vector<float> out(static_cast<size_t>(tokens) * w.rows, NAN);
    set.matvec(w, begin, end, x.data(), w.cols, quantized.data(), nullptr, tokens, out.data(), w.rows,
               scratch.as<float>());
    return out;
}

// [token][row] of the first `rows` rows from `begin` on.
std::vector<float> run_tile(const Kernels &set, const Matrix &w, const std::vector<float> &x, int tokens, int begin,
                            int rows) {
    const int panels = num_panels(tokens);
    const int64_t blocks = round_up(w.cols, kBlock) / kBlock;
    const int64_t row_bytes = activation_row_bytes(w.cols);
    const AlignedBytes codes(blocks * panels * int64_t(sizeof(ActivationPanel))), quantized(kPanelTokens * row_bytes),
        token_panels(2 * blocks * panels * int64_t(sizeof(TokenPanel))),
        floats(blocks * panels * int64_t(sizeof(FloatPanel))), scratch(kTileScratchBytes),
        c(int64_t(panels) * kTileRows * kPanelTokens * 4);
    for (int p = 0; p < panels; p++) {
        const int count = std::min(kPanelTokens, tokens - p * kPanelTokens);
        const float *xp = x.data() + int64_t(p) * kPanelTokens * w.cols;
        set.quantize_panel(xp, w.cols, count, w.cols, codes.as<ActivationPanel>() + p, panels);
        set.float_panel(xp, w.cols, count, w.cols, floats.as<FloatPanel>() + p, panels);
        if (w.cols % kBlock != 0)
            continue;
        ActivationRow packed[kPanelTokens];
        for (int t = 0; t < count; t++) {
            packed[t] = activation_row(quantized.data() + t * row_bytes, w.cols);
            set.quantize_row(xp + int64_t(t) * w.cols, w.cols, packed[t]);
        }
        set.pack_tokens(packed, count, w.cols, 8, token_panels.as<TokenPanel>() + 2 * p, 2 * panels);
    }
    const Panels all{token_panels.as<TokenPanel>(), codes.as<ActivationPanel>(), floats.as<FloatPanel>()};
    set.matmul_tile(w, begin, rows, all, tokens, c.as<float>(), scratch.data());
    std::vector<float> out(static_cast<size_t>(tokens) * rows);
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++)
            out[t * rows + r] = c.as<float>()[(t / kPanelTokens * kTileRows + r) * kPanelTokens + t % kPanelTokens];
    return out;
}

// The same in double precision from what the kernels read: the file's weights and the activations' codes and scales.
std::vector<float> run_exact(const Kernels &set, const Matrix &w, const std::vector<float> &x, int tokens, int begin,
                             int rows) {
    const Format &format = *find_format(w.type);
    const AlignedBytes memory(activation_row_bytes(w.cols));
    const ActivationRow row = activation_row(memory.data(), w.cols);
    std::vector<float> weights(w.cols), out(static_cast<size_t>(tokens) * rows);
    for (int r = 0; r < rows; r++) {
        format.unpack(w.data + (begin + r) * w.row_bytes, weights.data(), w.cols / format.block_size);
        for (int t = 0; t < tokens; t++) {
            set.quantize_row(x.data() + int64_t(t) * w.cols, w.cols, row);
            double sum = 0.0;
            for (int k = 0; k < w.cols; k++)
                sum += double(weights[k]) * row.codes[k] * row.scales[k / kGroup];
            out[t * rows + r] = static_cast<float>(sum);
        }
    }
    return out;
}

double error_of(const std::vector<float> &got, const std::vector<float> &expected) {
    return largest_error(got.data(), expected.data(), static_cast<int64_t>(got.size()));
}

int sizes_of(const TypeInfo &info, int index) {
    const int block = find_format(info.type)->block_size;
    const int short_sizes[] = {block <= 32 ? 96 : block, 544, 2304}, long_sizes[] = {256, 768, 2304};
    const int size = block == 256 ? long_sizes[index] : short_sizes[index];
    return size / block * block;
}

void check_type(const Kernels &kernels, const Kernels &scalar, const TypeInfo &info, Report &report) {
    Random random(100 + info.type);
    const bool rounds = info.type == kBF16 && std::strstr(kernels.name, "avx512bf16") != nullptr;
    double rows_error = 0.0, tile_error = 0.0;
    bool same_bits = true;
    for (int size = 0; size < 3; size++) {
        const int cols = sizes_of(info, size), rows = size == 2 ? 5 : 53;
        const auto data = make_weights(info, rows, cols, -1, random);
        const Matrix w = as_matrix(info, data, rows, cols);
        const auto x = random.normals(int64_t(33) * cols);
        const auto all = run_rows(kernels, w, x, kernels.row_tokens(info.type), 0, rows);
        rows_error =
            std::fmax(rows_error, error_of(all, run_rows(scalar, w, x, kernels.row_tokens(info.type), 0, rows)));
        for (const int tokens : {1, 2, 3, 7, 11}) {
            if (tokens > kernels.row_tokens(info.type))
                continue;
            const auto few = run_rows(kernels, w, x, tokens, 1, rows - 1);
            for (int t = 0; t < tokens; t++)
                same_bits = same_bits && std::isnan(few[t * rows]) && std::isnan(few[t * rows + rows - 1]) &&
                            std::memcmp(&few[t * rows + 1], &all[t * rows + 1], (rows - 2) * sizeof(float)) == 0;
        }
        const int starts[] = {0, 5, 0}, counts[] = {5, 48, 5}, tokens[3][2] = {{33, 5}, {17, 24}, {9, 9}};
        for (const int n : tokens[size]) {
            const bool has_tile_of_its_own = has_block_rows(info.type) && !kernels.tiles_blocks;
            const auto tile = run_tile(kernels, w, x, n, starts[size], counts[size]);
            const auto expected = has_tile_of_its_own ? run_exact(scalar, w, x, n, starts[size], counts[size])
                                                      : run_tile(scalar, w, x, n, starts[size], counts[size]);
            tile_error = std::fmax(tile_error, error_of(tile, expected));
            if (!kernels.tiles_blocks || !has_block_rows(info.type))
                continue;
            for (int t = 0; t < std::min(n, kernels.max_block_tokens); t++) // tiles give the bits of rows
                same_bits = same_bits && std::memcmp(&tile[t * counts[size]], &all[t * rows + starts[size]],
                                                     counts[size] * sizeof(float)) == 0;
        }
    }
    const std::string name = find_format(info.type)->name;
    report.check(kernels, "matvec " + name, rows_error, kFloatLimit);
    report.expect(kernels, "matvec " + name + ": the same bits for any number of tokens, no row outside", same_bits);
    report.check(kernels, "matmul_tile " + name, tile_error, rounds ? kRoundedLimit : kFloatLimit);
}

// All codes at one end of their range against activations at one end of theirs: a sum that saturates or wraps is far
// off.
void check_extremes(const Kernels &kernels, const Kernels &scalar, const TypeInfo &info, Report &report) {
    Random random(200 + info.type);
    const int cols = std::max(256, find_format(info.type)->block_size), rows = 9, tokens = 17;
    double error = 0.0;
    for (const int filler : {0x00, 0x7F, 0x80, 0xFF}) {
        const auto data = make_weights(info, rows, cols, filler, random);
        const Matrix w = as_matrix(info, data, rows, cols);
        for (const int pattern : {0, 1, 2}) {
            std::vector<float> x(static_cast<size_t>(tokens) * cols);
            for (size_t i = 0; i < x.size(); i++)
                x[i] = pattern == 0 || (pattern == 2 && i % 2) ? 1.0f : -1.0f;
            const auto rows_got = run_rows(kernels, w, x, 2, 0, rows),
                       rows_expected = run_rows(scalar, w, x, 2, 0, rows);
            const auto got = run_tile(kernels, w, x, tokens, 0, rows),
                       expected = run_tile(scalar, w, x, tokens, 0, rows);
            error = std::fmax(error, std::fmax(error_of(rows_got, rows_expected), error_of(got, expected)));
            // Between the two kinds of kernels the scalar set must agree too, or it proves nothing.
            for (int t = 0; t < 2; t++)
                error = std::fmax(error, largest_error(&expected[t * rows], &rows_expected[t * rows], rows));
        }
    }
    report.check(kernels, std::string("extreme codes ") + find_format(info.type)->name, error, 1e-4);
}

} // namespace

void check_matrices(const Kernels &kernels, const Kernels &scalar, Report &report) {
    for (const TypeInfo &info : weight_types()) {
        check_type(kernels, scalar, info, report);
        if (info.type != kF32 && info.type != kF16 && info.type != kBF16)
            check_extremes(kernels, scalar, info, report);
    }
}

} // namespace quipu::tests
