// What encoders need beside the ops of decoders: layer norm, and activations without a gate.
#pragma once

namespace quipu::QUIPU_ISA {
namespace {

// y = (x - mean) / sqrt(variance + epsilon) * weight + bias (arXiv:1607.06450). In two passes: the difference of the
// mean square and the squared mean would lose the bits of rows that lie far from zero.
void layer_norm(const float *x, const float *weight, const float *bias, float *y, int width, float epsilon) {
    // Float lanes, summed in double: rows reach 16k values, which would lose bits in one float.
    const auto sum_of = [&](auto vector, auto scalar) {
        double total = 0.0;
        int i = 0;
        for (; i + 64 <= width; i += 64) {
            F32x8 acc = zero_f32();
            for (int j = i; j < i + 64; j += 8)
                acc = vector(load(x + j), acc);
            total += sum(acc);
        }
        for (; i < width; i++)
            total += scalar(x[i]);
        return total;
    };
    const float mean = static_cast<float>(
        sum_of([](F32x8 v, F32x8 acc) { return v + acc; }, [](float v) { return double(v); }) / width);
    const F32x8 means = splat(mean);
    const double squares = sum_of(
        [&](F32x8 v, F32x8 acc) {
            const F32x8 difference = v - means;
            return fma(difference, difference, acc);
        },
        [&](float v) { return double(v - mean) * (v - mean); });
    const float scale = static_cast<float>(1.0 / std::sqrt(squares / width + epsilon));
    const F32x8 scales = splat(scale);
    int i = 0;
    for (; i + 8 <= width; i += 8)
        store(y + i, (load(x + i) - means) * scales * load(weight + i) + load(bias + i));
    for (; i < width; i++)
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// x times the normal distribution function (arXiv:1606.08415): max(x, 0) - |x| Q(|x|), Q(z) = erfc(z / sqrt(2)) / 2.
// erfc by formula 7.1.26 of Abramowitz and Stegun, whose absolute error of 1.5e-7 is that of a float.
inline F32x8 gelu(F32x8 x) {
    const F32x8 magnitude = abs(x), z = magnitude * splat(0.70710678118655f);
    const F32x8 t = splat(1.0f) / fma(z, splat(0.3275911f), splat(1.0f));
    F32x8 p = splat(1.061405429f);
    p = fma(p, t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f));
    const F32x8 tail = splat(0.5f) * p * t * exp(zero_f32() - z * z);
    return max(x, zero_f32()) - magnitude * tail;
}

void gelu(const float *x, float *y, int64_t n) {
    map2(x, x, y, n, [](F32x8 v, F32x8) { return gelu(v); });
}

// The approximation x (1 + tanh(u)) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3), of the same paper.
void gelu_tanh(const float *x, float *y, int64_t n) {
    map2(x, x, y, n, [](F32x8 v, F32x8) {
        const F32x8 u = v * fma(v * v, splat(0.7978845608f * 0.044715f), splat(0.7978845608f));
        return v / (splat(1.0f) + exp(zero_f32() - u - u));
    });
}

// 1 - 2 / (e^2x + 1).
void tanh(const float *x, float *y, int64_t n) {
    map2(x, x, y, n, [](F32x8 v, F32x8) { return splat(1.0f) - splat(2.0f) / (exp(v + v) + splat(1.0f)); });
}

} // namespace
} // namespace quipu::QUIPU_ISA
