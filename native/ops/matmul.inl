// Matrix times many tokens: a tile of weight rows is unpacked once and meets panels of 16 tokens held in vector lanes.
// Integer arithmetic is exact. How int8 tiles are laid out and multiplied depends on what the set sums at once.
#pragma once

#ifdef QUIPU_TILES // the tile kernels of a set with dot products of four: all formats share them
#include "ops/matmul_fours.inl"
#else
#include "ops/matmul_pairs.inl"
#endif

namespace quipu::QUIPU_ISA {
namespace {

#ifndef QUIPU_FLOAT_TILES // defined by sets whose QUIPU_TILES has multiply_float_panels too
// c[R][16] += w[R][kBlock] . panel, all in floats.
template <int R, int H>
inline void multiply_float_rows(const float *tile, const FloatPanel &panel, int size, float *c) {
    F32x8 acc[R][2];
    unrolled<R>([&]<int I>() {
        acc[I][0] = load(c + I * kPanelTokens);
        acc[I][1] = load(c + I * kPanelTokens + 8);
    });
    for (int k = 0; k < size; k++) {
        const F32x8 x0 = load(panel.values[k]), x1 = load(panel.values[k] + 8);
        unrolled<R>([&]<int I>() {
            const F32x8 wi = splat_load(tile + I * kBlock + k);
            acc[I][0] = fma(wi, x0, acc[I][0]);
            if constexpr (H == 2)
                acc[I][1] = fma(wi, x1, acc[I][1]);
        });
    }
    unrolled<R>([&]<int I>() {
        store(c + I * kPanelTokens, acc[I][0]);
        if constexpr (H == 2)
            store(c + I * kPanelTokens + 8, acc[I][1]);
    });
}

// The same for a tile of floats, [kTileRows][kBlock], of which the first `size` columns count.
void multiply_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens, int size,
                           float *c, uint8_t * /*scratch*/) {
    constexpr int kRows = 6; // 12 sums in vector registers
    static_assert(kTileRows % (2 * kRows) == 0);
    for (int p = 0; p < num_panels(num_tokens); p++, c += kTileRows * kPanelTokens)
        if (num_tokens - p * kPanelTokens > 8)
            for (int r = 0; r < num_rows; r += kRows)
                multiply_float_rows<kRows, 2>(tile + r * kBlock, panels[p], size, c + r * kPanelTokens);
        else
            for (int r = 0; r < num_rows; r += 2 * kRows)
                multiply_float_rows<2 * kRows, 1>(tile + r * kBlock, panels[p], size, c + r * kPanelTokens);
}

#endif

template <class Load> inline void convert_half(const uint16_t *w, float *out, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        store(out + i, Load::vector(w + i));
    for (; i < n; i++)
        out[i] = Load::one(w[i]);
}

// 256 values of each row as floats. Formats with blocks below 256 values reach here at any multiple of their block.
void unpack_floats(const Matrix &w, int row_begin, int num_rows, int first, int size, float *tile) {
    for (int r = 0; r < num_rows; r++) {
        const uint8_t *row = w.data + (row_begin + r) * w.row_bytes;
        float *out = tile + r * kBlock;
        if (w.type == kF32) {
            std::memcpy(out, row + first * sizeof(float), size * sizeof(float));
        } else if (w.type == kF16) {
            convert_half<LoadF16>(reinterpret_cast<const uint16_t *>(row) + first, out, size);
        } else if (w.type == kBF16) {
            convert_half<LoadBf16>(reinterpret_cast<const uint16_t *>(row) + first, out, size);
        } else {
            const Format &format = *find_format(w.type);
            format.unpack(row + int64_t(first / format.block_size) * format.block_bytes, out, size / format.block_size);
        }
    }
}

void matmul_tile_float(const Matrix &w, int row_begin, int num_rows, const FloatPanel *panels, int num_tokens, float *c,
                       uint8_t *scratch) {
    float *tile = reinterpret_cast<float *>(scratch);
    for (int first = 0; first < w.cols; first += kBlock, panels += num_panels(num_tokens)) {
        const int size = std::min(kBlock, w.cols - first);
        unpack_floats(w, row_begin, num_rows, first, size, tile);
        multiply_float_panels(tile, num_rows, panels, num_tokens, size, c,
                              scratch + kTileRows * kBlock * sizeof(float));
    }
}

void matmul_tile(const Matrix &w, int row_begin, int num_rows, const Panels &panels, int num_tokens, float *c,
                 uint8_t *scratch) {
    std::memset(c, 0, sizeof(float) * num_panels(num_tokens) * kTileRows * kPanelTokens);
    if (!runs_on_int8(w.type))
        return matmul_tile_float(w, row_begin, num_rows, panels.floats, num_tokens, c, scratch);
    with_int8_weights(w.type,
                      [&]<class W>(W) { matmul_tile_int8<W>(w, row_begin, num_rows, panels, num_tokens, c, scratch); });
}

} // namespace
} // namespace quipu::QUIPU_ISA
