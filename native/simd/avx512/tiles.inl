// The tile kernels of set avx512.
#pragma once

#include "simd/avx512/panels.inl"

namespace quipu::QUIPU_ISA {
namespace {

template <class K>
void multiply_tile(const CodeTile &tile, int num_rows, const ActivationPanel *panels, int num_tokens, int num_groups,
                   float *c) {
    multiply_wide_panels<K>(tile, num_rows, panels, num_tokens, num_groups, c);
}

void multiply_float_panels(const float *tile, int num_rows, const FloatPanel *panels, int num_tokens, int size,
                           float *c, uint8_t * /*scratch*/) {
    multiply_wide_float_panels(tile, num_rows, panels, num_tokens, size, c);
}

} // namespace
} // namespace quipu::QUIPU_ISA
