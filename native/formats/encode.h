// Rounding of values to the block types that a KV cache can hold, with the same bits as quipu.quant.encode.
#pragma once

#include <cstdint>

#include "formats/formats.h"

namespace quipu {

constexpr int kCacheBlock = 32;      // values per block of every quantized cache type
constexpr int kCacheBlockBytes = 34; // of the largest block

constexpr bool is_quantized_cache_type(int type) {
    return type == kQ8_0 || type == kQ5_1 || type == kQ5_0 || type == kQ4_1 || type == kQ4_0 || type == kIQ4_NL;
}
constexpr bool is_cache_type(int type) {
    return type == kF32 || type == kF16 || type == kBF16 || is_quantized_cache_type(type);
}

// Encodes 32 values to one block of a quantized cache type.
void encode_block(int type, const float *x, uint8_t *block);

} // namespace quipu
