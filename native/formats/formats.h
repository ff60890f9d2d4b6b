// The table of tensor types that the native side can read.
#pragma once

#include <cstdint>

namespace quipu {

// The ids of the tensor types in a GGUF file.
enum TypeId : int {
    kF32 = 0,
    kF16 = 1,
    kQ4_0 = 2,
    kQ4_1 = 3,
    kQ5_0 = 6,
    kQ5_1 = 7,
    kQ8_0 = 8,
    kQ2_K = 10,
    kQ3_K = 11,
    kQ4_K = 12,
    kQ5_K = 13,
    kQ6_K = 14,
    kIQ2_XXS = 16,
    kIQ2_XS = 17,
    kIQ3_XXS = 18,
    kIQ1_S = 19,
    kIQ4_NL = 20,
    kIQ3_S = 21,
    kIQ2_S = 22,
    kIQ4_XS = 23,
    kI8 = 24,
    kI16 = 25,
    kI32 = 26,
    kI64 = 27,
    kF64 = 28,
    kIQ1_M = 29,
    kBF16 = 30,
    kTQ1_0 = 34,
    kTQ2_0 = 35,
    kMXFP4 = 39,
    kNVFP4 = 40,
    kQ1_0 = 41,
    kQ2_0 = 42,
};

struct Format {
    int type_id;
    const char *name;
    int block_size;  // values per block
    int block_bytes; // bytes per block
    // Unpacks `num_blocks` blocks, at any alignment, into num_blocks * block_size floats, with the same bits as
    // quipu.quant.dequantize (a NaN may have another payload).
    void (*unpack)(const uint8_t *blocks, float *out, int64_t num_blocks);
};

// The format with this id, or nullptr.
const Format *find_format(int type_id);

} // namespace quipu
