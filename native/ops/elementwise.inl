// Norms, activations, rotary embedding, and the packing of activations for the matrix kernels.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// e^x to about one unit in the last place: 2^n * e^r with n integral and |r| <= ln(2) / 2, e^r by its Taylor polynomial
// of degree 7 (remainder below 6e-9).
inline F32x8 exp(F32x8 x) {
    x = min(splat(88.0f), max(splat(-87.0f), x)); // in this order a NaN stays a NaN
    const F32x8 n = round_nearest(x * splat(1.44269504089f));
    F32x8 r = fma(n, splat(-0.693359375f), x); // ln(2) in two parts keeps r exact
    r = fma(n, splat(2.12194440e-4f), r);
    F32x8 p = splat(1.0f / 5040.0f);
    p = fma(p, r, splat(1.0f / 720.0f));
    p = fma(p, r, splat(1.0f / 120.0f));
    p = fma(p, r, splat(1.0f / 24.0f));
    p = fma(p, r, splat(1.0f / 6.0f));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    return p * exp2_integral(n);
}

inline F32x8 silu(F32x8 x) {
    return x / (splat(1.0f) + exp(zero_f32() - x));
}

// Calls vector(i) for whole vectors of [0, n), then once more on a copy of the tail: f maps up to two inputs to y.
template <class F> inline void map2(const float *a, const float *b, float *y, int64_t n, F f) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        store(y + i, f(load(a + i), load(b + i)));
    if (i < n) {
        float ta[8] = {}, tb[8] = {}, ty[8];
        std::memcpy(ta, a + i, (n - i) * sizeof(float));
        std::memcpy(tb, b + i, (n - i) * sizeof(float));
        store(ty, f(load(ta), load(tb)));
        std::memcpy(y + i, ty, (n - i) * sizeof(float));
    }
}

void swiglu(const float *gate, const float *up, float *y, int64_t n) {
    map2(gate, up, y, n, [](F32x8 g, F32x8 u) { return silu(g) * u; });
}

void add(const float *a, const float *b, float *y, int64_t n) {
    map2(a, b, y, n, [](F32x8 p, F32x8 q) { return p + q; });
}

void rms_norm(const float *x, const float *weight, float *y, int width, int group, float epsilon) {
    for (int first = 0; first < width; first += group) {
        const float *xg = x + first;
        // Float lanes, summed in double: rows reach 16k values, whose squares would lose bits in one float.
        double total = 0.0;
        int i = 0;
        for (; i + 64 <= group; i += 64) {
            F32x8 acc = zero_f32();
            for (int j = 0; j < 64; j += 8)
                acc = fma(load(xg + i + j), load(xg + i + j), acc);
            total += sum(acc);
        }
        for (; i < group; i++)
            total += double(xg[i]) * xg[i];
        const float scale = static_cast<float>(1.0 / std::sqrt(total / group + epsilon));
        const F32x8 scales = splat(scale);
        map2(xg, weight, y + first, group, [&](F32x8 v, F32x8 w) { return v * scales * w; });
    }
}

// Reads x, writes y (which may be x). Dimensions at and after num_rotated are copied.
void rope(const float *x, float *y, int num_heads, int head_dim, int num_rotated, bool neox, const float *cosines,
          const float *sines) {
    const int half = num_rotated / 2;
    for (int h = 0; h < num_heads; h++, x += head_dim, y += head_dim) {
        for (int i = 0; i < half; i++) {
            const int a = neox ? i : 2 * i, b = neox ? i + half : 2 * i + 1;
            const float xa = x[a], xb = x[b];
            y[a] = xa * cosines[i] - xb * sines[i];
            y[b] = xa * sines[i] + xb * cosines[i];
        }
        if (y != x)
            std::memcpy(y + num_rotated, x + num_rotated, (head_dim - num_rotated) * sizeof(float));
    }
}

// 32 values to signed bytes with the scale absmax / 127; a NaN or infinity makes the scale NaN, so it is not lost.
inline float quantize_group(const float *x, B8x32 &codes) {
    const F32x8 v[4] = {load(x), load(x + 8), load(x + 16), load(x + 24)};
    const float absmax = max_lane(max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3]))));
    const float check = sum((v[0] - v[0]) + (v[1] - v[1]) + (v[2] - v[2]) + (v[3] - v[3]));
    const float inverse = absmax > 0.0f ? 127.0f / absmax : 0.0f;
    const F32x8 s = splat(inverse);
    codes = round_to_i8(v[0] * s, v[1] * s, v[2] * s, v[3] * s);
    return absmax / 127.0f + check;
}

// The integers of one block of a row whose codes and scales are there; `sums` are those of its codes, per 16 values.
inline void quantize_ratios(const ActivationRow &row, int block, const int (&sums)[2 * kGroupsPerBlock]) {
    const int first = block * kGroupsPerBlock;
    const F32x8 scales = load(row.scales + first);
    const float largest = max_lane(scales);
    // Below this the ratio would overflow: such a block counts as zero. A scale that is not finite takes the whole
    // block.
    const bool is_finite = std::isfinite(sum(scales * splat(0.125f)));
    const bool is_usable = is_finite && largest > 1e-32f;
    row.block_scales[block] = is_finite ? largest : NAN;
    for (int g = 0; g < kGroupsPerBlock; g++) {
        const float ratio = is_usable ? row.scales[first + g] / largest : 0.0f;
        const int low = sums[2 * g], high = sums[2 * g + 1]; // |sum of 16 codes| <= 16 * 127: times 16 fits an int16
        const auto rounded = [](float x) { return static_cast<int16_t>(std::lrint(x)); };
        row.ratios32[first + g] = rounded(std::min(32768.0f * ratio, 32767.0f));
        row.ratios16[2 * (first + g)] = row.ratios16[2 * (first + g) + 1] = row.ratios32[first + g];
        row.ratio_sums32[first + g] = rounded(8.0f * ratio * static_cast<float>(low + high));
        row.ratio_sums16[2 * (first + g)] = rounded(16.0f * ratio * static_cast<float>(low));
        row.ratio_sums16[2 * (first + g) + 1] = rounded(16.0f * ratio * static_cast<float>(high));
        row.code_sums16[2 * (first + g)] = static_cast<int16_t>(low);
        row.code_sums16[2 * (first + g) + 1] = static_cast<int16_t>(high);
    }
}

void quantize_row(const float *x, int k, ActivationRow out) {
    const int groups = k / kGroup, padded = static_cast<int>(round_up(k, kBlock)) / kGroup;
    int block_sums[2 * kGroupsPerBlock];
    for (int g = 0; g < padded; g++) {
        int low = 0, high = 0;
        if (g < groups) {
            B8x32 codes;
            const float scale = quantize_group(x + g * kGroup, codes);
            store_b8(out.codes + g * kGroup, codes);
            sum_halves(codes, low, high);
            out.scales[g] = scale;
            out.sums16[2 * g] = scale * low;
            out.sums16[2 * g + 1] = scale * high;
            out.sums32[g] = scale * (low + high);
        } else {
            std::memset(out.codes + g * kGroup, 0, kGroup);
            out.scales[g] = out.sums32[g] = out.sums16[2 * g] = out.sums16[2 * g + 1] = 0.0f;
        }
        block_sums[2 * (g % kGroupsPerBlock)] = low;
        block_sums[2 * (g % kGroupsPerBlock) + 1] = high;
        if (g % kGroupsPerBlock == kGroupsPerBlock - 1)
            quantize_ratios(out, g / kGroupsPerBlock, block_sums);
    }
}

void quantize_panel(const float *x, int64_t stride, int num_tokens, int k, ActivationPanel *panels,
                    int64_t panel_stride) {
    const int groups = k / kGroup;
    for (int kb = 0; kb * kBlock < k; kb++) {
        ActivationPanel &panel = panels[kb * panel_stride];
        if (num_tokens < kPanelTokens || (kb + 1) * kBlock > k)
            std::memset(&panel, 0, sizeof(panel));
        for (int t = 0; t < num_tokens; t++) {
            for (int g = 0; g < kGroupsPerBlock && kb * kGroupsPerBlock + g < groups; g++) {
                B8x32 codes;
                alignas(32) int8_t bytes[32];
                const float scale = quantize_group(x + t * stride + kb * kBlock + g * kGroup, codes);
                store_b8(bytes, codes);
                for (int i = 0; i < 8; i++)
                    std::memcpy(panel.codes[g * 8 + i][t], bytes + 4 * i, 4);
                int low, high;
                sum_halves(codes, low, high);
                panel.scales[g][t] = scale;
                panel.sums16[2 * g][t] = scale * low;
                panel.sums16[2 * g + 1][t] = scale * high;
                panel.sums32[g][t] = scale * (low + high);
            }
        }
    }
}

void float_panel(const float *x, int64_t stride, int num_tokens, int k, FloatPanel *panels, int64_t panel_stride) {
    for (int kb = 0; kb * kBlock < k; kb++) {
        FloatPanel &panel = panels[kb * panel_stride];
        const int size = std::min(kBlock, k - kb * kBlock);
        if (num_tokens < kPanelTokens || size < kBlock)
            std::memset(&panel, 0, sizeof(panel));
        for (int t = 0; t < num_tokens; t++)
            for (int i = 0; i < size; i++)
                panel.values[i][t] = x[t * stride + kb * kBlock + i];
    }
}

} // namespace
} // namespace quipu::QUIPU_ISA
